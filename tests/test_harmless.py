"""What runs in a request and is not the site's own: its failing statements cost the site nothing."""

from __future__ import annotations

import pytest
from django.apps import apps
from django.db import DatabaseError, connections, transaction
from django.test import RequestFactory

from pluginhost import db, host
from pluginhost.delivery import memory
from pluginhost.workers.worker import drain
from tests.samples import Filter, Recorder
from tests.site.models import Order

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)
rf = RequestFactory()


def fail_on(using):
    def fail(*args, **keywords):
        with connections[using].cursor() as cursor:
            cursor.execute("SELECT nothing FROM nowhere")

    return fail


@pytest.fixture
def fail(database):
    return fail_on(database)


class Session(dict):
    """One whose every look into its table fails."""

    accessed = True
    modified = False
    session_key = "x"

    def __init__(self, fail):
        super().__init__()
        self.get = fail


def in_filter(fail, monkeypatch):
    Filter.answer = staticmethod(fail)


def in_filter_that_minds_it(fail, monkeypatch):
    def answer(request, user):
        with pytest.raises(DatabaseError):
            fail()

    Filter.answer = staticmethod(answer)


def in_snippet(fail, monkeypatch):
    monkeypatch.setattr("tests.samples.mark_safe", fail)


def in_session(fail, monkeypatch):
    monkeypatch.setattr(Session, "failing", True, raising=False)


@pytest.mark.parametrize("where", [in_filter, in_filter_that_minds_it, in_snippet, in_session])
@pytest.mark.parametrize("transport", ["outbox", "memory"])
def test_the_site_s_transaction_survives(database, configure, monkeypatch, fail, where, transport):
    configure(transport, filter={}, recorder={}, snippet={})
    where(fail, monkeypatch)
    request = rf.get("/")
    if where is in_session:
        request.COOKIES["sessionid"] = "x"
        request.session = Session(fail)

    with transaction.atomic(using=database):
        order = Order.objects.create()
        host.track(request, "one")
        host.render(request)
        host.track(request, "two")
        Order.objects.create()

    assert Order.objects.filter(pk=order.pk).exists()
    assert Order.objects.count() == 2
    if transport == "outbox":
        drain(host.registry.runners, database)
        names = [event.name for event in Recorder.seen["recorder"]]
    else:
        names = [event.name for event in memory.events]
    assert names == ["one", "two"]


def test_what_a_hook_writes_stays_if_it_succeeds(database, configure):
    configure(filter={}, recorder={})
    Filter.answer = staticmethod(lambda request, user: bool(Order.objects.create()))
    with transaction.atomic(using=database):
        assert host.track(rf.get("/"), "one")
    assert Order.objects.count() == 1


def test_a_hook_that_fails_within_a_block_of_its_own(database, configure, fail):
    def answer(request, user):
        with transaction.atomic(using=database, savepoint=False):
            fail()

    configure(filter={}, recorder={})
    Filter.answer = staticmethod(answer)
    with transaction.atomic(using=database):
        Order.objects.create()
        host.track(rf.get("/"), "one")
    assert Order.objects.count() == (1 if database == "postgres" else 0)


def counting(execute, sql, params, many, context):
    """A wrapper of the site's around statements."""
    return execute(sql, params, many, context)


def test_a_wrapper_that_a_hook_puts_around_statements_stays(server, configure):
    wrappers = connections[server].execute_wrappers
    before = list(wrappers)
    configure(filter={}, recorder={})
    Filter.answer = staticmethod(lambda request, user: wrappers.append(counting))
    try:
        with transaction.atomic(using=server):
            assert host.track(rf.get("/"), "one")
        assert wrappers == [*before, counting]
    finally:
        wrappers[:] = before


def test_a_hook_that_takes_away_all_wrappers(server, configure):
    configure(filter={}, recorder={})
    Filter.answer = staticmethod(lambda request, user: connections[server].execute_wrappers.clear())
    with transaction.atomic(using=server):
        assert host.track(rf.get("/"), "one")
        Order.objects.create()
    assert Order.objects.count() == 1


def test_a_database_that_is_configured_no_longer(server, configure):
    configure(filter={}, recorder={})
    connections.settings["tenant"] = dict(connections.settings[server])
    try:
        connections["tenant"].connect()
        connections["tenant"].close()
    finally:
        del connections.settings["tenant"]
        del connections["tenant"]
    before = list(connections[server].execute_wrappers)
    with transaction.atomic(using=server):
        assert host.track(rf.get("/"), "one")
        assert host.anonymous_id(rf.get("/")) is None
    assert connections[server].execute_wrappers == before


@pytest.fixture
def without_autocommit(server, monkeypatch):
    """The server's database, as if its setting AUTOCOMMIT was False."""
    connections[server].close()
    monkeypatch.setitem(connections.settings[server], "AUTOCOMMIT", False)
    yield server
    connections[server].rollback()
    connections[server].close()


def test_a_hook_that_connects_anew_where_autocommit_is_off(without_autocommit, configure, caplog):
    def answer(request, user):
        Order.objects.count()
        connections[without_autocommit].close()
        Order.objects.count()

    configure(filter={}, recorder={})
    Filter.answer = staticmethod(answer)
    Order.objects.count()
    assert host.track(rf.get("/"), "one")
    Order.objects.create()
    transaction.commit(using=without_autocommit)
    assert Order.objects.count() == 1
    assert not caplog.records


def test_a_hook_whose_statement_is_the_first_one_where_autocommit_is_off(without_autocommit, configure, monkeypatch):
    configure(filter={}, recorder={})
    Filter.answer = staticmethod(fail_on(without_autocommit))
    del connections[without_autocommit]  # as in a process that has not asked for it
    monkeypatch.setattr("pluginhost.db._delicate", type(db._delicate)())
    apps.get_app_config("pluginhost").ready()

    assert host.track(rf.get("/"), "one")
    Order.objects.create()
    transaction.commit(using=without_autocommit)
    assert Order.objects.count() == 1
