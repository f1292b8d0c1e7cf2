"""The promises of the outbox, on SQLite and PostgreSQL, through a real site's views."""

from __future__ import annotations

import time

import pytest
from django.db import OperationalError, connections, transaction
from django.test.utils import CaptureQueriesContext

from pluginhost import host
from pluginhost.delivery import accounts, intake
from pluginhost.delivery.intake import take
from pluginhost.models import Chunk, Delivery, Envelope
from pluginhost.operations import forgetting, fresh
from pluginhost.plugin import Person
from pluginhost.workers.worker import drain
from tests.samples import Folder, Recorder
from tests.site.models import Order
from tests.steps import account, outbox_renamed

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)


@pytest.fixture
def database(any_database):
    return any_database


def delivered(database: str) -> list[str]:
    drain(host.registry.runners, database)
    return [event.name for event in Recorder.seen.get("recorder", [])]


def test_a_committed_event_is_delivered_to_every_lane(database, configure, client):
    configure("outbox", recorder={}, folder={})

    assert client.get("/order/").content == b"paid"

    assert delivered(database) == ["order paid"]
    assert [event.value for event in Folder.seen["folder"]] == [12.5]
    assert Recorder.seen["recorder"][0].subject.model == "shop.Order"
    assert Delivery.objects.count() == Chunk.objects.count() == Envelope.objects.count() == 0
    assert accounts.read(database)["folder"] == {
        "accepted": 1, "delivered": 1, "skipped": 0, "waiting": 0, "dead": 0, "discarded": 0,
    }  # fmt: skip


@pytest.mark.parametrize("end", ["rollback", "savepoint", "manual", "set_rollback"])
def test_what_is_rolled_back_leaves_nothing(database, configure, client, end):
    configure("outbox", recorder={})

    assert client.get("/order/", {"end": end}).status_code == 200

    assert Order.objects.count() == (1 if end in ("savepoint", "manual") else 0)
    assert delivered(database) == []


def test_a_batch_in_a_transaction_is_one_insert_and_loses_only_what_its_savepoint_takes_back(
    database, configure, client
):
    configure("outbox", recorder={})

    with CaptureQueriesContext(connections[database]) as queries:
        assert client.get("/order/", {"end": "batch"}).content == b"paid"

    inserts = [query["sql"] for query in queries if "INTO" in query["sql"] and "pluginhost_envelope" in query["sql"]]
    assert len(inserts) == 2, "one for the batch, one for the event within the savepoint"
    assert delivered(database) == ["item sold", "item sold"]


def test_a_batch_around_a_transaction_leaves_it_to_the_database(database, configure):
    configure("outbox", recorder={})

    with host.batch():
        host.track(None, "before")
        with pytest.raises(RuntimeError), transaction.atomic(using=database):
            host.track(None, "undone")
            raise RuntimeError
        with transaction.atomic(using=database):
            host.track(None, "within")
        assert Envelope.objects.count() == 1
        host.track(None, "after")

    assert [row.n for row in Envelope.objects.order_by("id")] == [1, 2]
    assert sorted(delivered(database)) == ["after", "before", "within"]


def test_a_batch_of_many_becomes_envelopes_of_500(database, configure):
    configure("outbox", recorder={}, folder={})

    with host.batch():
        for number in range(1201):
            host.track(None, "counted", {"number": number})

    assert [row.n for row in Envelope.objects.order_by("id")] == [500, 500, 201]
    assert len(delivered(database)) == 1201
    assert [event.properties["number"] for event in Folder.seen["folder"]] == list(range(1201))


def test_a_batch_whose_block_fails_keeps_what_happened_before(database, configure):
    configure("outbox", recorder={})

    with pytest.raises(RuntimeError), host.batch():
        host.track(None, "happened")
        raise RuntimeError

    assert delivered(database) == ["happened"]


def test_events_of_other_lanes_go_into_envelopes_of_their_own(database, configure):
    configure("outbox", recorder={}, folder={})

    with host.batch():
        host.track(None, "both")
        host.track(None, "one", plugins={"folder": False})
        host.track(None, "both again")

    assert sorted(Envelope.objects.values_list("lanes", "n")) == [("recorder", 1), ("recorder,folder", 2)]
    assert sorted(delivered(database)) == ["both", "both again", "one"]
    assert [event.name for event in Folder.seen["folder"]] == ["both", "both again"]


def test_a_failed_insert_harms_neither_the_page_nor_the_order(database, configure, client, caplog):
    configure("outbox", recorder={})

    with outbox_renamed(database):
        response = client.get("/order/")

    assert (response.status_code, response.content) == (200, b"paid")
    assert Order.objects.count() == 1
    refused = [record for record in caplog.records if record.name == "pluginhost.outbox"]
    assert [record.getMessage()[:18] for record in refused] == ["the outbox refused", "the outbox lost 1 "]


