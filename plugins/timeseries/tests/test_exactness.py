"""Each event counts once: whatever is delivered again, split, reordered, or folded by several workers at once."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest
from django.db import OperationalError, connections, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pluginhost import Batch, Event, RetryableError
from pluginhost.events import keyed_message_id
from pluginhost_timeseries import EventCount, fold
from pluginhost_timeseries.models import LedgerEntry
from plugins.timeseries.tests.helpers import DAY, count, event, plugin
from plugins.timeseries.tests.models import DailyProduct, ProductTotals
from tests.site.models import Product

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [
    pytest.mark.django_db(databases="__all__", transaction=True),
    pytest.mark.usefixtures("registered"),
]


@pytest.fixture
def database(any_database: str) -> str:
    return any_database


def test_what_is_in_the_ledger_is_found_though_the_batch_says_that_it_comes_for_the_first_time(database: str) -> None:
    again, new = event("signed up"), event("signed up")
    count(again)
    count(again, new)
    assert EventCount.objects.get().count == 2
    assert LedgerEntry.objects.count() == 2


def test_events_of_a_key_are_one_beside_events_with_ids_of_their_own(database: str) -> None:
    keyed = [event("signed up", message_id=keyed_message_id("signed up", str(number))) for number in range(3)]
    own = [event("signed up") for _ in range(3)]
    count(keyed[0], own[0], keyed[1])
    count(keyed[1], own[1], keyed[2], keyed[0])
    count(keyed[2])
    count(own[2])
    assert EventCount.objects.get().count == 6


def test_a_batch_that_fails_half_way_counts_once_when_it_is_repeated(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [event("signed up") for _ in range(5)]
    monkeypatch.setattr(fold, "TOGETHER", 2)
    write, left = fold._write, [1]

    def failing(*arguments: Any) -> None:
        if not left:
            raise OperationalError("away")
        left.pop()
        write(*arguments)

    monkeypatch.setattr(fold, "_write", failing)
    with pytest.raises(RetryableError) if connections[database].vendor != "postgresql" else nullcontext():
        count(*events)
    monkeypatch.setattr(fold, "_write", write)
    plugin().aggregate(Batch(events, attempt=2))
    assert EventCount.objects.get().count == 5


NAMES = ["product viewed", "click_throughs", "signed up"]
KINDS = st.tuples(st.sampled_from(NAMES), st.integers(0, 2), st.integers(0, 50))


def expected(events: list[Event]) -> Counter[tuple[str, str]]:
    """What the events come to, by name and subject."""
    sums: Counter[tuple[str, str]] = Counter()
    for each in events:
        sums[each.name, each.subject.pk if each.subject else ""] += int(each.value or 0)
    return sums


def counted() -> Counter[tuple[str, str]]:
    sums: Counter[tuple[str, str]] = Counter()
    for row in DailyProduct.objects.all():
        sums["product viewed", row.parent_object_id] += row.impressions
        sums["click_throughs", row.parent_object_id] += row.click_throughs
    for other in EventCount.objects.all():
        sums[other.name, other.subject_id] += int(other.total)
    return sums


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(kinds=st.lists(KINDS, min_size=1, max_size=12), data=st.data())
def test_any_split_order_and_redelivery_gives_the_same_counts(
    database: str, kinds: list[tuple[str, int, int]], data: st.DataObject
) -> None:
    for model in (DailyProduct, ProductTotals, EventCount, LedgerEntry, Product):
        model.objects.all().delete()
    products = [Product.objects.create(name=str(number)) for number in range(3)]
    events = [event(name, None if name == "signed up" else products[number], value) for name, number, value in kinds]
    order = data.draw(st.permutations(events))
    again = data.draw(st.lists(st.lists(st.sampled_from(events), max_size=5), max_size=4))
    cut = data.draw(st.integers(0, len(order)))
    for batch in [*again[:2], order[:cut], *again[2:], order[cut:], order]:
        count(*batch)
    assert counted() == expected(events)
    assert sum(row.count for row in EventCount.objects.all()) == sum(each.name == "signed up" for each in events)


@pytest.mark.usefixtures("database")
def test_a_batch_that_was_committed_but_not_acknowledged_counts_once() -> None:
    product = Product.objects.create(name="lamp")
    events = [event("product viewed", product), event("signed up"), event("click_throughs", product, -2)]
    for _ in range(3):
        count(*events)
    count(events[0], events[0], event("product viewed", product))
    row = DailyProduct.objects.get()
    assert (row.impressions, row.click_throughs, EventCount.objects.get().count) == (2, -2, 1)


@pytest.mark.usefixtures("database")
def test_an_event_twice_in_one_batch_counts_once() -> None:
    twice = event("signed up", value=3)
    count(twice, event("signed up"), twice)
    row = EventCount.objects.get()
    assert (row.count, row.total) == (2, 3)


@pytest.mark.parametrize("has_json", [True, False])
def test_of_a_large_batch_what_is_new_is_counted(
    database: str, has_json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on an SQLite that was built without JSON."""
    monkeypatch.setattr(connections[database].features, "supports_json_field", has_json)
    events = [event("signed up") for _ in range(1100)]
    count(*events[300:900])
    count(*events)
    assert EventCount.objects.get().count == LedgerEntry.objects.count() == 1100


