"""The basket: slugs and quantities, kept in the visitor's session."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from shop.models import Product

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.http import HttpRequest

KEY = "basket"
MOST = 20


class Line(NamedTuple):
    product: Product
    quantity: int

    @property
    def total(self) -> Decimal:
        return self.product.price * self.quantity


class Basket:
    def __init__(self, request: HttpRequest) -> None:
        self._session = request.session
        self._quantities: dict[str, int] = dict(self._session.get(KEY, {}))

    def add(self, product: Product, quantity: int) -> None:
        self._quantities[product.slug] = min(self._quantities.get(product.slug, 0) + quantity, MOST)
        self._save()

    def remove(self, product: Product) -> bool:
        """Take it out. False if it was not in the basket."""
        found = self._quantities.pop(product.slug, None) is not None
        self._save()
        return found

    def clear(self) -> None:
        self._quantities = {}
        self._save()

    def lines(self) -> list[Line]:
        products = Product.objects.filter(slug__in=self._quantities)
        return [Line(product, self._quantities[product.slug]) for product in products]

    @property
    def total(self) -> Decimal:
        return sum((line.total for line in self.lines()), Decimal())

    def __iter__(self) -> Iterator[Line]:
        return iter(self.lines())

    def __len__(self) -> int:
        """The number of things in it."""
        return sum(self._quantities.values())

    def _save(self) -> None:
        self._session[KEY] = self._quantities


def basket(request: HttpRequest) -> dict[str, Any]:
    """Context processor: each page shows how much is in the basket."""
    return {"basket": Basket(request)}
