from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.db import connections

from pluginhost_timeseries import site
from plugins.timeseries.tests.models import DailyProduct, ProductTotals
from tests.site.models import Country, Product, Voucher

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_django import DjangoDbBlocker


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> None:
    """The test databases, with the tables of the data models."""
    for model in (DailyProduct, ProductTotals):
        model._meta.managed = True  # from here on they are emptied like all others
        with django_db_blocker.unblock():
            for connection in connections.all():
                with connection.schema_editor() as editor:
                    editor.create_model(model)


@pytest.fixture
def registered() -> Iterator[None]:
    """Products, vouchers and countries are counted by day, products also in total."""
    pairs = [(Product, DailyProduct), (Voucher, DailyProduct), (Country, DailyProduct), (Product, ProductTotals)]
    for model, data_model in pairs:
        site.register(model, data_model)
    yield
    for model, data_model in pairs:
        if site.is_registered(model, data_model):
            site.unregister(model, data_model)
