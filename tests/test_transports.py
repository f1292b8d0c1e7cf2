"""The transports without a queue: ``inline`` and ``memory``."""

from __future__ import annotations

import pytest
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext

from pluginhost import PermanentError, host
from pluginhost.delivery import memory
from pluginhost.models import Delivery, Envelope
from tests.samples import Folder, Recorder

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)


def names(alias: str = "recorder") -> list[str]:
    return [event.name for event in Recorder.seen.get(alias, [])]


def test_inline_delivers_at_once_and_writes_no_table(database, configure):
    configure("inline", recorder={}, folder={})

    with CaptureQueriesContext(connections[database]) as queries:
        host.track(None, "now", {"plan": "pro"})

    assert names() == names("folder") == ["now"]
    assert len(queries) == 0
    assert Envelope.objects.count() == Delivery.objects.count() == 0


def test_inline_delivers_after_the_commit(database, configure):
    configure("inline", recorder={})

    with transaction.atomic(using=database):
        host.track(None, "paid", using=database)
        assert names() == []

    assert names() == ["paid"]


def test_inline_forgets_what_is_rolled_back(database, configure):
    configure("inline", recorder={})

    with pytest.raises(RuntimeError), transaction.atomic(using=database):
        host.track(None, "undone")
        raise RuntimeError

    assert names() == []


def test_inline_batches_by_the_plugin_s_size(database, configure):
    configure("inline", folder={"BATCH_SIZE": 4})

    with host.batch():
        for number in range(10):
            host.track(None, f"event {number}")

    assert Folder.batches == [4, 4, 2]


def test_inline_logs_what_is_lost_and_nothing_breaks(database, configure, caplog, client):
    configure("inline", broken={}, recorder={})

    assert client.get("/").content == b"home"

    assert names() == ["home seen"]
    lost = [record.getMessage() for record in caplog.records if "is lost" in record.getMessage()]
    assert len(lost) == 1
    assert lost[0].endswith("is lost: RuntimeError: broken delivery")


def test_inline_logs_each_event_of_a_batch_that_fails(configure, caplog):
    configure("inline", folder={})
    Recorder.act["folder"] = lambda batch: (_ for _ in ()).throw(PermanentError("no"))

    with host.batch():
        host.track(None, "a")
        host.track(None, "b")

    assert caplog.text.count("is lost: PermanentError: no") == 2


def test_memory_keeps_events_and_calls_no_plugin(configure):
    configure("memory", recorder={})

    message_id = host.track(None, "kept", {"plan": "pro"})

    assert [(event.name, event.message_id) for event in memory.events] == [("kept", message_id)]
    assert names() == []


def test_a_test_run_delivers_nothing_unless_told_to(settings):
    settings.PLUGINHOST = {"PLUGINS": {"recorder": {}}, "TRANSPORT": "outbox"}

    host.track(None, "kept")

    assert [event.name for event in memory.events] == ["kept"]
    assert Envelope.objects.count() == 0
