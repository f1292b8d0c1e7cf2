"""Which data models count for which parents: the registry, used like that of the Django admin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured

from pluginhost_timeseries.models import TrackableData

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin
    from django.db.models import Model

    AdminClass = type[ModelAdmin[Any]]


class AlreadyRegistered(Exception):
    """This data model is registered for this parent already."""


class NotRegistered(Exception):
    """There is nothing registered that could be unregistered."""


class TrackableSite:
    """Parents and their data models. A proxy model stands for its concrete model."""

    def __init__(self) -> None:
        # Flat, with this name: Django's autodiscovery copies it, to take back what a broken module registered.
        self._registry: dict[tuple[type[Model], type[TrackableData]], AdminClass | None] = {}

    def register(
        self, model: type[Model], data_model: type[TrackableData], admin_class: AdminClass | None = None
    ) -> None:
        """Count events about instances of ``model`` in ``data_model``, which is shown with ``admin_class``.

        Without ``admin_class``, the admin shows a plain read-only list. Raises
        ``AlreadyRegistered``, and ``ImproperlyConfigured`` for a class that has no table or does not
        inherit from ``TrackableData``.
        """
        if not issubclass(data_model, TrackableData):
            raise ImproperlyConfigured(f"{data_model.__name__} does not inherit from TrackableData.")
        for each in (model, data_model):
            if each._meta.abstract:
                raise ImproperlyConfigured(f"{each.__name__} is abstract, so it cannot be registered.")
        pair = (_concrete(model), data_model)
        if pair in self._registry:
            raise AlreadyRegistered(f"{data_model._meta.label} is already registered for {model._meta.label}.")
        self._registry[pair] = admin_class
        # Before that, the admin's own registrations come first; AppConfig.ready() adds these.
        if apps.ready and apps.is_installed("django.contrib.admin"):
            from pluginhost_timeseries.admin import show

            show(data_model, admin_class)

    def unregister(self, model: type[Model], data_model: type[TrackableData] | None = None) -> None:
        """Count no more for ``model``, or no more in this one ``data_model``. Raises ``NotRegistered``."""
        found = [data_model] if data_model else self.data_models(model)
        pairs = [(_concrete(model), each) for each in found]
        if not pairs or not all(pair in self._registry for pair in pairs):
            what = f"{data_model._meta.label} is not" if data_model else "No data model is"
            raise NotRegistered(f"{what} registered for {model._meta.label}.")
        for pair in pairs:
            del self._registry[pair]
        if apps.is_installed("django.contrib.admin"):
            from pluginhost_timeseries.admin import hide

            left = self.admin_classes()
            for each in found:
                if each not in left:
                    hide(each)

    def is_registered(self, model: type[Model], data_model: type[TrackableData]) -> bool:
        return (_concrete(model), data_model) in self._registry

    def data_models(self, model: type[Model]) -> list[type[TrackableData]]:
        """The data models of a parent, by label."""
        found = [data_model for parent, data_model in self._registry if parent is _concrete(model)]
        return sorted(found, key=lambda data_model: data_model._meta.label)

    def admin_classes(self) -> dict[type[TrackableData], AdminClass | None]:
        """Every data model with its admin class: the first that was given for it."""
        classes: dict[type[TrackableData], AdminClass | None] = {}
        for (_parent, data_model), admin_class in self._registry.items():
            classes[data_model] = classes.get(data_model) or admin_class
        return classes


def _concrete(model: type[Model]) -> type[Model]:
    return model._meta.concrete_model or model


site = TrackableSite()
