from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.contrib.auth import login
from django.db.models import Q
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from pluginhost import host
from pluginhost.decorators import track_event
from shop import orders
from shop.basket import Basket
from shop.forms import OrderForm, QuantityForm, SearchForm, SignUpForm
from shop.models import Order, Product
from shop.numbers import numbers_by_product

if TYPE_CHECKING:
    from uuid import UUID

    from django.http import HttpRequest, HttpResponse


def products(request: HttpRequest) -> HttpResponse:
    return render(request, "shop/products.html", {"products": Product.objects.all()})


def product(request: HttpRequest, slug: str) -> HttpResponse:
    found = get_object_or_404(Product, slug=slug)
    host.track(request, "product viewed", {"slug": found.slug, "price": found.price}, subject=found)
    others = Product.objects.exclude(pk=found.pk).order_by("?")[:4]
    return render(request, "shop/product.html", {"product": found, "form": QuantityForm(), "others": others})


def _query(request: HttpRequest, response: HttpResponse | None = None) -> dict[str, Any]:  # noqa: ARG001
    form = SearchForm(request.GET)
    return {"query": form.cleaned_data["q"] if form.is_valid() else ""}


@track_event("searched", _query)
def search(request: HttpRequest) -> HttpResponse:
    query = _query(request)["query"]
    words = Q(name__icontains=query) | Q(tagline__icontains=query) | Q(description__icontains=query)
    return render(request, "shop/search.html", {"query": query, "products": Product.objects.filter(words)})


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
    Basket(request).add(found, quantity)
    host.track(request, "added to basket", {"price": found.price}, subject=found, value=quantity)
    messages.success(request, f"{found.name} is in your basket.")
    return redirect("shop:basket")


@require_POST
def remove_from_basket(request: HttpRequest, slug: str) -> HttpResponse:
    found = get_object_or_404(Product, slug=slug)
    if Basket(request).remove(found):
        host.track(request, "removed from basket", subject=found)
    return redirect("shop:basket")


def sign_up(request: HttpRequest) -> HttpResponse:
    form = SignUpForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        user = form.save()
        login(request, user)
        host.identify(request, {"username": user.username, "email": user.email})
        host.track(request, "signed up", {"newsletter": form.cleaned_data["newsletter"]})
        messages.success(request, f"Welcome, {user.username}!")
        return redirect("shop:basket" if Basket(request) else "shop:products")
    return render(request, "shop/sign_up.html", {"form": form})


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
        return redirect(placed)
    return render(request, "shop/checkout.html", {"form": form})


def order(request: HttpRequest, pk: UUID) -> HttpResponse:
    found = get_object_or_404(Order.objects.prefetch_related("lines__product"), pk=pk)
    return render(request, "shop/order.html", {"order": found})


def numbers(request: HttpRequest) -> HttpResponse:
    return render(request, "shop/numbers.html", {"rows": numbers_by_product()})


def about(request: HttpRequest) -> HttpResponse:
    return render(request, "shop/about.html")
