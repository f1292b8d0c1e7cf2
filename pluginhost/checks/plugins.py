"""The setting, each plugin in it, and what each plugin checks itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.checks import CheckMessage, Error, register

from pluginhost.exceptions import ConfigurationError
from pluginhost.options import redacted
from pluginhost.registry import load_registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.apps import AppConfig

    from pluginhost.plugin import Plugin


@register("pluginhost")
def check_plugins(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:  # noqa: ARG001
    """The setting, each plugin in it, and what each plugin checks itself."""
    try:
        registry = load_registry()
    except ConfigurationError as error:
        return [_message(error)]
    messages: list[CheckMessage] = [_message(error) for error in registry.errors]
    for alias, loaded in registry.plugins.items():
        try:
            messages += _own_messages(loaded.plugin)
        except Exception as error:
            problem = redacted(f"{type(error).__name__}: {error}", loaded.plugin.options)
            messages.append(
                Error(
                    f"plugin {alias}: check() failed: {problem}.",
                    hint="This is a bug of the plugin; a check returns a list of messages.",
                    id="pluginhost.E009",
                )
            )
    return messages


def _own_messages(plugin: Plugin) -> list[CheckMessage]:
    messages = plugin.check()
    for message in messages:
        if not isinstance(message, CheckMessage):
            raise TypeError(f"a {type(message).__name__} is no CheckMessage")
    return messages


def _message(error: ConfigurationError) -> Error:
    return Error(error.message, hint=error.hint, id=error.id)
