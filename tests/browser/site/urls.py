from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from django.views.decorators.cache import cache_page

from tests.browser.site import views


def icon(request: HttpRequest) -> HttpResponse:
    return HttpResponse(status=204)


urlpatterns = [
    path("page/", views.page),
    path("page/<name>/", views.page),
    path("kept/<name>/", cache_page(600)(views.page)),
    path("act/", views.act),
    path("in/<name>/", views.sign_in),
    path("out/", views.sign_out),
    path("plain/", views.plain),
    path("choose/", views.choose),
    path("consent/", include("pluginhost.builtin.consent.urls")),
    path("received/", views.receive),
    path("favicon.ico", icon),
    path("admin/", admin.site.urls),
]
