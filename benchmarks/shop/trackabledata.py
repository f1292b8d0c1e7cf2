"""What is counted for which parent."""

from __future__ import annotations

from benchmarks.shop.models import Product, ProductData
from pluginhost_timeseries import site

site.register(Product, ProductData)