def test_a_failed_insert_without_a_transaction_harms_no_page(database, configure, client, caplog):
    configure("outbox", recorder={})
    lost = host.counts.get("lost", 0)

    with outbox_renamed(database):
        assert client.get("/").content == b"home"
        assert host.track(None, "lost") is None

    assert host.counts["lost"] == lost + 2
    assert "the outbox refused 1 events" in caplog.text


def test_an_insert_that_failed_is_tried_again_after_the_commit(database, configure):
    configure("outbox", recorder={})

    with transaction.atomic(using=database):
        with outbox_renamed(database):
            assert host.track(None, "late") is not None
            Order.objects.create(number="7")

    assert Order.objects.count() == 1
    assert delivered(database) == ["late"]


def test_an_insert_that_failed_is_not_tried_again_after_a_rollback(database, configure):
    configure("outbox", recorder={})

    with pytest.raises(RuntimeError), transaction.atomic(using=database):
        with outbox_renamed(database):
            host.track(None, "late")
        raise RuntimeError

    assert delivered(database) == []


def test_a_transaction_that_was_doomed_before_stays_the_view_s_own_affair(database, configure, client):
    configure("outbox", recorder={})

    assert client.get("/ruins/").content == b"undone"

    assert Order.objects.count() == 0
    assert delivered(database) == []


def test_events_in_autocommit_off_join_the_manual_transaction(database, configure):
    configure("outbox", recorder={})
    connection = connections[database]
    connection.ensure_connection()

    transaction.set_autocommit(False, using=database)
    try:
        host.track(None, "undone")
        transaction.rollback(using=database)
        host.track(None, "kept")
        transaction.commit(using=database)
    finally:
        transaction.set_autocommit(True, using=database)

    assert delivered(database) == ["kept"]


@pytest.mark.postgres
def test_arguments_bound_by_the_server_work_too(database, configure, client, monkeypatch):
    if database != "postgres":
        pytest.skip("an option of PostgreSQL")
    connection = connections[database]
    connection.close()
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "server_side_binding", True)
    configure("outbox", recorder={})

    client.get("/order/")
    client.get("/order/", {"end": "savepoint"})
    with outbox_renamed(database):
        assert client.get("/order/").content == b"paid"
    connection.close()

    assert delivered(database) == ["order paid"]
    assert Order.objects.count() == 3


def test_the_savepoint_costs_one_query(database, configure):
    configure("outbox", recorder={})

    with transaction.atomic(using=database), CaptureQueriesContext(connections[database]) as queries:
        host.track(None, "paid")

    assert len(queries) == 1


def test_a_stale_connection_is_replaced_and_the_event_arrives_once(database, configure):
    configure("outbox", recorder={})
    host.track(None, "first")
    if database == "default":
        pytest.skip("SQLite has no connections that go stale")

    whoami, kill = {
        "postgres": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend(%s, 5000)"),
        "mariadb": ("SELECT CONNECTION_ID()", "KILL %s"),
    }[database]
    with connections[database].cursor() as cursor:
        cursor.execute(whoami)
        number = cursor.fetchone()[0]
    other = connections[database].copy()
    with other.cursor() as cursor:
        cursor.execute(kill, [number])
    other.close()
    assert host.track(None, "second") is not None

    assert delivered(database) == ["first", "second"]


def test_one_lane_s_override_reaches_the_plugin(database, configure):
    configure("outbox", recorder={}, second={"PLUGIN": "recorder"})

    host.track(None, "tuned", plugins={"second": {"colour": "red"}})

    drain(host.registry.runners, database)
    assert Recorder.seen["second"][0].tuning("second") == {"colour": "red"}
    assert Recorder.seen["recorder"][0].tuning("recorder") == {}


def test_a_batch_within_a_batch_is_part_of_it(database, configure):
    configure("outbox", recorder={})

    with host.batch():
        host.track(None, "outer")
        with host.batch():
            host.track(None, "inner")
        assert Envelope.objects.count() == 0
        host.track(None, "outer again")

    assert list(Envelope.objects.values_list("n", flat=True)) == [3]
    assert delivered(database) == ["outer", "inner", "outer again"]


def a_rename(database: str) -> None:
    fresh.rename("folder", "recorder", database)


def a_person_who_is_forgotten(database: str) -> None:
    forgetting.forget(Person(user_ids=("ada",)), database)


def a_discard(database: str) -> None:
    for _ in fresh.strike("folder", Envelope.objects.filter(n=1), database, "no use"):
        pass


