from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from django.contrib import admin
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

import pluginhost_timeseries
from pluginhost_timeseries import AlreadyRegistered, NotRegistered, TrackableData, TrackableSite, site
from plugins.timeseries.tests.models import DailyProduct, Furniture, ProductTotals
from tests.site.models import Order, Product

if TYPE_CHECKING:
    from pathlib import Path


def test_a_parent_has_several_data_models_and_a_data_model_several_parents() -> None:
    own = TrackableSite()
    own.register(Product, ProductTotals)
    own.register(Product, DailyProduct)
    own.register(Order, DailyProduct)
    assert own.data_models(Product) == [DailyProduct, ProductTotals]
    assert own.data_models(Furniture) == [DailyProduct, ProductTotals]
    assert own.data_models(Order) == [DailyProduct]
    own.unregister(Product, DailyProduct)
    assert own.data_models(Product) == [ProductTotals]
    assert own.is_registered(Order, DailyProduct)
    own.unregister(Product)
    own.unregister(Order)
    assert own.admin_classes() == {}


def test_registering_twice_and_unregistering_nothing_are_errors() -> None:
    own = TrackableSite()
    with pytest.raises(NotRegistered, match=r"^No data model is registered for shop\.Product\.$"):
        own.unregister(Product)
    own.register(Product, DailyProduct)
    with pytest.raises(AlreadyRegistered, match=r"shop\.DailyProduct is already registered for shop\.Furniture"):
        own.register(Furniture, DailyProduct)
    with pytest.raises(NotRegistered, match=r"shop\.ProductTotals is not registered for shop\.Product\.$"):
        own.unregister(Product, ProductTotals)
    own.unregister(Product)


def test_only_data_models_with_a_table_are_registered() -> None:
    own = TrackableSite()
    with pytest.raises(ImproperlyConfigured, match="does not inherit from TrackableData"):
        own.register(Product, Order)  # type: ignore[arg-type]
    with pytest.raises(ImproperlyConfigured, match="TrackableData is abstract"):
        own.register(Product, TrackableData)


def test_the_public_names_are_there_and_no_others() -> None:
    for name in pluginhost_timeseries.__all__:
        assert getattr(pluginhost_timeseries, name)
    assert dir(pluginhost_timeseries) == sorted(pluginhost_timeseries.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        pluginhost_timeseries.nothing  # noqa: B018


def test_importing_the_package_needs_no_settings() -> None:
    code = "import pluginhost_timeseries, sys; assert 'django' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def test_trackabledata_of_each_app_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "discovered"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "trackabledata.py").write_text(
        "import pluginhost_timeseries as trackable\n"
        "from plugins.timeseries.tests.models import ProductTotals\n"
        "from tests.site.models import Order\n"
        "trackable.site.register(Order, ProductTotals)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from django.conf import settings

    with override_settings(INSTALLED_APPS=[*settings.INSTALLED_APPS, "discovered"]):
        assert site.is_registered(Order, ProductTotals)
        assert admin.site.is_registered(ProductTotals)
        site.unregister(Order)
    assert not admin.site.is_registered(ProductTotals)
