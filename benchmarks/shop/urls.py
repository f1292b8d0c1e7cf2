"""The pages: one without tracking, and one for each way to track."""

from __future__ import annotations

from django.urls import path

from benchmarks.shop import views

urlpatterns = [
    path("orders/<int:number>/paid/", views.plain, name="paid"),
    path("plain/<int:number>/", views.plain),
    path("host/<int:number>/", views.with_host),
    path("insert/<int:number>/", views.with_insert),
    path("segment/<int:number>/", views.with_segment),
    path("celery/<int:number>/", views.with_celery),
]
