"""The transport ``celery``, with real brokers: what is published, what is not, and what goes to the outbox instead."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import warnings
from types import SimpleNamespace

import kombu
import pytest
from django.core.signals import request_started
from django.db import connections, transaction

from pluginhost import host
from pluginhost.delivery import accounts, broker, outbox
from pluginhost.delivery import celery as carrier
from pluginhost.delivery.breaker import PAUSE_FIRST, PAUSE_LAST, Breaker
from pluginhost.models import Envelope
from pluginhost.workers.worker import drain
from tests.celery import carried
from tests.celery.carried import in_queue, stored_names, take_in
from tests.processes import environment
from tests.samples import Folder, Recorder
from tests.site.models import Order
from tests.steps import outbox_renamed

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)

#: Nothing listens on the discard port.
NOBODY = "amqp://127.0.0.1:9//"


def counted(outcome: str) -> int:
    return host.counts.get(outcome, 0)


@pytest.fixture
def queue() -> str:
    return carried.new_queue()


@pytest.fixture
def site(configure, queue):
    """The transport on the site, with more time than a busy machine needs."""

    def set_up(**keys):
        configure("celery", **{"recorder": {}, "INGEST_QUEUE": queue, "BROKER_BUDGET": 10.0, **keys})

    set_up()
    request_started.send(None)  # what tests before have done on these connections belongs to no request of ours
    return set_up


@pytest.fixture
def app(broker, site):
    with carried.celery_app(broker) as app:
        yield app


@pytest.fixture
def away(site):
    """A site whose broker is not there."""
    with carried.celery_app(NOBODY) as app:
        yield app


# --- what the broker carries ---


def test_an_event_travels_over_the_broker_into_the_outbox(database, app, queue, site, client):
    site(folder={})

    assert client.get("/order/").content == b"paid"

    assert Envelope.objects.count() == 0
    assert take_in(app, queue) == 1
    drain(host.registry.runners, database)
    assert [event.name for event in Recorder.seen["recorder"]] == ["order paid"]
    assert [event.value for event in Folder.seen["folder"]] == [12.5]
    assert accounts.read(database)["folder"]["delivered"] == 1


def test_the_events_of_a_request_are_one_message(database, app, queue, client):
    assert client.get("/twice/").content == b"twice"

    assert in_queue(app, queue) == 1
    take_in(app, queue)
    assert stored_names() == ["first", "second"]


@pytest.mark.rabbitmq
def test_a_message_survives_a_restart_and_tells_nothing_of_people_in_its_headers(rabbitmq, queue, site):
    with carried.celery_app(rabbitmq) as app:
        host.track(None, "signed up", {"email": "ada@example.org"})

        (message,) = carried.messages(app, queue)
        assert message.properties["delivery_mode"] == 2
        assert message.headers["task"] == "pluginhost.ingest"
        assert message.headers["ignore_result"] is True
        assert "ada@example.org" not in str(message.headers)
        assert "ada@example.org" in carried.arguments(message)["payload"]
        with app.connection_for_read() as connection:  # declared as anything but durable, it would refuse this
            kombu.Queue(queue, durable=True, channel=connection.default_channel).queue_declare()


@pytest.mark.valkey
@pytest.mark.parametrize(
    ("accepted", "content_type"),
    [(["pickle", "json"], "application/json"), (["pickle"], "application/x-python-serialize")],
    ids=["all", "pickle"],
)
def test_a_message_is_json_unless_no_worker_accepts_that(valkey, queue, site, accepted, content_type):
    with carried.celery_app(valkey, task_serializer="pickle", accept_content=accepted) as app:
        host.track(None, "one")

        (message,) = carried.messages(app, queue)
        assert message.content_type == content_type


def test_a_request_asks_no_database(database, app, queue, client, django_assert_num_queries):
    with django_assert_num_queries(0, connection=connections[database]):
        host.track(None, "free")

    assert in_queue(app, queue) == 1


def test_large_envelopes_travel_too(app, queue):
    with host.batch():
        for _ in range(40):
            host.track(None, "large", {"text": "ü" * 15_000})

    take_in(app, queue)
    assert stored_names() == ["large"] * 40


# --- transactions ---


def test_nothing_is_published_before_the_commit(database, app, queue):
    with transaction.atomic(using=database):
        assert host.track(None, "paid") is not None
        assert in_queue(app, queue) == 0

    assert in_queue(app, queue) == 1


@pytest.mark.parametrize("end", ["rollback", "savepoint", "manual", "set_rollback"])
def test_what_is_rolled_back_is_neither_published_nor_stored(database, app, queue, client, end):
    assert client.get("/order/", {"end": end}).status_code == 200

    assert Order.objects.count() == (1 if end in ("savepoint", "manual") else 0)
    assert in_queue(app, queue) == 0
    assert Envelope.objects.count() == 0


def test_a_manual_savepoint_around_an_atomic_block_takes_back_what_was_tracked_in_it(database, app, queue):
    with transaction.atomic(using=database):
        host.track(None, "kept")
        savepoint = connections[database].savepoint()
        with transaction.atomic(using=database):
            host.track(None, "undone")
        transaction.savepoint_rollback(savepoint, using=database)

    take_in(app, queue)
    assert stored_names() == ["kept"]


def test_savepoints_of_a_request_before_do_not_count(database, app, queue, client):
    for _ in range(2):
        client.get("/order/", {"end": "savepoint"})
    assert client.get("/order/").content == b"paid"

    assert in_queue(app, queue) == 1
    assert Envelope.objects.count() == 0


def test_what_is_tracked_in_a_nested_block_is_published(database, app, queue):
    with transaction.atomic(using=database), transaction.atomic(using=database):
        host.track(None, "nested")

    assert in_queue(app, queue) == 1


def test_without_autocommit_the_outbox_takes_part_in_the_transaction(database, app, queue):
    transaction.set_autocommit(False, using=database)
    try:
        host.track(None, "undone")
        transaction.rollback(using=database)
        host.track(None, "kept")
        transaction.commit(using=database)
    finally:
        transaction.set_autocommit(True, using=database)

    assert in_queue(app, queue) == 0
    assert stored_names() == ["kept"]


# --- outages ---


def test_without_a_broker_the_outbox_has_everything_and_says_so_once(database, away, caplog):
    before = counted("spilled")

    assert host.track(None, "outside") is not None
    with transaction.atomic(using=database):
        assert host.track(None, "inside") is not None
    with host.batch():
        host.track(None, "one")
        host.track(None, "two")

    assert stored_names() == ["outside", "inside", "one", "two"]
    assert counted("spilled") == before + 4
    assert len([record for record in caplog.records if record.name == "pluginhost.broker"]) == 1


def test_an_outage_that_begins_within_a_transaction_is_met_after_the_commit(database, away):
    with transaction.atomic(using=database):
        host.track(None, "paid")
        assert Envelope.objects.count() == 0

    assert stored_names() == ["paid"]


def test_without_broker_and_outbox_a_page_is_whole_and_the_loss_is_counted(database, away, client):
    lost, accepted = counted("lost"), counted("accepted")

    with outbox_renamed(database):
        assert client.get("/order/").content == b"paid"
        assert host.track(None, "outside") is None

    assert Order.objects.count() == 1
    assert counted("lost") == lost + 2
    assert counted("accepted") == accepted + 1, "that of the page: it was lost after the commit"


def test_without_celery_the_outbox_has_everything(away, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "celery", None)

    host.track(None, "kept")

    assert stored_names() == ["kept"]
    assert "celery" in caplog.text


def test_a_password_in_the_broker_s_url_is_told_to_nobody(site, caplog):
    with carried.celery_app("amqp://web:pa:ss#word@[127.0.0.1/x"):
        host.track(None, "kept")

    assert stored_names() == ["kept"]
    assert "word" not in caplog.text
    assert "URL" in caplog.text


def test_a_password_in_the_url_of_a_second_broker_is_told_to_nobody(site, caplog):
    with carried.celery_app(f"{NOBODY};amqp://web:pa:ss#word@127.0.0.1/x"):
        host.track(None, "kept")

    assert stored_names() == ["kept"]
    assert "pa:ss" not in caplog.text
    assert "ValueError" in caplog.text


def test_a_site_whose_tasks_run_at_once_has_no_use_for_a_broker(database, site, caplog):
    with carried.celery_app(NOBODY, task_always_eager=True):
        with pytest.raises(RuntimeError), transaction.atomic(using=database):
            host.track(None, "undone")
            raise RuntimeError
        host.track(None, "kept")

    assert stored_names() == ["kept"]
    assert "the broker" not in caplog.text


def test_what_is_tracked_in_one_transaction_shares_one_budget(database, app, queue, site, monkeypatch):
    host.track(None, "connected")
    site(BROKER_BUDGET=0.5)
    send = broker.Link.send

    def slowly(self, message, seconds):
        time.sleep(0.2)
        send(self, message, seconds)

    monkeypatch.setattr(broker.Link, "send", slowly)
    begun = time.monotonic()
    with transaction.atomic(using=database):
        for number in range(30):
            host.track(None, f"event {number}")
    assert time.monotonic() - begun < 4, "not thirty times as long"

    assert Envelope.objects.count() > 0
    take_in(app, queue)
    assert set(stored_names()) == {"connected", *(f"event {number}" for number in range(30))}


def test_a_link_that_is_made_too_late_serves_the_next_request(app, queue, site, monkeypatch):
    made = threading.Event()
    may_go_on = threading.Event()
    connect = broker.Link.__init__

    def late(self, *arguments):
        assert may_go_on.wait(30)
        connect(self, *arguments)
        made.set()

    monkeypatch.setattr(broker.Link, "__init__", late)
    clock = [0.0]
    monkeypatch.setattr(broker._office, "breaker", Breaker(lambda: clock[0]))
    site(BROKER_BUDGET=0.05)
    host.track(None, "spilled")
    may_go_on.set()
    assert made.wait(30)
    monkeypatch.setattr(broker.Link, "__init__", None)

    clock[0] += PAUSE_FIRST
    site(BROKER_BUDGET=10.0)
    until = time.monotonic() + 30
    while not broker._office._resting:  # it is at its desk again
        assert time.monotonic() < until
        time.sleep(0.01)
    host.track(None, "carried")

    assert stored_names() == ["spilled"]
    take_in(app, queue)
    assert stored_names() == ["spilled", "carried"]


def test_what_a_process_loads_at_its_first_event_is_no_waiting_for_the_broker(app, queue, site, monkeypatch):
    load, now, late = kombu.Connection.get_transport_cls, time.monotonic, []
    for module in (broker, carrier):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now() + 60 * len(late)))

    def slowly(self):
        if threading.current_thread() is threading.main_thread() and not late:
            late.append(1)
        return load(self)

    monkeypatch.setattr(kombu.Connection, "get_transport_cls", slowly)

    host.track(None, "carried")

    assert late
    assert in_queue(app, queue) == 1
    assert Envelope.objects.count() == 0


@pytest.mark.rabbitmq
def test_a_queue_that_someone_deleted_is_made_again(rabbitmq, queue, site):
    with carried.celery_app(rabbitmq) as app:
        host.track(None, "gone with the queue")
        with app.connection_for_write() as connection:
            connection.default_channel.queue_delete(queue)
        host.track(None, "kept")

        assert take_in(app, queue) == 1
        assert stored_names() == ["kept"]


@pytest.mark.rabbitmq
def test_what_no_queue_takes_comes_back_and_goes_to_the_outbox(rabbitmq, queue, site, caplog):
    nowhere = kombu.Queue(queue, no_declare=True)
    with carried.celery_app(rabbitmq, task_queues=[nowhere]):
        host.track(None, "returned")

    assert stored_names() == ["returned"]
    assert "NO_ROUTE" in caplog.text


@pytest.mark.rabbitmq
def test_what_a_full_queue_rejects_goes_to_the_outbox(rabbitmq, queue, site):
    full = kombu.Queue(queue, queue_arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    with carried.celery_app(rabbitmq, task_queues=[full]) as app:
        host.track(None, "first")
        host.track(None, "rejected")

        assert stored_names() == ["rejected"]
        assert in_queue(app, queue) == 1


# --- forks ---


def test_after_a_fork_parent_and_child_have_connections_of_their_own(app, queue):
    host.track(None, "parent before")
    parents = broker.office()
    (link,) = [courier._link for courier in parents._resting]
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of newer Pythons, about forks and threads
        pid = os.fork()
    if pid == 0:  # nothing of the test's may go on here
        try:
            tracked = host.track(None, "child") is not None
            own = [courier._link for courier in broker.office()._resting]
            fine = tracked and broker.office() is not parents and own != [link] and len(own) == 1
            os.write(write, b"fine" if fine else b"not fine")
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0) == (pid, 0)
    os.close(write)
    with os.fdopen(read) as told:
        assert told.read() == "fine"
    host.track(None, "parent after")

    assert [courier._link for courier in parents._resting] == [link]
    assert Envelope.objects.count() == 0
    take_in(app, queue)
    assert stored_names() == ["parent before", "child", "parent after"]


PROCESS = """
import multiprocessing, os, sys
import celery, django
django.setup()
app = celery.Celery("apart", broker=sys.argv[1])
from pluginhost import host

