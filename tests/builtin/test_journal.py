"""What the journal writes, each event once, on both databases; and what the other tests of it share."""

from __future__ import annotations

import datetime as dt
import io
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import CommandError, call_command
from django.db import (
    DataError,
    InterfaceError,
    OperationalError,
    connections,
    transaction,
)
from django.db.migrations.loader import MigrationLoader
from django.test.utils import CaptureQueriesContext

from pluginhost import Batch, Event, PartialFailure, PermanentError, RetryableError, Subject, host
from pluginhost.builtin.journal.models import Browser, Entry
from pluginhost.builtin.journal.plugin import Journal
from pluginhost.delivery import settling
from pluginhost.events import Context, new_message_id
from pluginhost.options import build
from pluginhost.workers.worker import drain
from tests.processes import end, nothing_waits, start, wait_until, worker
from tests.site.models import Order
from tests.steps import account, make_due, run, track

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


def journal(alias: str = "journal", **options: Any) -> Journal:
    return Journal(alias, Journal.Options(**options))


def event(
    name: str = "seen", minute: float = 0, user: str | None = None, visitor: str | None = None, **fields: Any
) -> Event:
    return Event(
        **{
            "type": "track",
            "name": name,
            "message_id": new_message_id(),
            "timestamp": NOON + dt.timedelta(minutes=minute),
            "user_id": user,
            "anonymous_id": visitor,
            **fields,
        }
    )


def write(*events: Event, **options: Any) -> None:
    """Write these events as one batch."""
    journal(**options).aggregate(Batch(events))


def at_once(*jobs: Callable[[], None]) -> None:
    """Run callables at once, each with connections of its own; raise what one of them raised."""
    errors: list[BaseException] = []
    begin = threading.Barrier(len(jobs))

    def work(job: Callable[[], None]) -> None:
        try:
            begin.wait(timeout=10)
            job()
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise errors[0]


@contextmanager
def failing(database: str, error: Exception, when: str) -> Iterator[None]:
    """Make the database raise ``error`` for statements that contain ``when``."""

    def wrapper(execute: Any, sql: str, *rest: Any) -> Any:
        if when in sql.replace("`", '"'):
            raise error
        return execute(sql, *rest)

    with connections[database].execute_wrapper(wrapper):
        yield


# --- an entry ---


FULL = event(
    "order paid",
    user="42",
    visitor="a" * 32,
    properties={"plan": "pro", "items": [{"price": 1.5, "n": 2}], "nothing": None, "emoji": "🛒"},
    subject=Subject(model="shop.Order", pk="7"),
    value=19.99,
    context=Context(
        ip="203.0.113.0",
        user_agent="Mozilla/5.0",
        language="de,en",
        method="POST",
        url="https://example.com/pay/?utm_source=x",
        path="/pay/",
        referrer="https://example.org/",
        route="shop:pay",
    ),
)


def test_an_entry_has_all_that_its_event_has(any_database: str) -> None:
    write(FULL)

    entry = Entry.objects.get()
    assert str(entry.message_id) == FULL.message_id
    assert (entry.type, entry.name, entry.timestamp, entry.value) == ("track", "order paid", NOON, 19.99)
    assert (entry.user_id, entry.anonymous_id, entry.previous_id, entry.joined) == ("42", "a" * 32, None, False)
    assert entry.properties == FULL.properties
    assert (entry.subject_model, entry.subject_pk) == ("shop.Order", "7")
    for name in ("ip", "user_agent", "language", "method", "url", "path", "referrer", "route"):
        assert getattr(entry, name) == getattr(FULL.context, name)
    assert abs((entry.created - dt.datetime.now(dt.UTC)).total_seconds()) < 3600
    assert str(entry) == f"order paid, {NOON}"


def test_what_an_event_does_not_have_is_empty(database: str) -> None:
    write(event())

    entry = Entry.objects.get()
    assert (entry.user_id, entry.anonymous_id, entry.url, entry.subject_model) == ("", "", "", "")
    assert (entry.value, entry.previous_id, entry.properties) == (None, None, {})


def test_events_of_all_types_are_kept(database: str, configure: Any) -> None:
    configure("inline", journal={})
    host.track(None, "signed up")
    host.page(None, "Home")
    host.identify(None, {"name": "Ada"}, user_id="1")
    host.alias(None, "old", "1")

    rows = Entry.objects.order_by("id").values_list("type", "name", "properties", "user_id", "previous_id")
    assert list(rows) == [
        ("track", "signed up", {}, "", None),
        ("page", "Home", {}, "", None),
        ("identify", "identify", {"name": "Ada"}, "1", None),
        ("alias", "alias", {}, "1", "old"),
    ]


