from __future__ import annotations

from django.urls import path

from shop import views, visitors

app_name = "shop"
urlpatterns = [
    path("", views.products, name="products"),
    path("products/<slug:slug>/", views.product, name="product"),
    path("search/", views.search, name="search"),
    path("basket/", views.basket, name="basket"),
    path("basket/add/<slug:slug>/", views.add_to_basket, name="add-to-basket"),
    path("basket/remove/<slug:slug>/", views.remove_from_basket, name="remove-from-basket"),
    path("sign-up/", visitors.sign_up, name="sign-up"),
    path("account/", visitors.account, name="account"),
    path("account/tracking/", visitors.opt_out, name="opt-out"),
    path("privacy/", visitors.privacy, name="privacy"),
    path("checkout/", views.checkout, name="checkout"),
    path("orders/<uuid:pk>/", views.order, name="order"),
    path("numbers/", views.numbers, name="numbers"),
    path("about/", views.about, name="about"),
]
