"""Options, system checks, migrations, and the way from ``host.track`` to a counter."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Any

import importlib_metadata
import pytest
from django.core.management import call_command
from django.db import models
from django.db.models.functions import Now
from django.test.utils import isolate_apps

import pluginhost_timeseries as trackable
from pluginhost import host, loading
from pluginhost.options import build
from pluginhost.registry import load_registry
from pluginhost_timeseries import EventCount, site
from pluginhost_timeseries.plugin import TimeSeries
from plugins.timeseries.tests.helpers import count, event, plugin
from plugins.timeseries.tests.models import DailyProduct, ProductTotals
from tests.site.models import Product

if TYPE_CHECKING:
    from django.core.checks import CheckMessage
    from pytest_django.fixtures import SettingsWrapper


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib_metadata.EntryPoint("timeseries", "pluginhost_timeseries.plugin:TimeSeries", "pluginhost")
    monkeypatch.setattr(loading, "entry_points", lambda: importlib_metadata.EntryPoints([point]))


def ids(messages: list[CheckMessage]) -> list[str]:
    return [str(message.id).removeprefix("pluginhost_timeseries.") for message in messages]


def test_the_plugin_says_what_it_is() -> None:
    assert (TimeSeries.purpose, TimeSeries.personal_data, TimeSeries.dedupes) == ("analytics", False, True)
    assert TimeSeries.django_app == "pluginhost_timeseries"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"TIME_ZONE": "Mars/Phobos"}, "TIME_ZONE is 'Mars/Phobos'; there is no such time zone."),
        ({"TIME_ZONE": "../etc"}, "TIME_ZONE is '../etc'; there is no such time zone."),
        ({"TIME_ZONE": "Europe"}, "TIME_ZONE is 'Europe'; there is no such time zone."),
        ({"LEDGER_DAYS": 0}, "LEDGER_DAYS: Expected `int` >= 1."),
        ({"GENERIC": "no"}, "GENERIC: Expected `bool`, got `str`."),
    ],
)
def test_options_are_validated(given: dict[str, Any], problem: str) -> None:
    assert build(TimeSeries.Options, given) == ([problem], None)


def test_good_options_are_taken() -> None:
    assert build(TimeSeries.Options, {"TIME_ZONE": "Europe/Berlin", "LEDGER_DAYS": 7})[0] == []
    with pytest.raises(ValueError, match="no such time zone"):
        TimeSeries.Options(TIME_ZONE="nowhere")


def test_an_unknown_database_is_an_error() -> None:
    (message,) = plugin(DATABASE="nowhere").check()
    assert ids([message]) == ["E001"]
    assert "default" in str(message.hint)


def test_a_database_that_cannot_return_what_it_inserted_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db import connections

    monkeypatch.setattr(connections["default"], "vendor", "oracle")
    assert ids(plugin(DATABASE="default").check()) == ["E002"]


def test_two_aliases_in_one_database_are_an_error(settings: SettingsWrapper, installed: None) -> None:
    settings.PLUGINHOST = {"PLUGINS": {"timeseries": {}, "second": {"PLUGIN": "timeseries"}}}
    registry = load_registry()
    assert registry.errors == []
    messages = [message for loaded in registry.plugins.values() for message in loaded.plugin.check()]
    assert ids(messages) == ["E003"]


@pytest.mark.postgres
def test_data_that_is_read_elsewhere_is_a_warning(registered: None, database: str) -> None:
    other = "postgres" if database == "default" else "default"
    assert ids(plugin(DATABASE=other).check()) == ["W001", "W001"]
    assert plugin().check() == []


@pytest.mark.postgres
@pytest.mark.django_db(databases="__all__", transaction=True)
def test_the_option_database_is_where_it_is_written(registered: None, database: str) -> None:
    other = "postgres" if database == "default" else "default"
    product = Product(pk=1)
    count(event("product viewed", product), event("signed up"), DATABASE=other)
    assert DailyProduct.objects.using(other).for_parent(product).get().impressions == 1
    assert EventCount.objects.using(other).get().count == 1
    assert not DailyProduct.objects.exists()
    assert not EventCount.objects.exists()


@isolate_apps("tests.site")
def test_a_data_model_is_checked() -> None:
    class WithoutMeta(trackable.TrackableTimeSeriesData):
        events = {"seen": "views", "gone": "note"}
        views = models.IntegerField(default=0)
        note = models.TextField(default="")

        class Meta:
            app_label = "shop"

    class Nullable(trackable.TrackableData):
        views = models.IntegerField(null=True)
        owner = models.ForeignKey(Product, models.CASCADE)
        made = models.DateTimeField(null=True, db_default=Now())

        class Meta(trackable.TrackableData.Meta):
            app_label = "shop"

    class Field(trackable.TrackableData):
        events = models.IntegerField(default=0)  # type: ignore[assignment]

        class Meta(trackable.TrackableData.Meta):
            app_label = "shop"

    own = [[each for each in ids(model.check()) if "." not in each] for model in (WithoutMeta, Nullable, Field)]
    assert own == [["E004", "E005"], ["E006", "E007"], ["E005"]]
    assert DailyProduct.check() == ProductTotals.check() == []


@pytest.mark.django_db(databases="__all__")
def test_the_migration_is_complete_and_the_project_clean() -> None:
    call_command("makemigrations", "pluginhost_timeseries", check=True, dry_run=True, stdout=StringIO())
    call_command("check", fail_level="WARNING", stdout=StringIO())


@pytest.mark.django_db(databases="__all__", transaction=True)
def test_from_a_call_to_a_counter(settings: SettingsWrapper, installed: None, database: str, registered: None) -> None:
    settings.PLUGINHOST = {"PLUGINS": {"timeseries": {}}, "TEST": {"TRANSPORT": "inline"}}
    product = Product.objects.create(name="lamp")
    for _ in range(2):
        host.track(None, "product viewed", subject=product, key="view:1")
        host.track(None, "click_throughs", subject=product, value=2)
        host.track(None, "signed up")
    row = DailyProduct.objects.for_parent(product).get()
    assert (row.impressions, row.click_throughs) == (1, 4)
    assert EventCount.objects.get().count == 2
    assert site.data_models(Product) == [DailyProduct, ProductTotals]
