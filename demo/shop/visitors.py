"""Signing up, in and out, and the page on which a user sees what the shop knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import LoginView
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from pluginhost import host
from pluginhost.builtin.consent import granted
from shop.basket import Basket
from shop.forms import SignUpForm
from shop.models import OptOut
from shop.privacy import ASKED, has_opted_out, sends_gpc

if TYPE_CHECKING:
    from django.contrib.auth.forms import AuthenticationForm
    from django.http import HttpRequest, HttpResponse


def sign_up(request: HttpRequest) -> HttpResponse:
    if request.user.is_authenticated:
        return redirect("shop:account")
    form = SignUpForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        user = form.save()
        login(request, user)
        with host.batch():
            _tell_who_it_was(request)
            host.identify(request, {"username": user.username, "email": user.email})
            host.track(request, "signed up", {"newsletter": form.cleaned_data["newsletter"]})
        host.track_client(request, "saw the welcome", {"after": "sign-up"})
        messages.success(request, f"Welcome, {user.username}!")
        return redirect("shop:basket" if Basket(request) else "shop:products")
    return render(request, "shop/sign_up.html", {"form": form})


def _tell_who_it_was(request: HttpRequest) -> None:
    """Make the visitor so far and the new user one person.

    At a sign-up, where that is certain: whoever signs in may share the computer with others.
    """
    if anonymous := host.anonymous_id(request):
        host.alias(request, anonymous)


class SignIn(LoginView):
    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        response = super().form_valid(form)
        host.track(self.request, "signed in")
        host.track_client(self.request, "saw the welcome", {"after": "sign-in"})
        return response


@login_required
def account(request: HttpRequest) -> HttpResponse:
    orders = request.user.orders.prefetch_related("lines")
    return render(request, "shop/account.html", {"orders": orders, "opted_out": has_opted_out(request.user)})


@login_required
@require_POST
def opt_out(request: HttpRequest) -> HttpResponse:
    """Turn all tracking of this user off, or on again."""
    if request.POST.get("tracked"):
        OptOut.objects.filter(user=request.user).delete()
        messages.success(request, "You are tracked again, as far as you have agreed to it.")
    else:
        OptOut.objects.get_or_create(user=request.user)
        messages.success(request, "From now on nothing is tracked of what you do here.")
    return redirect("shop:account")


def privacy(request: HttpRequest) -> HttpResponse:
    """The page on which a visitor chooses, also one who has chosen already."""
    agreed = granted(request) or frozenset()
    purposes = [(purpose, purpose.name in agreed) for purpose in ASKED]
    return render(request, "shop/privacy.html", {"purposes": purposes, "gpc": sends_gpc(request)})
