"""What a failed insert may do to the site's own connection and transaction: nothing."""

from __future__ import annotations

from contextlib import suppress

import pytest
from django.db import OperationalError, connections, transaction
from django.db.transaction import TransactionManagementError
from django.test.utils import CaptureQueriesContext

from pluginhost import host
from pluginhost.workers.worker import drain
from tests.site.models import Order
from tests.steps import outbox_renamed, seen, stored

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)


def no_writes_here(execute, sql, params, many, context):
    """A wrapper of the site's, for a time of maintenance: our INSERT never reaches the server."""
    if "INSERT INTO" in sql and "pluginhost" in sql:
        raise RuntimeError("maintenance: no writes here")
    return execute(sql, params, many, context)


def order_numbers() -> list[str]:
    return list(Order.objects.order_by("id").values_list("number", flat=True))


@pytest.mark.parametrize("more", [["2"], []], ids=["in between", "last"])
def test_a_wrapper_that_refuses_our_insert_dooms_no_transaction(database, configure, more):
    configure("outbox", recorder={})

    with transaction.atomic(using=database):
        Order.objects.create(number="1")
        with connections[database].execute_wrapper(no_writes_here):
            host.track(None, "late")
        for number in more:
            Order.objects.create(number=number)

    assert order_numbers() == ["1", *more]
    drain(host.registry.runners, database)
    assert seen("recorder") == ["late"], "it is tried again after the commit"


def test_a_wrapper_that_refuses_our_insert_dooms_no_savepoint(database, configure):
    configure("outbox", recorder={})

    with transaction.atomic(using=database):
        Order.objects.create(number="1")
        with transaction.atomic(using=database), connections[database].execute_wrapper(no_writes_here):
            Order.objects.create(number="2")
            host.track(None, "late")
        host.track(None, "in time")

    assert order_numbers() == ["1", "2"]
    drain(host.registry.runners, database)
    assert sorted(seen("recorder")) == ["in time", "late"]


def test_a_wrapper_that_refuses_our_insert_breaks_nothing_outside_of_transactions(database, configure):
    configure("outbox", recorder={})
    lost = host.counts.get("lost", 0)

    with connections[database].execute_wrapper(no_writes_here):
        assert host.track(None, "lost") is None
    assert host.track(None, "kept")

    assert host.counts["lost"] == lost + 1
    drain(host.registry.runners, database)
    assert seen("recorder") == ["kept"]


def test_a_loop_over_the_site_s_rows_survives_a_failed_insert(database, configure):
    configure("outbox", recorder={})
    Order.objects.bulk_create([Order(number=str(number)) for number in range(60)])

    found = []
    with outbox_renamed(database):
        for order in Order.objects.order_by("id").iterator(chunk_size=10):
            found.append(order.number)
            assert host.track(None, "lost") is None

    assert found == [str(number) for number in range(60)]
    assert stored() == 0


@pytest.mark.postgres
def test_what_the_site_holds_in_its_session_survives_a_failed_insert(database, configure):
    if database != "postgres":
        pytest.skip("SQLite's sessions hold nothing")
    configure("outbox", recorder={})

    with connections[database].cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(42)")
        cursor.execute("CREATE TEMPORARY TABLE of_the_site (n int)")
    with outbox_renamed(database):
        assert host.track(None, "lost") is None

    with connections[database].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM of_the_site")
        assert cursor.fetchone() == (0,)
        cursor.execute("DROP TABLE of_the_site")
        cursor.execute("SELECT pg_advisory_unlock(42)")
        assert cursor.fetchone() == (True,)


def deadlock(execute, sql, params, many, context):
    """What InnoDB does with the victim of a deadlock: it undoes the whole transaction."""
    if "INSERT INTO" in sql and "pluginhost" in sql:
        execute("ROLLBACK", None, False, context)
        raise OperationalError(1213, "Deadlock found when trying to get lock; try restarting transaction")
    return execute(sql, params, many, context)


@pytest.mark.parametrize("more", [True, False], ids=["in between", "last"])
def test_a_transaction_that_a_deadlock_undid_is_not_committed_by_half(mariadb, configure, more):
    configure("outbox", recorder={})

    with suppress(TransactionManagementError), transaction.atomic(using=mariadb):
        Order.objects.create(number="1")
        with connections[mariadb].execute_wrapper(deadlock):
            assert host.track(None, "undone") is None
        if more:
            Order.objects.create(number="2")

    assert order_numbers() == []
    assert stored() == 0


def test_statements_are_no_longer_than_a_server_takes(mariadb, configure):
    configure("outbox", recorder={})

    with CaptureQueriesContext(connections[mariadb]) as queries, host.batch():
        for _ in range(200):
            host.track(None, "large", {"text": '"' * 15_000})

    assert stored() == 200
    assert len(queries) > 5
    assert max(len(query["sql"]) for query in queries) < 4 * 1024 * 1024
