"""Calls each plugin's implementation of a hook on its own, so that a failure stays where it happened.

pluggy's own call stops at the first exception, drops None and forgets which
plugin said what; this loop over the public ``get_hookimpls()`` does none of it.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from pluginhost.db import harmless
from pluginhost.options import redacted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pluggy

    from pluginhost.plugin import Plugin

logger = logging.getLogger("pluginhost.dispatch")

#: The alias whose hook runs in this thread, if one does.
_hook: ContextVar[str | None] = ContextVar("pluginhost_hook", default=None)


class Answer(NamedTuple):
    """What one plugin said."""

    alias: str
    value: Any


class Implementation(NamedTuple):
    """One plugin's implementation of one hook, with the names of the arguments that it wants."""

    alias: str
    function: Callable[..., Any]
    argnames: tuple[str, ...]
    plugin: Plugin

    def __call__(self, **arguments: Any) -> Any:
        return self.function(*map(arguments.__getitem__, self.argnames))


class inside:  # noqa: N801 - a context manager, as those of contextlib
    """What runs here is a hook of this alias, and may not track."""

    __slots__ = ("_alias", "_token")

    def __init__(self, alias: str) -> None:
        self._alias = alias

    def __enter__(self) -> None:
        self._token = _hook.set(self._alias)

    def __exit__(self, *error: object) -> None:
        _hook.reset(self._token)


def inside_hook() -> str | None:
    """The alias whose hook called us, or None."""
    return _hook.get()


def in_event_loop() -> bool:
    """Whether this thread runs an event loop, so that it must not touch the database."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def implementations(manager: pluggy.PluginManager, hook: str) -> tuple[Implementation, ...]:
    """The implementations of ``hook``, in the order of the setting.

    Plugins are registered in reverse, because pluggy calls the last one first;
    its list is in the order of registration.
    """
    found = getattr(manager.hook, hook).get_hookimpls()
    return tuple(Implementation(i.plugin_name, i.function, tuple(i.argnames), i.plugin) for i in reversed(found))


def ask(hook: str, implementations: tuple[Implementation, ...], **arguments: Any) -> Iterator[Answer]:
    """Call every implementation; one that raises is logged with its alias, and the others go on."""
    given = arguments.__getitem__
    for implementation in implementations:
        token = _hook.set(implementation.alias)
        try:
            with harmless():
                value = implementation.function(*map(given, implementation.argnames))
        except Exception as error:
            _log(implementation, hook, error)
            continue
        finally:
            _hook.reset(token)
        yield Answer(implementation.alias, value)


def _log(implementation: Implementation, hook: str, error: Exception) -> None:
    """Log with the traceback, as text if that shows a secret of the plugin's options."""
    lines = "".join(traceback.format_exception(error))
    shown = redacted(lines, implementation.plugin.options)
    if shown == lines:
        logger.error("plugin %s: %s failed", implementation.alias, hook, exc_info=error)
    else:
        logger.error("plugin %s: %s failed\n%s", implementation.alias, hook, shown)
