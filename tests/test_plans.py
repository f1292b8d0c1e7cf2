"""Whatever waits or is dead: what workers ask all the time goes by the index of the lane."""

from __future__ import annotations

import datetime as dt
import os
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connections
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from pluginhost import host
from pluginhost.delivery.lanes import claim
from pluginhost.models import Delivery
from tests.steps import run, track

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)

#: 20,480 deliveries; 13 doublings make 163,840.
DOUBLINGS = int(os.environ.get("PLUGINHOST_TEST_DOUBLINGS", "10"))
INDEX = "pluginhost_delivery_lane"
COLUMNS = "lane, version, n, done, created, due_at, attempts, kills, state, reason, message_id, event_name"


@pytest.fixture
def filled(any_database: str, configure: Any) -> str:
    """Ten lanes with deliveries that are due in an hour, and as many dead ones."""
    configure("outbox", **{f"lane{number}": {"PLUGIN": "recorder"} for number in range(10)})
    Delivery.objects.bulk_create(
        Delivery(lane=f"lane{number}", version=1, n=1, state=state, due_at=Now() + dt.timedelta(hours=1))
        for number in range(10)
        for state in ("waiting", "dead")
    )
    connection = connections[any_database]
    with connection.cursor() as cursor:
        for _ in range(DOUBLINGS):
            cursor.execute(f"INSERT INTO pluginhost_delivery ({COLUMNS}) SELECT {COLUMNS} FROM pluginhost_delivery")
        cursor.execute("ANALYZE TABLE pluginhost_delivery" if connection.vendor == "mysql" else "ANALYZE")
    track("one", "two", "three")
    return any_database


def plans(database: str, queries: CaptureQueriesContext) -> Iterator[tuple[str, str]]:
    """Each question about deliveries, and how the database answers it."""
    connection = connections[database]
    explain = "EXPLAIN QUERY PLAN" if connection.vendor == "sqlite" else "EXPLAIN"
    for query in queries.captured_queries:
        if query["sql"].startswith("SELECT") and "pluginhost_delivery" in query["sql"]:
            with connection.cursor() as cursor:
                cursor.execute(f"{explain} {query['sql']}")
                yield query["sql"], "\n".join(str(row) for row in cursor.fetchall())


def test_a_lane_finds_what_is_due_by_the_index(filled):
    runner = host.registry.runners["lane3"]
    with CaptureQueriesContext(connections[filled]) as idle:
        assert claim(runner, filled) is None
    with CaptureQueriesContext(connections[filled]) as busy:
        assert run(filled, "lane3")
    asked = [*plans(filled, idle), *plans(filled, busy)]

    assert len(asked) > 3
    for sql, plan in asked:
        by_id = any(words in sql.replace("`", '"') for words in ('"id" IN', '"id" = ANY', "id = "))
        assert INDEX in plan or by_id, (sql, plan)
        assert not by_id or any(word in plan for word in ("pkey", "PRIMARY", "Impossible WHERE")), (sql, plan)
        assert not any(word in plan for word in ("Sort", "filesort", "TEMP B-TREE")), (sql, plan)
