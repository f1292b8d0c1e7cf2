"""What the pages have in common: they are read-only, strict about who sees them, and in the events' database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin
from django.contrib.admin.utils import quote
from django.contrib.auth import get_permission_codename
from django.template.response import TemplateResponse
from django.urls import reverse

from pluginhost.api import host

if TYPE_CHECKING:
    from django.db import models
    from django.db.models import QuerySet
    from django.http import HttpRequest

    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin


def may(request: HttpRequest, action: str, model: type[models.Model]) -> bool:
    """Whether the user has the model's permission ``view``, ``change`` or ``delete``."""
    return request.user.has_perm(f"pluginhost.{get_permission_codename(action, model._meta)}")


class OutboxAdmin(ModelAdmin):
    """Rows are looked at, never edited; what may be done to them are operations with permissions of their own."""

    class Media:
        css: ClassVar[dict[str, list[str]]] = {"all": ["pluginhost/admin.css"]}

    def has_view_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:  # noqa: ARG002
        """Unlike Django's own, without the permission to change: rows hold personal data."""
        return may(request, "view", self.model)

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:  # noqa: ARG002
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:  # noqa: ARG002
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).using(host.database())

    def address(self, model: type[models.Model], page: str, *args: Any) -> str:
        """The path of a model's page in this admin: ``changelist``, or ``change`` with a primary key."""
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}"
        return reverse(name, args=[quote(arg) for arg in args], current_app=self.admin_site.name)

    def shows(self, request: HttpRequest, model: type[models.Model]) -> bool:
        """Whether this admin has pages of the model, and the user may see them."""
        if not self.admin_site.is_registered(model):
            return False
        return self.admin_site.get_model_admin(model).has_view_permission(request)

    def page(self, request: HttpRequest, template: str, **context: Any) -> TemplateResponse:
        """A page of ours within this admin."""
        request.current_app = self.admin_site.name
        common = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "subtitle": None,
            "has_view_permission": True,
        }
        return TemplateResponse(request, f"admin/pluginhost/{template}", {**common, **context})
