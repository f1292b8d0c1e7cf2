from __future__ import annotations

from typing import TYPE_CHECKING, Any

import importlib_metadata
import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.urls import path, reverse

from pluginhost import loading
from pluginhost_timeseries import EventCount, site
from plugins.timeseries.tests.helpers import count, event
from plugins.timeseries.tests.models import DailyProduct, ProductTotals
from tests.site.models import Country, Order, Product, Voucher

if TYPE_CHECKING:
    from django.db.models import Model
    from django.test import Client
    from pytest_django import DjangoAssertNumQueries
    from pytest_django.fixtures import SettingsWrapper


@pytest.fixture
def alias_without_admin(settings: SettingsWrapper, monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib_metadata.EntryPoint("timeseries", "pluginhost_timeseries.plugin:TimeSeries", "pluginhost")
    monkeypatch.setattr(loading, "entry_points", lambda: importlib_metadata.EntryPoints([point]))
    settings.PLUGINHOST = {"PLUGINS": {"timeseries": {"ADMIN": False}}}


@pytest.mark.django_db(databases="__all__", transaction=True)
class TestPages:
    @pytest.fixture(autouse=True)
    def parents(self, database: str, registered: None, client: Client, settings: SettingsWrapper) -> None:
        settings.ROOT_URLCONF = (path("admin/", admin.site.urls),)  # made now: it lists what is registered now
        client.force_login(User.objects.create_superuser("root"))
        self.objects = [
            Product.objects.create(name="lamp"),
            Voucher.objects.create(),
            Country.objects.create(code="is"),
        ]
        gone = Product.objects.create(name="gone")
        count(*[event("click_throughs", each, 7) for each in [*self.objects, gone]])
        count(event("product viewed", self.objects[0], 3), event("signed up", value=2.5))
        gone.delete()

    @pytest.mark.parametrize("model", [DailyProduct, ProductTotals, EventCount])
    def test_lists_load_and_are_read_only(self, client: Client, model: type[Model]) -> None:
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        page = client.get(reverse(f"{name}_changelist"))
        assert page.status_code == 200
        first = model._default_manager.all()[0]
        change = reverse(f"{name}_change", args=[first.pk])
        assert client.get(change).status_code == 200
        assert b'name="_save"' not in client.get(change).content
        assert client.post(change, {}).status_code == 403
        assert client.get(reverse(f"{name}_add")).status_code == 403
        assert client.post(reverse(f"{name}_delete", args=[first.pk]), {"post": "yes"}).status_code == 403
        assert model._default_manager.filter(pk=first.pk).exists()

    def test_a_data_model_is_listed_by_day_with_its_counters(self, client: Client) -> None:
        page = client.get(reverse("admin:shop_dailyproduct_changelist")).content.decode()
        for column in ("parent", "collected_during", "impressions", "click_throughs", "revenue", "seconds"):
            assert f"column-{column}" in page
        assert "toplinks" in page  # the date hierarchy
        assert "By parent type" in page

    def test_it_is_filtered_and_searched(self, client: Client) -> None:
        url = reverse("admin:shop_dailyproduct_changelist")
        rows = client.get(url, {"q": "is"}).context["cl"].result_list
        assert [row.parent for row in rows] == [self.objects[2]]
        counts = client.get(reverse("admin:pluginhost_timeseries_eventcount_changelist"), {"name": "signed up"})
        assert [row.name for row in counts.context["cl"].result_list] == ["signed up"]

    def test_parents_are_fetched_together(
        self, client: Client, database: str, django_assert_max_num_queries: DjangoAssertNumQueries
    ) -> None:
        from django.db import connections

        products = [Product.objects.create(name=str(n)) for n in range(30)]
        count(*[event("click_throughs", each) for each in products])
        with django_assert_max_num_queries(20, connection=connections[database]):
            client.get(reverse("admin:shop_dailyproduct_changelist"))


class Given(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("parent", "views")


def test_the_given_class_is_registered_and_unregistered_with_the_data_model() -> None:
    site.register(Product, ProductTotals)
    site.register(Order, ProductTotals)
    site.unregister(Product, ProductTotals)
    assert admin.site.is_registered(ProductTotals)
    site.unregister(Order)
    assert not admin.site.is_registered(ProductTotals)
    site.register(Product, ProductTotals, Given)
    assert isinstance(admin.site.get_model_admin(ProductTotals), Given)
    site.unregister(Product)


def test_what_the_project_registered_itself_stays() -> None:
    admin.site.register(ProductTotals, Given)
    site.register(Product, ProductTotals)
    site.unregister(Product)
    assert isinstance(admin.site.get_model_admin(ProductTotals), Given)
    admin.site.unregister(ProductTotals)


def test_the_option_keeps_counts_out_of_the_admin(alias_without_admin: None) -> None:
    site.register(Product, ProductTotals)
    assert not admin.site.is_registered(ProductTotals)
    site.unregister(Product)


def test_broken_settings_are_left_to_the_checks(settings: Any) -> None:
    settings.PLUGINHOST = {"NONSENSE": 1}
    site.register(Product, ProductTotals)
    assert admin.site.is_registered(ProductTotals)
    site.unregister(Product)
