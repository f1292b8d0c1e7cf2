"""Metrics for OpenTelemetry: what is measured, by which names, and nothing where nobody measures."""

from __future__ import annotations

import datetime as dt
import inspect
import re
import subprocess
import sys

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from pluginhost import PartialFailure, PermanentError, RetryableError, SkipEvent, counts, host, metrics
from pluginhost.delivery.intake import take
from pluginhost.models import Delivery
from pluginhost.operations import letters
from tests.docs_pages import DOCS, first_cells, section
from tests.processes import ROOT, environment
from tests.samples import Recorder
from tests.steps import account, make_due, raising, run, seen, track

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)


class Collected:
    """Everything that a reader finds."""

    def __init__(self, reader: InMemoryMetricReader) -> None:
        data = reader.get_metrics_data()
        scopes = [scope for resource in (data.resource_metrics if data else []) for scope in resource.scope_metrics]
        self.metrics = {metric.name: metric for scope in scopes for metric in scope.metrics}

    def points(self, name: str) -> list:
        return list(self.metrics[name].data.data_points) if name in self.metrics else []

    def values(self, name: str, *attributes: str) -> dict:
        """The values of a counter or a gauge by its attributes, in the order in which they are asked for."""
        return {
            tuple(point.attributes[f"pluginhost.{attribute}"] for attribute in attributes): point.value
            for point in self.points(name)
        }


@pytest.fixture
def collect(monkeypatch):
    """A process that uses OpenTelemetry."""
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    monkeypatch.setattr(metrics, "_made", metrics.Instruments(provider.get_meter("pluginhost")))
    monkeypatch.setattr(metrics, "_backlogs", {})
    yield lambda: Collected(reader)
    provider.shutdown()


def test_the_outcomes_of_a_lane(database, configure, collect):
    configure("outbox", folder={}, recorder={})

    def act(batch) -> None:
        ids = {event.name: event.message_id for event in batch}
        errors = {"dead": PermanentError("no"), "later": RetryableError("busy"), "skipped": SkipEvent("no")}
        raise PartialFailure({ids[name]: error for name, error in errors.items()})

    Recorder.act["folder"] = act
    track("fine", "dead", "later", "skipped", "fine too")
    run(database, "folder")
    run(database, "recorder")

    assert collect().values("pluginhost.events", "lane", "outcome") == {
        ("folder", "delivered"): 2,
        ("folder", "skipped"): 1,
        ("folder", "deferred"): 1,
        ("folder", "dead"): 1,
        ("recorder", "delivered"): 5,
    }


def test_whatever_discards_events_counts_them(database, configure, collect):
    configure("outbox", folder={"BACKLOG_LIMIT": 3})
    Recorder.act["folder"] = raising(lambda: PermanentError("no"))
    track("a", "b")
    run(database, "folder")
    letters.discard(letters.Selection(), database, reason="dead")
    track("c", "d", "e", "f")
    take(database)
    track("g")
    letters.discard(letters.Selection(lanes=("folder",), state="waiting"), database, reason="waiting")

    discarded = {("folder", "dead"): 2, ("folder", "discarded"): 2 + 1 + 3 + 1}
    assert collect().values("pluginhost.events", "lane", "outcome") == discarded
    assert account(database, "folder") == {"accepted": 7, "discarded": 7}


class Raising:
    """A meter whose instruments can be made, and then raise."""

    def __getattr__(self, name):
        if not name.startswith("create_"):
            raise RuntimeError("full")
        return lambda *args, **kwargs: self


def test_what_can_not_be_measured_is_delivered_all_the_same_and_once(database, configure, monkeypatch, caplog):
    monkeypatch.setattr(metrics, "_made", metrics.Instruments(Raising()))
    monkeypatch.setattr(metrics, "_complained", False)
    configure("outbox", folder={})
    track("a")
    for _ in range(3):
        run(database, "folder")
        make_due()

    assert seen("folder") == ["a"]
    assert account(database, "folder") == {"accepted": 1, "delivered": 1}
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_an_event_is_tracked_though_no_instruments_can_be_made(database, configure, monkeypatch):
    def fails(meter):
        raise RuntimeError("no meter")

    monkeypatch.setattr(metrics, "_made", None)
    monkeypatch.setattr(metrics, "_complained", False)
    monkeypatch.setattr(metrics, "Instruments", fails)
    configure("outbox", folder={})

    assert host.track(None, "a")
    assert metrics.instruments() is None


def test_how_long_calls_take_and_how_they_fail(configure, collect):
    configure("outbox", folder={"RETRY_DELAY": 0.01})
    track("a")
    Recorder.act["folder"] = raising(lambda: RetryableError("busy"))
    run("default", "folder")
    Recorder.act.clear()
    make_due()
    run("default", "folder")

    found = {point.attributes.get("error.type"): point for point in collect().points("pluginhost.plugin.duration")}
    assert set(found) == {None, "RetryableError"}
    for point in found.values():
        assert point.count == 1
        assert 0 <= point.sum < 60
        assert point.attributes["pluginhost.lane"] == "folder"
        if "explicit_bucket_boundaries_advisory" in inspect.signature(Meter.create_histogram).parameters:
            assert point.explicit_bounds == metrics.CALLS


@pytest.mark.parametrize("lane", ["recorder", "folder"])
def test_the_delay_of_what_was_delivered(configure, collect, lane):
    configure("outbox", **{lane: {}})
    Recorder.act[lane] = raising(lambda: PermanentError("no"), "bad")
    old = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    host.track(None, "keyed", key="1", timestamp=old)
    track("a", "bad", "b")

    run("default", lane)

    [point] = collect().points("pluginhost.delivery.delay")
    assert point.count == 3, "not the one that failed"
    assert point.max >= 3600, "an event with a key happened at its timestamp"
    assert 0 <= point.min < 600, "others when their id was made"