def test_types_that_are_not_wanted_are_left_out(database: str, configure: Any) -> None:
    configure("outbox", journal={"TYPES": ["page"]})
    assert host.track(None, "signed up") is None
    host.page(None, "Home")
    drain(host.registry.runners, database)

    assert Entry.objects.get().name == "Home"
    assert account(database, "journal") == {"accepted": 1, "delivered": 1}
    with pytest.raises(CommandError, match="TYPES leaves out events of the type 'track'"):
        call_command("pluginhost", "send-test", "journal", stdout=io.StringIO())


@pytest.mark.parametrize("use_tz", [True, False])
def test_times_are_kept_as_the_project_keeps_times(database: str, settings: Any, use_tz: bool) -> None:
    settings.TIME_ZONE = "Asia/Tokyo"
    settings.USE_TZ = use_tz
    write(event(minute=0.25, user="1", visitor="v"), event(minute=0.125, visitor="v"))

    assert [entry.timestamp for entry in Entry.objects.order_by("timestamp")] == [
        time if use_tz else time.astimezone(dt.timezone(dt.timedelta(hours=9))).replace(tzinfo=None)
        for time in (NOON + dt.timedelta(seconds=7.5), NOON + dt.timedelta(seconds=15))
    ]
    assert Entry.objects.filter(user_id="1").count() == 2


def test_entries_are_found_by_what_a_site_asks(database: str, django_user_model: Any) -> None:
    user = django_user_model.objects.create(username="ada")
    write(
        event("signed up", 2, str(user.pk), "v", properties={"plan": "pro"}),
        event("seen", 1, visitor="v"),
        event("seen", 3, visitor="w"),
    )

    assert [entry.name for entry in Entry.objects.of_user(user)] == ["signed up", "seen"]
    assert (
        list(Entry.objects.of_user(user)) == list(Entry.objects.of_user(user.pk)) == list(Entry.objects.of_visitor("v"))
    )
    assert Entry.objects.named("signed up").get().user_id == str(user.pk)
    assert Entry.objects.named("signed up", "seen").count() == 3
    assert Entry.objects.filter(properties__plan="pro").get().name == "signed up"


def test_an_event_about_an_object_keeps_its_key(database: str, configure: Any) -> None:
    configure("inline", journal={})
    order = Order.objects.create(number="1")
    host.track(None, "paid", subject=order, value=3)

    assert Entry.objects.get(subject_model="shop.Order", subject_pk=str(order.pk)).value == 3.0


# --- each once ---


def test_what_is_delivered_again_is_written_once(database: str) -> None:
    events = [event(str(number)) for number in range(5)]
    write(*events[:3])
    write(*events, events[4])
    write(*reversed(events))

    assert sorted(Entry.objects.values_list("name", flat=True)) == ["0", "1", "2", "3", "4"]


def test_a_batch_of_more_rows_than_one_statement_takes_is_written(any_database: str) -> None:
    events = [event(str(number), visitor=f"v{number}", user="1") for number in range(1100)]
    write(*events)
    write(*events)

    assert Entry.objects.count() == Browser.objects.count() == 1100