def test_names_are_the_same_only_if_every_character_is(database: str) -> None:
    """Whatever the database's collation takes for equal."""
    names = ["signed up", "Signed up", "sign\u00e9d up", "signed up "]
    for name in names:
        count(event(name))
    count(*[event(name) for name in names])
    assert dict(EventCount.objects.values_list("name", "count")) == dict.fromkeys(names, 2)


def run_in_threads(*jobs: Callable[[], None]) -> None:
    """Run callables at once, each with connections of its own; raise what one of them raised."""
    errors: list[BaseException] = []
    start = threading.Barrier(len(jobs))

    def run(job: Callable[[], None]) -> None:
        try:
            start.wait(timeout=10)
            job()
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise errors[0]


def worker(batches: list[list[Event]], seed: int) -> Callable[[], None]:
    """A worker that folds all batches, in its own order, and tries again what can be tried again."""

    def work() -> None:
        mine = [random.Random(seed + n).sample(batch, len(batch)) for n, batch in enumerate(batches)]
        random.Random(seed).shuffle(mine)
        counting = plugin()
        for batch in mine:
            for _ in range(50):
                try:
                    counting.aggregate(Batch(batch))
                    break
                except RetryableError:
                    time.sleep(0.02)
            else:
                raise AssertionError("never delivered")

    return work


def test_workers_that_fold_the_same_events_at_once_count_them_once(database: str) -> None:
    products = [Product.objects.create(name=str(number)) for number in range(5)]
    chance = random.Random(1)
    events = [
        event(name, None if name == "signed up" else chance.choice(products), value)
        for name in NAMES
        for value in (chance.choice([1, 2, -1]) if name == "click_throughs" else 1 for _ in range(60))
    ]
    chance.shuffle(events)
    batches = [events[start : start + 20] for start in range(0, len(events), 20)]
    batches += [chance.sample(events, 20) for _ in range(5)]
    run_in_threads(*[worker(batches, seed) for seed in range(4)])
    sums = expected([each for each in events if each.name != "signed up"])
    sums["signed up", ""] = 60
    assert counted() == sums
    assert DailyProduct.objects.count() == len(products)


def test_workers_that_raise_and_lower_the_same_rows_never_wait_in_a_circle(database: str) -> None:
    products = [Product.objects.create(name=str(number)) for number in range(8)]
    count(*[event("product viewed", product, 1000) for product in products])
    refused: list[str] = []

    def work(seed: int) -> Callable[[], None]:
        def run() -> None:
            chance = random.Random(seed)
            counting = plugin()
            for _ in range(30):
                some = chance.sample(products, 4)
                batch = [event("product viewed", product, chance.choice([1, -1])) for product in some]
                batch += [event("product viewed", product, 1) for product in some[:1]]
                try:
                    counting.aggregate(Batch(batch))
                except RetryableError as error:
                    refused.append(str(error))

        return run

    run_in_threads(*[work(seed) for seed in range(4)])
    assert refused == []


def test_a_second_worker_waits_until_the_first_has_committed_or_given_up(database: str) -> None:
    """The first worker enters an id and rolls back: the second counts the event."""
    one = event("signed up")
    count(event("signed up"))  # so that the tables' first rows are there
    folded, leave = threading.Event(), threading.Event()

    def first() -> None:
        with transaction.atomic(database):
            plugin().aggregate(Batch([one]))
            folded.set()
            leave.wait(timeout=10)
            transaction.set_rollback(True, database)

    def second() -> None:
        folded.wait(timeout=10)
        threading.Timer(0.2, leave.set).start()
        worker([[one]], 1)()

    run_in_threads(first, second)
    assert EventCount.objects.get(day=DAY).count == 2