def test_what_is_counted_at_the_call(configure, collect):
    configure("outbox", folder={}, STRICT=False)
    before = counts.snapshot()
    host.track(None, "fine")
    host.track(None, "bad", properties={"value": object()})

    after = collect().values("pluginhost.tracked", "outcome")
    gained = {outcome: n - before.get(outcome, 0) for (outcome,), n in after.items() if n != before.get(outcome, 0)}
    assert gained == {"accepted": 1, "invalid": 1}


# --- backlogs ---


def test_the_backlogs_of_a_worker(database, configure, collect):
    configure("outbox", folder={}, recorder={})
    Recorder.act["recorder"] = raising(lambda: PermanentError("no"), "bad")
    track("a", "bad", "b")
    run(database, "recorder")
    Delivery.objects.filter(lane="folder").update(created=dt.datetime.now(dt.UTC) - dt.timedelta(hours=1))
    metrics.watch_backlogs(database)

    found = collect()

    keys = ("database", "lane")
    assert found.values("pluginhost.backlog.waiting", *keys) == {(database, "folder"): 3, (database, "recorder"): 0}
    assert found.values("pluginhost.backlog.dead", *keys) == {(database, "folder"): 0, (database, "recorder"): 1}
    ages = found.values("pluginhost.backlog.age", *keys)
    assert 3500 < ages[database, "folder"] < 7200
    assert ages[database, "recorder"] == 0


def test_backlogs_are_counted_once_for_all_gauges_and_not_at_each_collection(configure, collect, monkeypatch):
    configure("outbox", folder={})
    track("a")
    metrics.watch_backlogs("default")

    with CaptureQueriesContext(
        connections["default"],
    ) as first:
        collect()
    with CaptureQueriesContext(connections["default"]) as second:
        assert collect().values("pluginhost.backlog.waiting", "lane") == {("folder",): 1}
    assert 0 < len(first) < 10
    assert len(second) == 0

    monkeypatch.setattr(metrics, "BACKLOG_EVERY", 0)
    track("b")
    assert collect().values("pluginhost.backlog.waiting", "lane") == {("folder",): 2}


def test_only_workers_count_backlogs(configure, collect):
    configure("outbox", folder={})
    track("a")
    with CaptureQueriesContext(connections["default"]) as queries:
        found = collect()
    assert not [name for name in found.metrics if "backlog" in name]
    assert len(queries) == 0


def test_a_database_that_is_away_leaves_a_gap(configure, collect, monkeypatch, caplog):
    from django.db import OperationalError

    from pluginhost.operations import pausing

    def refuse(using):
        raise OperationalError("away")

    configure("outbox", folder={})
    monkeypatch.setattr(pausing, "overview", refuse)
    metrics.watch_backlogs("default")
    track("a")
    run("default", "folder")

    found = collect()

    assert "pluginhost.events" in found.metrics
    assert not [name for name in found.metrics if "backlog" in name]
    assert "could not be counted: away" in caplog.text


# --- conventions ---


def test_names_and_units_follow_the_conventions_and_are_documented(configure, collect):
    """https://opentelemetry.io/docs/specs/semconv/general/metrics/"""
    configure("outbox", folder={})
    track("a")
    run("default", "folder")
    metrics.watch_backlogs("default")
    found = collect().metrics

    for name, metric in found.items():
        assert re.fullmatch(r"pluginhost(\.[a-z]+)+", name)
        assert metric.unit in ("s", "{event}")
        assert metric.description
    assert not [name for name in found if any(other.startswith(f"{name}.") for other in found)], (
        "a name is no namespace"
    )
    assert sorted(first_cells(section(DOCS / "howto" / "watch.md", "Metrics"))) == sorted(found)


# --- where nobody measures ---

UNUSED = """
import sys
import django
django.setup()
from pluginhost import host, metrics
from pluginhost.workers.worker import drain
from pluginhost.registry import get_registry

host.track(None, "before")
drain(get_registry().runners, "default")
assert metrics.instruments() is None
assert not [name for name in sys.modules if name.partition(".")[0] == "opentelemetry"]

from opentelemetry.metrics import set_meter_provider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

reader = InMemoryMetricReader()
set_meter_provider(MeterProvider(metric_readers=[reader]))
host.track(None, "after")
drain(get_registry().runners, "default")
found = {
    (metric.name, point.attributes["pluginhost.outcome"]): point.value
    for metric in reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    for point in metric.data.data_points
    if "pluginhost.outcome" in point.attributes
}
assert found == {("pluginhost.events", "delivered"): 1, ("pluginhost.tracked", "accepted"): 2}, found
"""

ABSENT = """
import sys
sys.modules["opentelemetry"] = None
import django
django.setup()
from pluginhost import host, metrics
from pluginhost.workers.worker import drain
from pluginhost.registry import get_registry

host.track(None, "event")
metrics.watch_backlogs("default")
assert drain(get_registry().runners, "default") == 1
assert metrics.instruments() is None
"""


@pytest.mark.parametrize("script", [UNUSED, ABSENT], ids=["not used", "not installed"])
def test_a_process_without_opentelemetry_measures_nothing(configure, tmp_path, script):
    configure("outbox", writer={"PATH": str(tmp_path / "written")})
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment("default"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