def track(name):
    assert host.track(None, name) is not None

if __name__ == "__main__":
    track("main")
    child = multiprocessing.get_context("fork").Process(target=track, args=("child",))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    track("main")
    assert "spilled" not in host.counts, host.counts
"""


def test_a_process_that_has_published_ends_in_silence(database, broker, site, queue):
    given = {**environment(database), "PYTHONDEVMODE": "1", "PYTHONWARNINGS": "ignore::DeprecationWarning"}
    setting = {**json.loads(given["PLUGINHOST_TEST_SETTING"]), "TRANSPORT": "celery"}

    ended = subprocess.run(
        [sys.executable, "-c", PROCESS, broker],
        env={**given, "PLUGINHOST_TEST_SETTING": json.dumps(setting)},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    with carried.celery_app(broker) as app:
        assert in_queue(app, queue) == 3
    assert Envelope.objects.count() == 0


# --- once ---


def test_what_arrives_twice_is_stored_once(database, app, queue):
    host.track(None, "once")

    (message,) = carried.messages(app, queue)
    named = carried.arguments(message)
    from pluginhost.delivery.ingest import ingest

    assert ingest(**named)
    assert ingest(**named)
    with transaction.atomic(using=database):
        assert ingest(**named)
        Order.objects.create(number="1")

    assert stored_names() == ["once"]
    assert Order.objects.count() == 1


def test_what_was_spilled_and_arrives_all_the_same_is_stored_once(database, app, queue, monkeypatch, caplog):
    """The confirm came too late: nobody can tell whether the broker has it."""
    monkeypatch.setattr(broker.Office, "publish", _unheard(broker.Office.publish))

    host.track(None, "uncertain")
    assert stored_names() == ["uncertain"]
    assert take_in(app, queue) == 1

    assert stored_names() == ["uncertain"]


def test_a_spill_finds_what_has_arrived_already(database, app, queue, monkeypatch, caplog):
    spill = outbox.transport.spill

    def late(envelopes, using):
        assert take_in(app, queue) == 1
        return spill(envelopes, using)

    monkeypatch.setattr(broker.Office, "publish", _unheard(broker.Office.publish))
    monkeypatch.setattr(outbox.transport, "spill", late)

    assert host.track(None, "uncertain") is not None

    assert stored_names() == ["uncertain"]
    assert "refused" not in caplog.text


def _unheard(publish):
    def unheard(self, app, messages, deadline):
        publish(self, app, messages, deadline)
        return 0, "no answer"

    return unheard


# --- the circuit breaker ---


@pytest.fixture
def clock():
    return [100.0]


@pytest.fixture
def breaker(clock):
    return Breaker(lambda: clock[0])


def test_a_breaker_lets_one_request_probe_after_a_pause_that_grows(breaker, clock):
    breaker.failed(breaker.enter(), "away")
    pause = PAUSE_FIRST
    while pause < 2 * PAUSE_LAST:
        clock[0] += min(pause, PAUSE_LAST) - 0.01
        assert breaker.enter() is None
        clock[0] += 0.02
        assert not breaker.is_open
        probe = breaker.enter()
        assert probe is not None
        assert breaker.is_open
        assert breaker.enter() is None, "one at a time"
        breaker.failed(probe, "still away")
        pause *= 2

    clock[0] += PAUSE_LAST + 0.01
    breaker.succeeded(breaker.enter())
    assert breaker.enter() is not None
    breaker.failed(breaker.enter(), "away again")
    clock[0] += PAUSE_FIRST + 0.01
    assert breaker.enter() is not None, "it begins with a short pause again"


def test_a_breaker_counts_an_outage_that_many_notice_once_and_tells_it_once(breaker, clock, caplog):
    tickets = [breaker.enter() for _ in range(5)]
    for ticket in tickets[:3]:
        breaker.failed(ticket, "away")
    breaker.succeeded(tickets[3])
    assert breaker.enter() is None, "that went before the outage"
    clock[0] += PAUSE_FIRST
    probe = breaker.enter()
    breaker.spilled(3)
    breaker.succeeded(probe)
    breaker.failed(tickets[4], "away")

    assert breaker.enter() is not None, "that was the outage which is over"
    assert [record.getMessage()[:36] for record in caplog.records] == [
        "the broker does not take events, whi",
        "the broker takes events again; 3 wen",
    ]


def test_a_probe_whose_request_is_broken_off_lets_another_one_probe(site, monkeypatch):
    clock = [0.0]
    with carried.celery_app(NOBODY):
        monkeypatch.setattr(broker._office, "breaker", Breaker(lambda: clock[0]))
        host.track(None, "notices")
        clock[0] += PAUSE_FIRST
        asked = []

        def broken_off(*_):
            asked.append(1)
            raise SystemExit

        monkeypatch.setattr(broker._office, "publish", broken_off)
        with pytest.raises(SystemExit):
            host.track(None, "probes")
        host.track(None, "spared")
        clock[0] += 2 * PAUSE_FIRST
        with pytest.raises(SystemExit):
            host.track(None, "probes")
        assert len(asked) == 2
        assert stored_names() == ["notices", "probes", "spared", "probes"]
