from __future__ import annotations

from django.contrib import admin
from django.contrib.auth import views as auth_views
from django.urls import include, path

from shop.visitors import SignIn

urlpatterns = [
    path("admin/", admin.site.urls),
    path("sign-in/", SignIn.as_view(), name="sign-in"),
    path("sign-out/", auth_views.LogoutView.as_view(), name="sign-out"),
    path("consent/", include("pluginhost.builtin.consent.urls")),
    path("", include("shop.urls")),
]
