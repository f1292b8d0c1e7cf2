"""What the tasks do when something else than the database refuses: the lanes stay apart, and no envelope goes."""

from __future__ import annotations

import subprocess
import sys

import pytest
from celery.exceptions import Reject
from kombu import Queue

from pluginhost import tasks
from pluginhost.workers import nudging
from tests.celery.workers import Site, in_force
from tests.processes import ROOT, environment
from tests.steps import track

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)


@pytest.fixture
def site(database):
    nudging.reset()
    with Site(database, "memory://") as site, in_force(site):
        site.app.finalize()
        yield site
    nudging.reset()


def test_a_lane_whose_queue_there_is_not_holds_up_no_other(configure, database, site, caplog):
    site.app.conf.update(task_create_missing_queues=False, task_queues=[Queue(site.queue)])
    configure("outbox", folder={"CELERY_QUEUE": "misspelt"}, recorder={})
    track("one")

    tasks.tick(database)

    assert site.waiting() == 1
    assert "lane folder" in caplog.text
    assert "misspelt" in caplog.text


def test_what_fails_before_anything_could_be_stored_goes_back_to_the_broker(site, monkeypatch):
    """Celery discards the message of a task that fails, even of one that is acknowledged late."""
    monkeypatch.setattr(tasks, "PAUSES", (0.0,))
    monkeypatch.setitem(sys.modules, "pluginhost.delivery.ingest", None)

    with pytest.raises(Reject) as rejected:
        tasks.ingest(version=1)

    assert rejected.value.requeue is True


def test_what_fails_between_two_attempts_goes_back_to_the_broker(site, monkeypatch):
    def fail() -> None:
        raise RuntimeError("a connection that can't be closed")

    monkeypatch.setattr(nudging, "let_go", fail)
    with pytest.raises(Reject) as rejected:
        tasks.ingest(of_a_later_version=1)

    assert rejected.value.requeue is True


def test_a_site_with_another_queue_than_celery_may_look_for_tasks_in_all_apps(configure, database):
    configure("outbox", recorder={})
    script = (
        "import sys; sys.modules['celery'] = sys.modules['kombu'] = None\n"
        "import django; django.setup()\n"
        "from django.utils.module_loading import autodiscover_modules\n"
        "autodiscover_modules('tasks')\n"
        "from pluginhost.tasks import beat_schedule, tick\n"
        "assert beat_schedule(); tick()\n"
    )
    command = [sys.executable, "-W", "error", "-c", script]
    ended = subprocess.run(command, env=environment(database), cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
