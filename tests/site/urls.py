from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from tests.site import pages, views

urlpatterns = [
    path("", views.home, name="home"),
    path("twice/", views.twice),
    path("tracked/", views.tracked),
    path("order/", views.order, name="order"),
    path("decorated/", views.decorated),
    path("adecorated/", views.adecorated),
    path("seen/", views.Seen.as_view()),
    path("method/", views.Method.as_view()),
    path("aseen/", views.AsyncSeen.as_view()),
    path("atracked/", views.atracked),
    path("sign-in/", views.sign_in),
    path("who/", views.who),
    path("streamed/", views.streamed),
    path("page/", views.page),
    path("failing/", views.failing),
    path("ruins/", views.broken_transaction),
    path("reset/<uidb64>/<token>/", views.home, name="password_reset_confirm"),
    path("admin/", admin.site.urls),
    path("pages/", include(pages.urlpatterns)),
]
