"""System checks of the plugin's aliases: what is likely a slip of the pen."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from django.contrib.auth import get_user_model
from django.core.checks import CheckMessage
from django.core.checks import Warning as Caution

from pluginhost.builtin.consent.cookie import PURPOSE
from pluginhost.options import did_you_mean, listing
from pluginhost.registry import load_registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pluginhost.builtin.consent.plugin import Consent


def check_alias(plugin: Consent) -> list[CheckMessage]:
    return [*_purposes(plugin), *_unwritable(plugin), *_attribute(plugin)]


def _purposes_in_use() -> dict[str, str]:
    """Purpose -> an alias that has it, of those that receive events or add to pages."""
    return {
        loaded.plugin.purpose: alias
        for alias, loaded in load_registry().plugins.items()
        if loaded.delivery_hook or "render_client" in loaded.hooks
    }


def _purposes(plugin: Consent) -> Iterator[CheckMessage]:
    used = _purposes_in_use()
    defaults = type(plugin).Options()
    for option in ("NECESSARY", "DEFAULT", "GPC", "DNT"):
        written = (getattr(plugin.options, option) or frozenset()) - (getattr(defaults, option) | defaults.NECESSARY)
        for purpose in sorted(written - used.keys()):
            yield Caution(
                f"plugin {plugin.alias}: {option} names the purpose {purpose!r}, which no enabled plugin has.",
                hint=f"{did_you_mean(purpose, used)}There are: {listing(sorted(used))}.",
                id="pluginhost.W011",
            )


def _unwritable(plugin: Consent) -> Iterator[CheckMessage]:
    if plugin.options.COOKIE is None:
        return
    for purpose, alias in _purposes_in_use().items():
        if purpose not in plugin.options.NECESSARY and not PURPOSE.fullmatch(purpose):
            yield Caution(
                f"plugin {plugin.alias}: nobody can agree to the purpose {purpose!r} of plugin {alias} in a cookie.",
                hint="Set its PURPOSE to at most 32 small letters, digits, _ and -, with a letter first.",
                id="pluginhost.W012",
            )


def _attribute(plugin: Consent) -> Iterator[CheckMessage]:
    name = plugin.options.OPT_OUT
    model = get_user_model()
    if name is None or not name.isidentifier() or inspect.getattr_static(model, name, None) is not None:
        return
    fields = [field.name for field in model._meta.get_fields()]
    yield Caution(
        f"plugin {plugin.alias}: OPT_OUT is {name!r}, and {model._meta.label} has no such attribute.",
        hint=f"{did_you_mean(name, fields)}If your code sets it on single users, silence this check.",
        id="pluginhost.W013",
    )
