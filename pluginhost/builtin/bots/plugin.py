"""The plugin: its options, and who is a robot."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import msgspec
from django.apps import apps
from django.core.checks import CheckMessage
from django.core.checks import Warning as Caution

import pluginhost
from pluginhost import hookimpl
from pluginhost.builtin.bots.browsers import browser_matched
from pluginhost.builtin.bots.listed import AdminList
from pluginhost.builtin.bots.matching import MAX_USER_AGENT, REMEMBERED, compiled, found

if TYPE_CHECKING:
    from django.http import HttpRequest

    from pluginhost import Event
    from pluginhost.plugin import LaneOptions

# Imported for the first user agent, as it reads all of its patterns. That it is missing is said at the start.
if find_spec("crawleruseragents") is None:
    raise ImportError("the patterns of robots are not installed; run pip install 'pluginhost[bots]'")

APP = "pluginhost.builtin.bots"


class Bots(pluginhost.Plugin):
    """Keeps the requests of robots from being tracked, on the server and in pages."""

    class Options(pluginhost.Options):
        PATTERNS: tuple[str, ...] = ()
        """Regular expressions of the site's own: user agents in which one is found are robots."""
        ALLOWED: tuple[str, ...] = ()
        """Regular expressions of user agents that are no robots, whatever any list says."""
        EMPTY: bool = True
        """Whether a request without a user agent is a robot's."""
        REFRESH: Annotated[float, msgspec.Meta(ge=0)] = 60.0
        """Seconds after which a worker reads the list of the admin again."""

        def __post_init__(self) -> None:
            compiled("PATTERNS", self.PATTERNS)
            compiled("ALLOWED", self.ALLOWED)

    personal_data = False
    varies_on = frozenset({"User-Agent"})
    unread = frozenset({"properties"})

    def __init__(self, alias: str, options: Options, lane: LaneOptions | None = None) -> None:
        super().__init__(alias, options, lane)
        self._patterns = compiled("PATTERNS", options.PATTERNS)
        self._allowed = compiled("ALLOWED", options.ALLOWED)
        self._is_robot = lru_cache(REMEMBERED)(self._judge)
        self._listed = AdminList(alias, options.REFRESH) if apps.is_installed(APP) else None

    def check(self) -> list[CheckMessage]:
        messages: list[CheckMessage] = []
        for expression in self._patterns:
            browser = browser_matched(expression.search)
            if browser is not None:
                messages.append(
                    Caution(
                        f"plugin {self.alias}: {expression.pattern!r} in PATTERNS takes people for robots:"
                        f" {browser}, for one.",
                        hint="Make it longer, or tie it to the beginning with ^.",
                        id="pluginhost.W010",
                    )
                )
        return messages

    @hookimpl
    def filter_request(self, request: HttpRequest | None) -> bool | None:
        """False for a robot. A remembered user agent costs about a microsecond."""
        if request is None:
            return None
        return False if self._is_robot(request.META.get("HTTP_USER_AGENT", "")[:MAX_USER_AGENT]) else None

    def screen(self, event: Event) -> bool:
        """False for an event whose user agent is on the list of the admin."""
        user_agent = event.context.user_agent
        if self._listed is None or user_agent is None:
            return True
        return not self._listed.has(user_agent) or found(self._allowed, user_agent)

    def _judge(self, user_agent: str) -> bool:
        if not user_agent.strip():
            return bool(self.options.EMPTY)
        if found(self._allowed, user_agent):
            return False
        # Each of its patterns is a robot that somebody has seen; guessing by words would take apps for robots too.
        from crawleruseragents import is_crawler  # type: ignore[import-untyped]

        known: bool = is_crawler(user_agent)
        return known or found(self._patterns, user_agent)