@pytest.mark.parametrize(
    ("act", "accounts_after"),
    [
        pytest.param(take, {"folder": {"accepted": 3, "waiting": 3}}, id="another worker"),
        pytest.param(a_rename, {"recorder": {"accepted": 3, "waiting": 3}}, id="rename"),
        pytest.param(a_person_who_is_forgotten, {"folder": {"accepted": 3, "waiting": 1, "discarded": 2}}, id="forget"),
        pytest.param(a_discard, {"folder": {"accepted": 3, "waiting": 2, "discarded": 1}}, id="discard"),
    ],
)
def test_what_becomes_of_envelopes_while_a_worker_looks_at_them_holds(configure, monkeypatch, act, accounts_after):
    """SQLite has one lock, and a worker takes it only when it has read them."""
    configure("outbox", recorder={}, folder={})
    only_folder = {"recorder": False}
    host.track(None, "one", user_id="ada", plugins=only_folder)
    with host.batch():
        host.track(None, "two", user_id="ada", plugins=only_folder)
        host.track(None, "three", user_id="bob", plugins=only_folder)
    read, meanwhile = intake._read, [act]

    def slowly(using: str):
        rows = read(using)
        if meanwhile:
            meanwhile.pop()(using)
        return rows

    monkeypatch.setattr(intake, "_read", slowly)
    take("default")

    assert not meanwhile
    assert {lane: account("default", lane) for lane in accounts.read("default")} == accounts_after
    assert Envelope.objects.count() == 0
    assert (b'"ada"' in b"".join(Chunk.objects.values_list("payload", flat=True))) == (
        act is not a_person_who_is_forgotten
    )


def test_lanes_that_change_places_while_a_worker_looks_at_them_each_have_their_own(configure, monkeypatch):
    """On SQLite; the envelopes are then as many and as large as before."""
    configure("outbox", recorder={}, folder={})
    host.track(None, "one")
    host.track(None, "two")
    first, second = Envelope.objects.order_by("id").values_list("id", flat=True)
    Envelope.objects.filter(id=first).update(lanes="folder")
    Envelope.objects.filter(id=second).update(lanes="recorder")
    read, changes = intake._read, [("folder", "spare"), ("recorder", "folder"), ("spare", "recorder")]

    def slowly(using: str):
        rows = read(using)
        while changes:
            fresh.rename(*changes.pop(0), using)
        return rows

    monkeypatch.setattr(intake, "_read", slowly)

    assert delivered("default") == ["one"]
    assert [event.name for event in Recorder.seen["folder"]] == ["two"]


def test_an_sqlite_that_was_built_without_json_has_an_outbox_too(configure, monkeypatch):
    configure("outbox", recorder={}, folder={})
    monkeypatch.setattr(connections["default"].features, "supports_json_field", False)

    def without_json(execute, sql, params, many, context):
        if "json" in sql.lower():
            raise OperationalError("no such table: json_each")
        return execute(sql, params, many, context)

    for name in ("one", "two"):
        host.track(None, name)
    with connections["default"].execute_wrapper(without_json):
        assert delivered("default") == ["one", "two"]

    assert Delivery.objects.count() == Chunk.objects.count() == 0


def test_ids_of_envelopes_are_in_the_order_of_time(database, configure):
    configure("outbox", recorder={})
    for name in ("a", "b", "c", "d"):
        assert host.track(None, name, using=database)
        time.sleep(0.002)  # they differ from one millisecond to the next
    ids = list(Envelope.objects.using(database).order_by("id").values_list("envelope_id", flat=True))
    assert len(ids) == 4
    assert ids == sorted(ids)


def test_a_connection_whose_cursor_is_refused_takes_no_event(database, configure, monkeypatch):
    """As Django's tests refuse it for databases that they may not use."""
    configure("outbox", recorder={})
    assert host.track(None, "allowed", using=database)

    def refused(*args, **options):
        raise AssertionError("no queries here")

    with monkeypatch.context() as patched:
        patched.setattr(connections[database], "cursor", refused)
        assert host.track(None, "refused", using=database) is None
    assert delivered(database) == ["allowed"]


def test_who_watches_what_runs_sees_the_insert(database, configure, monkeypatch):
    """By a capture of queries, by an execute wrapper, or by a backend with cursors of its own."""
    configure("outbox", recorder={})
    connection = connections[database]
    seen: list[str] = []

    def watch(execute, sql, params, many, context):
        seen.append(sql)
        return execute(sql, params, many, context)

    with CaptureQueriesContext(connection) as captured:
        host.track(None, "captured", using=database)
    assert [query["sql"] for query in captured if "INSERT" in query["sql"]]

    with connection.execute_wrapper(watch):
        host.track(None, "wrapped", using=database)
    assert [sql for sql in seen if "INSERT" in sql]

    cursors = []
    create = type(connection).create_cursor
    with monkeypatch.context() as patched:
        patched.setattr(type(connection), "create_cursor", lambda *args: cursors.append(1) or create(*args))
        host.track(None, "by its own cursor", using=database)
    assert cursors
    assert delivered(database) == ["captured", "wrapped", "by its own cursor"]
