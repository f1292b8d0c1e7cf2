"""The plugins in force: loaded once for each value of the setting, and let go when it changes."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from django.apps import apps
from django.core.signals import setting_changed

from pluginhost.conf import Settings, get_settings
from pluginhost.delivery.runner import Runner
from pluginhost.dispatch import Implementation, implementations
from pluginhost.exceptions import ConfigurationError
from pluginhost.loading import Loaded, load
from pluginhost.plugin import reads_cookies, screens

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pluggy

    from pluginhost.plugin import Plugin


class Receivers(NamedTuple):
    """The plugins that are to have an event, and what they mean for it."""

    lanes: tuple[str, ...]
    """Their aliases, in the order of the setting."""
    readers: tuple[Plugin, ...]
    """Those that have something to say of a request's cookies."""
    personal: bool
    """Whether any of them delivers what is about persons. Otherwise there is no reason to mark a browser."""

    @classmethod
    def of(cls, plugins: Iterable[Plugin]) -> Receivers:
        chosen = tuple(plugins)
        return cls(
            tuple(plugin.alias for plugin in chosen),
            tuple(filter(reads_cookies, chosen)),
            any(plugin.personal_data for plugin in chosen),
        )


class Registry(msgspec.Struct, frozen=True, eq=False):
    """What the setting came to: the plugins in order, who implements what, and the errors."""

    manager: pluggy.PluginManager
    plugins: dict[str, Loaded]
    errors: list[ConfigurationError]
    filters: tuple[Implementation, ...]
    renderers: tuple[Implementation, ...]
    runners: dict[str, Runner]
    """The aliases that events are delivered to."""
    filters_ask_about_users: bool = False
    receivers: dict[Any, Receivers] = {}
    """Type of event and purposes that are allowed -> who is to have it, as far as that was asked."""


def build(settings: Settings) -> Registry:
    """Load what the setting enables, and prepare the hooks for their calls."""
    manager, plugins, errors = load(settings.PLUGINS if settings.ENABLED else {})
    if not apps.is_installed("pluginhost"):
        hint = 'Add the line "pluginhost" to INSTALLED_APPS, and run migrate.'
        errors.insert(0, ConfigurationError("INSTALLED_APPS lacks the host.", id="pluginhost.E011", hint=hint))
    screeners = tuple(loaded.plugin for loaded in plugins.values() if screens(loaded.plugin))
    filters = implementations(manager, "filter_request")
    return Registry(
        manager,
        plugins,
        errors,
        filters=filters,
        renderers=implementations(manager, "render_client"),
        runners={alias: Runner(loaded, screeners) for alias, loaded in plugins.items() if loaded.deliver},
        filters_ask_about_users=any("user" in implementation.argnames for implementation in filters),
    )


_lock = threading.RLock()
_current: tuple[Settings, Registry] | None = None


def load_registry(settings: Settings | None = None) -> Registry:
    """The registry of the settings in force; what could not be loaded is in its errors."""
    global _current
    if settings is None:
        settings = get_settings()
    current = _current
    if current is None or current[0] is not settings:
        with _lock:
            current = _current
            if current is None or current[0] is not settings:
                _let_go()
                current = _current = settings, build(settings)
    return current[1]


def get_registry(settings: Settings | None = None) -> Registry:
    """The registry of the settings in force. Raises ``ConfigurationError`` if anything could not be loaded."""
    registry = load_registry(settings)
    errors = registry.errors
    if not errors:
        return registry
    if len(errors) > 1:
        raise ConfigurationError("\n".join(str(error) for error in errors), id=errors[0].id)
    # Raised anew: one object that is raised again and again collects the frames of each time.
    raise ConfigurationError(errors[0].message, id=errors[0].id, hint=errors[0].hint) from errors[0].__cause__


def _let_go(*, setting: str = "PLUGINHOST", **_: object) -> None:
    """Close the plugins of settings that are no longer in force."""
    global _current
    if setting == "PLUGINHOST" and _current is not None:
        runners, _current = _current[1].runners, None
        for runner in runners.values():
            runner.close()


setting_changed.connect(_let_go, dispatch_uid="pluginhost.registry")


def _renew_lock() -> None:
    """In a child: the thread that loaded the plugins at the fork is not there to release it."""
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)