def test_a_worker_that_dies_before_it_can_say_so_writes_nothing_twice(
    database: str, configure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure("outbox", journal={})
    track("one", "two", "three")
    with monkeypatch.context() as patch:
        patch.setattr(settling, "_settle", lambda *args, **kwargs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(database, "journal")
    assert Entry.objects.count() == 3

    make_due()
    run(database, "journal")
    assert sorted(Entry.objects.values_list("name", flat=True)) == ["one", "three", "two"]
    assert account(database, "journal") == {"accepted": 3, "delivered": 3}


@pytest.mark.kill
def test_killed_workers_leave_each_event_once(database: str, configure: Any) -> None:
    configure("outbox", journal={"BATCH_SIZE": 10, "TIMEOUT": 2, "RETRY_DELAY": 0.2})
    names = [f"event {number}" for number in range(400)]
    for begin in range(0, 400, 40):
        track(*names[begin : begin + 40])
    for share in (1, 150):
        with worker(database) as process:
            wait_until(lambda share=share: Entry.objects.count() >= share)
            process.kill()
    survivor = start(database, "worker")
    try:
        wait_until(lambda: nothing_waits(database))
    finally:
        end(survivor)

    assert sorted(Entry.objects.values_list("name", flat=True)) == sorted(names)


def test_workers_that_write_the_same_events_at_once_write_each_once(any_database: str) -> None:
    events = [event(str(number), number, "1" if number % 5 == 0 else None, f"v{number % 7}") for number in range(200)]

    def work(seed: int) -> Callable[[], None]:
        def deliver() -> None:
            mine = events[seed:] + events[:seed]
            for begin in range(0, 200, 40):
                for _ in range(100):
                    try:
                        write(*mine[begin : begin + 40])
                        break
                    except RetryableError:  # SQLite was busy for too long
                        continue

        return deliver

    at_once(*[work(seed) for seed in (0, 20, 110)])
    assert sorted(Entry.objects.values_list("name", flat=True)) == sorted(each.name for each in events)
    assert not Browser.objects.filter(behind=True).exists()
    known = range(0, 200, 5)
    nobody = {n for n in range(200) if not any(n <= later and n % 7 == later % 7 for later in known)}
    assert {int(entry.name) for entry in Entry.objects.filter(user_id="")} == nobody


def test_a_second_worker_writes_what_the_first_one_gave_up(any_database: str) -> None:
    one = event()
    written, waits = threading.Event(), threading.Event()

    def first() -> None:
        with transaction.atomic(any_database):
            write(one)
            written.set()
            waits.wait(timeout=10)
            transaction.set_rollback(True, any_database)

    def second() -> None:
        written.wait(timeout=10)
        waits.set()
        write(one)

    at_once(first, second)
    assert Entry.objects.get().name == "seen"


# --- what cannot be kept ---


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (event("n" * 201), "name has 201 characters; 200 are kept"),
        (event(user="u" * 256), "user_id has 256 characters; 255 are kept"),
        (event(message_id="none"), "'none' is no message id"),
        (event(timestamp=dt.datetime(1, 1, 1, tzinfo=dt.UTC)), "has no date in some time zones"),
        (event(timestamp=dt.datetime(9999, 12, 31, tzinfo=dt.UTC)), "has no date in some time zones"),
        (event(properties={"n": float("nan")}), "Error: "),
        (event(properties={"text": "\ud800"}, name="\ud800"), "UnicodeEncodeError: "),
    ],
    ids=["name", "user", "id", "early", "late", "nan", "surrogate"],
)
def test_an_event_that_cannot_be_kept_fails_alone(any_database: str, bad: Event, reason: str) -> None:
    good = [event(str(number), visitor="v", user="1") for number in range(8)]
    with pytest.raises(PartialFailure) as caught:
        write(*good[:3], bad, *good[3:])

    assert list(caught.value.errors) == [bad.message_id]
    error = caught.value.errors[bad.message_id]
    assert isinstance(error, PermanentError)
    assert reason in str(error)
    assert sorted(Entry.objects.values_list("name", flat=True)) == [each.name for each in good]
    assert Browser.objects.get().user_id == "1"


@pytest.mark.postgres
@pytest.mark.parametrize("bad", [event("\0"), event(properties={"deep": ["\0"]})], ids=["text", "json"])
def test_what_postgresql_cannot_hold_fails_alone(database: str, bad: Event) -> None:
    if database != "postgres":
        pytest.skip("SQLite holds it")
    good = event("good")
    with pytest.raises(PartialFailure) as caught:
        write(good, bad)
    assert {key: type(error) for key, error in caught.value.errors.items()} == {bad.message_id: PermanentError}
    assert Entry.objects.get().name == "good"


def test_a_constraint_of_the_project_is_not_passed_over(any_database: str) -> None:
    """A conflict of message ids is ignored, and nothing else is."""
    connection = connections[any_database]
    with connection.cursor() as cursor:
        cursor.execute("CREATE UNIQUE INDEX one_name ON pluginhost_journal_entry (name)")
    try:
        write(event("once"))
        again, other = event("once"), event("other")
        with pytest.raises(PartialFailure) as caught:
            write(again, other)
    finally:
        with connection.cursor() as cursor:
            cursor.execute(
                f"DROP INDEX one_name{' ON pluginhost_journal_entry' if connection.vendor == 'mysql' else ''}"
            )
    assert list(caught.value.errors) == [again.message_id]
    assert "IntegrityError" in str(caught.value.errors[again.message_id])
    assert "DETAIL" not in str(caught.value.errors[again.message_id])
    assert sorted(Entry.objects.values_list("name", flat=True)) == ["once", "other"]


def test_a_bad_event_becomes_a_dead_letter_and_the_others_arrive(database: str, configure: Any) -> None:
    configure("outbox", journal={})
    with host.batch():
        for name in ("one", "two", "three"):
            host.track(None, name, timestamp=dt.datetime(1, 1, 2, tzinfo=dt.UTC) if name == "two" else None)
    drain(host.registry.runners, database)

    assert account(database, "journal") == {"accepted": 3, "delivered": 2, "dead": 1}
    assert sorted(Entry.objects.values_list("name", flat=True)) == ["one", "three"]


@pytest.mark.parametrize("error", [OperationalError("server closed the connection"), InterfaceError("closed")])
@pytest.mark.parametrize("when", ['INSERT INTO "pluginhost_journal_entry', "pluginhost_journal_browser"])
def test_a_database_that_is_away_is_tried_again(database: str, error: Exception, when: str) -> None:
    events = [event(minute=1), event(minute=2, user="1", visitor="v"), event(minute=1, visitor="v")]
    with failing(database, error, when), pytest.raises(RetryableError, match=str(error)):
        write(*events)
    assert not Entry.objects.exists()

    write(*events)
    assert Entry.objects.filter(user_id="1").count() == 2


