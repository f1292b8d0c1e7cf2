from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.db.models import Q
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from pluginhost import host
from pluginhost.decorators import track_event
from shop import orders
from shop.basket import Basket
from shop.forms import OrderForm, QuantityForm, SearchForm
from shop.models import Order, Product
from shop.numbers import numbers_by_product

if TYPE_CHECKING:
    from uuid import UUID

    from django.http import HttpRequest, HttpResponse


def products(request: HttpRequest) -> HttpResponse:
    return render(request, "shop/products.html", {"products": Product.objects.all()})


def product(request: HttpRequest, slug: str) -> HttpResponse:
    found = get_object_or_404(Product, slug=slug)
    host.track(
        request,
        "product viewed",
        {"slug": found.slug, "price": found.price},
        subject=found,
        plugins={"piwik": {"category": "Shop", "label": found.slug}},
    )
    others = Product.objects.exclude(pk=found.pk).order_by("?")[:4]
    return render(request, "shop/product.html", {"product": found, "form": QuantityForm(), "others": others})


def search(request: HttpRequest) -> HttpResponse:
    form = SearchForm(request.GET)
    if not form.is_valid():
        beginning = request.GET["q"].replace("\0", "")[:80]  # for the box, to go on from
        return render(request, "shop/search.html", {"query": beginning, "problem": form.errors["q"][0]})
    query = form.cleaned_data["q"]
    words = Q(name__icontains=query) | Q(tagline__icontains=query) | Q(description__icontains=query)
    found = list(Product.objects.filter(words))
    if query:
        site_search = {"keyword": query, "count": len(found)}
        host.track(request, "searched", {"query": query}, value=len(found), plugins={"piwik": {"search": site_search}})
    return render(request, "shop/search.html", {"query": query, "products": found})


def basket(request: HttpRequest) -> HttpResponse:
    return render(request, "shop/basket.html")


@require_POST
def add_to_basket(request: HttpRequest, slug: str) -> HttpResponse:
    found = get_object_or_404(Product, slug=slug)
    form = QuantityForm(request.POST)
    if not form.is_valid():
        messages.error(request, "How many would you like?")
        return redirect(found)
    quantity = form.cleaned_data["quantity"]
    filled = Basket(request)
    filled.add(found, quantity)
    host.track(
        request,
        "added to basket",
        {"price": found.price},
        subject=found,
        value=quantity,
        plugins={"piwik": {"cart": _cart(filled)}},
    )
    messages.success(request, f"{found.name} is in your basket.")
    return redirect("shop:basket")


@require_POST
def remove_from_basket(request: HttpRequest, slug: str) -> HttpResponse:
    found = get_object_or_404(Product, slug=slug)
    left = Basket(request)
    if left.remove(found):
        host.track(request, "removed from basket", subject=found, plugins={"piwik": {"cart": _cart(left)}})
    return redirect("shop:basket")


def _cart(basket: Basket) -> dict[str, Any]:
    """The basket as Matomo wants it: all of it, each time."""
    items = [orders.item(line.product, line.quantity, line.product.price) for line in basket]
    return {"items": items, "revenue": basket.total}


def checkout(request: HttpRequest) -> HttpResponse:
    wanted = Basket(request)
    if not wanted:
        return redirect("shop:basket")
    known = {"name": request.user.username, "email": request.user.email} if request.user.is_authenticated else {}
    form = OrderForm(request.POST or None, initial=known)
    if request.method == "POST" and form.is_valid():
        try:
            placed = orders.place(request, wanted, **form.cleaned_data)
        except orders.PaymentRefused as refusal:
            return render(request, "shop/payment_refused.html", {"order": refusal.order}, status=402)
        wanted.clear()
        host.track_client(request, "saw the thanks", {"total": placed.total}, value=placed.total)
        return redirect(placed)
    return render(request, "shop/checkout.html", {"form": form})


def order(request: HttpRequest, pk: UUID) -> HttpResponse:
    found = get_object_or_404(Order.objects.prefetch_related("lines__product"), pk=pk)
    return render(request, "shop/order.html", {"order": found})


def numbers(request: HttpRequest) -> HttpResponse:
    return render(request, "shop/numbers.html", {"rows": numbers_by_product()})


@track_event("read about the shop")
def about(request: HttpRequest) -> HttpResponse:
    return render(request, "shop/about.html")
