"""The checks of a site that wants Celery."""

from __future__ import annotations

import kombu
import pytest

from pluginhost.tasks import beat_schedule
from tests.celery.carried import celery_app
from tests.test_checks import produced, run


@pytest.mark.parametrize("url", ["amqp://127.0.0.1//", "amqps://127.0.0.1//", "redis://127.0.0.1/0"])
@pytest.mark.parametrize("wanted", [("celery", {}), ("outbox", {"WORKER": "celery"})], ids=["transport", "worker"])
def test_a_site_with_a_broker_has_no_messages(configure, url, wanted):
    transport, keys = wanted
    configure(transport, **keys)
    with celery_app(url, beat_schedule=beat_schedule()):
        assert run() == []


@pytest.mark.parametrize("wanted", [("celery", {}), ("outbox", {"WORKER": "celery"})], ids=["transport", "worker"])
def test_e012_celery_is_not_installed(configure, monkeypatch, wanted):
    transport, keys = wanted
    configure(transport, **keys)
    monkeypatch.setattr("pluginhost.checks.celery.find_spec", lambda _: None)

    message = produced("E012")
    assert message.msg.startswith('PLUGINHOST["WORKER"]' if keys else 'PLUGINHOST["TRANSPORT"]')
    assert "pip install pluginhost[celery]" in message.hint


def test_e013_no_broker(configure, monkeypatch):
    monkeypatch.delenv("CELERY_BROKER_URL", raising=False)
    configure("celery")
    with celery_app(None):
        assert "__init__.py" in produced("E013").hint


def test_e013_a_url_that_is_none(configure):
    configure("celery")
    with celery_app("amqp://web:pa:ss#word@[127.0.0.1/x"):
        message = produced("E013")
    assert "word" not in message.msg + message.hint


def test_e014_a_queue_that_may_not_be_made(configure):
    configure("celery", INGEST_QUEUE="events")
    with celery_app("amqp://127.0.0.1//", task_create_missing_queues=False, task_queues=[kombu.Queue("tasks")]):
        assert "'events'" in produced("E014").msg
    with celery_app("amqp://127.0.0.1//", task_create_missing_queues=False, task_queues=[kombu.Queue("events")]):
        assert run() == []


def test_e014_a_lane_s_queue_that_may_not_be_made(configure):
    configure("outbox", WORKER="celery", recorder={"CELERY_QUEUE": "slow"})
    conf = {"task_create_missing_queues": False, "beat_schedule": beat_schedule()}
    with celery_app("amqp://127.0.0.1//", task_queues=[kombu.Queue("tasks")], **conf):
        message = produced("E014")
        assert "'slow'" in message.msg
        assert "recorder" in message.hint
    with celery_app("amqp://127.0.0.1//", task_queues=[kombu.Queue("slow")], **conf):
        assert run() == []


def test_w022_nobody_looks_into_the_outbox(configure):
    configure("outbox", WORKER="celery")
    with celery_app("amqp://127.0.0.1//", beat_schedule={"other": {"task": "newsletter.send", "schedule": 60.0}}):
        produced("W022")
    with celery_app("amqp://127.0.0.1//", beat_scheduler="django_celery_beat.schedulers:DatabaseScheduler"):
        assert run() == [], "its entries may be in the database"


def test_w007_tasks_run_at_once(configure):
    configure("celery")
    with celery_app("amqp://127.0.0.1//", task_always_eager=True):
        produced("W007")


@pytest.mark.parametrize(("url", "id_"), [("memory://", "W008"), ("filesystem://", "W009")])
def test_w008_and_w009_brokers_that_promise_nothing(configure, url, id_):
    configure("celery")
    with celery_app(url):
        produced(id_)


def test_a_site_without_celery_is_not_asked(configure):
    configure("outbox")
    with celery_app(None):
        assert run() == []