def test_the_reason_quotes_no_row(database: str) -> None:
    bad = event()
    error = DataError("value too long\nDETAIL: Failing row contains (secret)")
    with failing(database, error, "INSERT INTO"), pytest.raises(PartialFailure) as caught:
        write(bad)
    assert str(caught.value.errors[bad.message_id]) == "DataError: value too long"


def test_an_error_that_says_nothing_of_a_row_is_not_taken_for_one(database: str) -> None:
    with failing(database, RuntimeError("a fault"), "INSERT INTO"), pytest.raises(RuntimeError):
        write(event(), event())
    assert not Entry.objects.exists()


def test_a_batch_of_large_events_is_stored(any_database: str) -> None:
    """In statements that each server takes."""
    connection = connections[any_database]
    with CaptureQueriesContext(connection) as queries:
        write(*[event(f"{number}", properties={"text": '"' * 15_000}) for number in range(200)])
    assert Entry.objects.count() == 200
    if connection.vendor == "mysql":
        assert max(len(query["sql"]) for query in queries) < 4 * 1024 * 1024


# --- options, checks, commands, migrations ---


def test_the_plugin_says_what_it_is() -> None:
    assert (Journal.purpose, Journal.personal_data, Journal.dedupes) == ("analytics", True, True)
    assert Journal.django_app == "pluginhost.builtin.journal"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"KEEP_DAYS": 0}, "KEEP_DAYS: Expected `int` >= 1."),
        ({"KEEP_DAYS": 10**9}, "KEEP_DAYS: Expected `int` <= 36500."),
        ({"TYPES": []}, "TYPES: Expected `array` of length >= 1."),
        ({"TYPES": ["view"]}, "TYPES: must be one of 'track', 'page', 'identify', 'alias'."),
        ({"ADMIN": "no"}, "ADMIN: Expected `bool`, got `str`."),
    ],
    ids=["no days", "too many days", "no types", "unknown type", "no bool"],
)
def test_options_are_validated(given: dict[str, Any], problem: str) -> None:
    assert build(Journal.Options, given) == ([problem], None)


@pytest.mark.parametrize("types", [["track"], ("track",), {"track"}])
def test_types_are_any_collection(types: Any) -> None:
    problems, options = build(Journal.Options, {"TYPES": types})
    assert (problems, options.TYPES) == ([], frozenset({"track"}))


def test_a_database_that_does_not_exist_is_an_error() -> None:
    (message,) = journal(DATABASE="nowhere").check()
    assert message.id == "pluginhost.E020"
    assert "default" in str(message.hint)


def test_a_database_that_cannot_return_what_it_inserted_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections["default"], "vendor", "oracle")
    assert [message.id for message in journal().check()] == ["pluginhost.E021"]


def test_two_aliases_in_one_database_are_an_error(configure: Any) -> None:
    configure(journal={}, second={"PLUGIN": "journal"})
    messages = [message for loaded in host.registry.plugins.values() for message in loaded.plugin.check()]
    assert [message.id for message in messages] == ["pluginhost.E022"]


@pytest.mark.postgres
def test_the_option_database_is_where_it_is_written(database: str) -> None:
    other = "postgres" if database == "default" else "default"
    write(event(minute=1, visitor="v"), event(minute=2, user="1", visitor="v"), DATABASE=other)

    assert not Entry.objects.exists()
    assert Entry.objects.using(other).filter(user_id="1").count() == 2
    assert [message.id for message in journal(DATABASE=other).check()] == ["pluginhost.W020"]
    assert journal(DATABASE=database).check() == journal().check() == []


def test_send_test_says_where_the_entry_is(database: str, configure: Any) -> None:
    configure("outbox", journal={})
    output = io.StringIO()
    call_command("pluginhost", "send-test", "journal", stdout=output)

    entry = Entry.objects.get()
    assert f"pluginhost_journal_entry of the database '{database}' has entry {entry.pk} now" in output.getvalue()
    assert f"/admin/pluginhost_journal/entry/{entry.pk}/change/" in output.getvalue()
    assert "It stays there." in output.getvalue()


def test_send_test_needs_no_admin(database: str, settings: Any) -> None:
    settings.ROOT_URLCONF = ()
    assert journal().send_test().endswith(f"has entry {Entry.objects.get().pk} now. It stays there.")


def test_the_migrations_are_complete() -> None:
    call_command("makemigrations", "pluginhost_journal", check=True, dry_run=True, stdout=io.StringIO())

    assert MigrationLoader(None).disk_migrations.keys() >= {("pluginhost_journal", "0001_initial")}
