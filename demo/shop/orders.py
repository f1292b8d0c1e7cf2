"""How an order is placed: rows and events in one transaction, so that both exist or neither does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import transaction

from pluginhost import host
from shop.models import Order, OrderLine

if TYPE_CHECKING:
    from decimal import Decimal

    from django.http import HttpRequest

    from shop.basket import Basket
    from shop.models import Product

#: The voucher with which each payment fails.
BROKEN = "BROKEN"


class PaymentRefused(Exception):
    def __init__(self, order: Order) -> None:
        super().__init__(f"the payment of order {order.pk} was refused")
        self.order = order


def place(request: HttpRequest, basket: Basket, *, name: str, email: str, voucher: str) -> Order:
    """Store the order, track it and take the money. Raises ``PaymentRefused``, and then nothing has happened."""
    with transaction.atomic():
        order = Order.objects.create(
            customer=request.user if request.user.is_authenticated else None,
            name=name,
            email=email,
            voucher=voucher,
            total=basket.total,
        )
        lines = [
            OrderLine(order=order, product=product, quantity=quantity, price=product.price)
            for product, quantity in basket
        ]
        OrderLine.objects.bulk_create(lines)
        _track(request, order, lines)
        _charge(order)
    return order


def _track(request: HttpRequest, order: Order, lines: list[OrderLine]) -> None:
    with host.batch():  # many events, one INSERT
        host.track(
            request,
            "order paid",
            {
                "order": order.pk,
                "items": sum(line.quantity for line in lines),
                "voucher": order.voucher,
                "currency": "EUR",
            },
            key=f"order:{order.pk}",
            subject=order,
            value=order.total,
            plugins={
                "kissmetrics": {"value_as": "Billing Amount"},
                "piwik": {
                    "order": {
                        "id": str(order.pk),
                        "items": [item(line.product, line.quantity, line.price) for line in lines],
                    }
                },
            },
        )
        for line in lines:
            host.track(
                request,
                "product sold",
                {"order": order.pk, "price": line.price},
                key=f"order:{order.pk}:{line.product.slug}",
                subject=line.product,
                value=line.quantity,
                plugins={"piwik": False},  # the order has told it
            )


def item(product: Product, quantity: int, price: Decimal) -> dict[str, Any]:
    """A row of an order or a basket, in the words of the plugin ``piwik``."""
    return {
        "sku": product.slug,
        "name": product.name,
        "category": product.category,
        "price": price,
        "quantity": quantity,
    }


def _charge(order: Order) -> None:
    """Stands for the payment: it comes last, and takes back all of the above when it fails."""
    if order.voucher.upper() == BROKEN:
        raise PaymentRefused(order)
