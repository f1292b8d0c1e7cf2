"""A site whose paths begin with a language, and are translated."""

from __future__ import annotations

from django.conf.urls.i18n import i18n_patterns
from django.urls import include, path, re_path
from django.utils.translation import gettext_lazy

from tests.site import views

urlpatterns = [
    *i18n_patterns(
        path("invited/<token>/", views.home),
        path("zurücksetzen/<uidb64>/<token>/", views.home),
        re_path(r"^code/(?P<code>\d+)$", views.home),
        prefix_default_language=False,
    ),
    # Django's own German catalogue calls it "Montag".
    path(gettext_lazy("Monday"), include([path("/<token>/", views.home)])),
]
