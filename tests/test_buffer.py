"""Blocks in which events wait: in an event loop, in threads that go on, and when something in them fails."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
import time

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connections, transaction
from django.http import HttpResponse
from django.test import AsyncRequestFactory, RequestFactory

from pluginhost import buffer, host
from pluginhost.buffer import Buffer
from pluginhost.middleware import TrackerMiddleware
from pluginhost.models import Envelope
from pluginhost.workers.worker import drain
from tests.routers import Chosen
from tests.samples import Recorder
from tests.steps import seen, stored

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)
strict_or_not = pytest.mark.parametrize("strict", [True, False], ids=["strict", "lenient"])


# --- in an event loop ---


@strict_or_not
def test_many_events_of_an_async_batch_are_stored(database, configure, strict):
    configure("outbox", recorder={}, STRICT=strict)

    async def work():
        async with host.abatch():
            for number in range(700):
                assert host.track(None, "counted", {"number": number})

    async_to_sync(work)()

    assert list(Envelope.objects.order_by("id").values_list("n", flat=True)) == [500, 200]
    drain(host.registry.runners, database)
    assert [event.properties["number"] for event in Recorder.seen["recorder"]] == list(range(700))


@strict_or_not
def test_many_events_of_an_async_view_are_stored(database, configure, strict):
    configure("outbox", recorder={}, STRICT=strict)

    async def view(request):
        for _ in range(700):
            assert host.track(request, "counted")
        return HttpResponse("counted")

    async def answer():
        return await TrackerMiddleware(view)(AsyncRequestFactory().get("/"))

    assert async_to_sync(answer)().content == b"counted"
    assert stored() == 700


def test_a_batch_that_is_cancelled_while_its_flush_waits_is_stored(database, configure):
    configure("outbox", recorder={})

    async def work():
        async with host.abatch():
            host.track(None, "tracked")

    async def cancel():
        # The one thread for synchronous code has something else to do.
        busy = asyncio.ensure_future(sync_to_async(time.sleep)(0.4))
        await asyncio.sleep(0.1)
        working = asyncio.ensure_future(work())
        await asyncio.sleep(0.1)
        working.cancel()
        _, result = await asyncio.gather(busy, working, return_exceptions=True)
        await sync_to_async(int)()  # what waited before it is done
        return result

    assert isinstance(async_to_sync(cancel)(), asyncio.CancelledError)
    assert stored() == 1


def test_an_async_generator_that_is_abandoned_keeps_its_events(database, configure):
    configure("outbox", recorder={})

    async def numbers():
        async with host.abatch():
            for number in range(10):
                host.track(None, "given out")
                yield number

    async def abandon():
        async for number in numbers():
            if number == 4:
                break
        gc.collect()
        await asyncio.sleep(0.1)
        assert await host.atrack(None, "afterwards")

    contextvars.copy_context().run(async_to_sync(abandon))  # the block is left elsewhere than it was entered

    drain(host.registry.runners, database)
    assert sorted(seen("recorder")) == ["afterwards"] + ["given out"] * 5


# --- threads that go on ---


def test_an_event_that_comes_as_the_block_ends_is_sent_at_once(database, configure, monkeypatch):
    """A thread of the request was told that it may wait, and then the request ended."""
    configure("outbox", recorder={})
    accepts = Buffer.accepts

    def accepts_and_ends(self, using):
        answer = accepts(self, using)
        self.close()
        return answer

    with monkeypatch.context() as patch:
        Buffer(host.send)
        patch.setattr(Buffer, "accepts", accepts_and_ends)
        assert host.track(None, "just in time")

    assert buffer.current.get() is None
    assert stored() == 1


def test_no_event_of_a_thread_that_outlives_its_request_is_lost(configure):
    configure("outbox", recorder={})
    tracked = []

    def go_on():
        tracked.extend(host.track(None, "tracked") for _ in range(8))
        connections.close_all()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(25):
            waiting = Buffer(host.send)
            thread = threading.Thread(target=contextvars.copy_context().run, args=(go_on,))
            thread.start()
            time.sleep(0.0005)
            waiting.close()
            thread.join()
            assert not waiting
    finally:
        sys.setswitchinterval(interval)

    assert len(tracked) == 200
    assert None not in tracked
    assert stored() == 200


# --- what fails ---


class BrokenSession(dict):
    accessed = True

    def get(self, *args):
        raise RuntimeError("the cache is down")


def test_an_event_that_cannot_be_sealed_takes_no_others_with_it(database, configure, caplog):
    configure("outbox", recorder={})
    request = RequestFactory().get("/")
    request.COOKIES["sessionid"] = "x"

    with host.batch():
        host.track(None, "before")
        host.track(request, "without a user")
        request.session = BrokenSession()
        host.track(None, "after", user_id="7")

    drain(host.registry.runners, database)
    assert seen("recorder") == ["before", "without a user", "after"]
    assert [event.user_id for event in Recorder.seen["recorder"]] == [None, None, "7"]
    assert "the cache is down" in caplog.text


@pytest.fixture
def no_shard(monkeypatch):
    def fail(self, model, **hints):
        raise RuntimeError("no shard")

    monkeypatch.setattr(Chosen, "db_for_write", fail)


def test_a_router_that_raises_breaks_no_view(configure, no_shard, caplog):
    configure("outbox", recorder={}, STRICT=False)
    lost = host.counts.get("lost", 0)

    assert host.track(None, "tracked") is None

    assert host.counts["lost"] == lost + 1
    assert "no shard" in caplog.text


def test_a_router_that_raises_is_shown_if_strict(configure, no_shard):
    configure("outbox", recorder={})

    with pytest.raises(RuntimeError, match="no shard"):
        host.track(None, "tracked")


# --- one within another, and within a transaction ---


def test_one_batch_within_itself(database, configure):
    configure("outbox", recorder={})
    batch = host.batch()

    with batch:
        with batch:
            host.track(None, "inner")
        host.track(None, "outer")
    assert list(Envelope.objects.values_list("n", flat=True)) == [2]
    assert buffer.current.get() is None
    with batch:
        host.track(None, "again")

    drain(host.registry.runners, database)
    assert seen("recorder") == ["inner", "outer", "again"]


def test_an_async_batch_within_itself(database, configure):
    configure("outbox", recorder={})

    async def work():
        batch = host.abatch()
        async with batch:
            async with batch:
                host.track(None, "inner")
            host.track(None, "outer")
        assert buffer.current.get() is None

    async_to_sync(work)()

    drain(host.registry.runners, database)
    assert seen("recorder") == ["inner", "outer"]


def test_in_autocommit_off_a_batch_inserts_at_once(database, configure):
    configure("outbox", recorder={})
    connections[database].ensure_connection()

    transaction.set_autocommit(False, using=database)
    try:
        with host.batch():
            host.track(None, "undone")
            transaction.rollback(using=database)
            host.track(None, "kept")
            transaction.commit(using=database)
            host.track(None, "undone too")
        transaction.rollback(using=database)
    finally:
        transaction.set_autocommit(True, using=database)

    drain(host.registry.runners, database)
    assert seen("recorder") == ["kept"]


def test_a_router_that_raises_breaks_no_block(configure, no_shard):
    configure("outbox", recorder={}, STRICT=False)

    with host.batch():
        assert host.track(None, "x") is None

    configure("outbox", recorder={})
    with pytest.raises(RuntimeError, match="no shard"), host.batch():
        pass


def test_abandoned_blocks_leave_no_chain_behind(configure):
    configure("memory", recorder={})

    async def events():
        async with host.abatch():
            yield host.track(None, "x")

    async def consume() -> int:
        for _ in range(20):
            async for _event in events():
                break
            gc.collect()
            await asyncio.sleep(0.01)
        with host.batch():
            found, links = buffer.current.get(), 0
            while found is not None:
                found, links = found.outer, links + 1
        return links

    assert contextvars.copy_context().run(asyncio.run, consume()) == 1
