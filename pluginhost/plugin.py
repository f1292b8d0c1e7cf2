"""What a plugin's author subclasses: ``Plugin``, its ``Options``, and ``Secret``."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec

from pluginhost.events import Batch, sample_event

if TYPE_CHECKING:
    from django.core.checks import CheckMessage
    from django.http import HttpRequest

    from pluginhost.events import Event, EventType


class Secret:
    """An option's value that no ``repr``, log line, page or error shows. ``reveal()`` gives the text."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError("expected `str`")
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "'********'" if self._text else "''"

    def __str__(self) -> str:
        return "********" if self._text else ""

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a Secret is not pickled")


class Options(msgspec.Struct):
    """Base of a plugin's options: one annotated field an option, in capitals.

    A field without a default is required. Constraints are msgspec's
    (``Annotated[str, msgspec.Meta(pattern=...)]``); what concerns several options
    goes into ``__post_init__``, which raises ``ValueError``.
    """


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """Whom ``Plugin.forget`` is about: every id that is known to be this one person's."""

    user_ids: tuple[str, ...] = ()
    anonymous_ids: tuple[str, ...] = ()


class LaneOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options that every alias accepts beside those of its plugin."""

    PLUGIN: str | None = None
    """The name of the plugin, when the alias is another word."""
    PURPOSE: str | None = None
    """Replaces the purpose that the plugin declares."""
    BATCH_SIZE: int | None = None
    """Events a batch, at most; replaces the plugin's own."""
    TIMEOUT: float | None = None
    """Seconds that one call of a hook may take; replaces the plugin's own."""
    CONCURRENCY: int | None = None
    """Batches at a time in one worker process; above 1 the order is lost."""
    MAX_ATTEMPTS: int = 100
    """After so many failed attempts an event becomes a dead letter."""
    RETRY_DELAY: float = 5.0
    """Seconds before the second attempt; doubled for each one after it."""
    RETRY_MAX_DELAY: float = 600.0
    """Seconds between two attempts, at most."""
    ON_UNCERTAIN: Literal["resend", "dead"] = "resend"
    """What becomes of an event whose answer never came, if the receiver cannot tell two from one."""
    RATE_LIMIT: float | None = None
    """Events a second that one worker process hands over, at most."""
    BACKLOG_LIMIT: int | None = None
    """Events that may wait; what is accepted beyond is discarded, and a signal says so."""
    CELERY_QUEUE: str | None = None
    """The Celery queue of this lane's tasks, with ``"WORKER": "celery"``. None: Celery's own routing."""

    def __post_init__(self) -> None:
        for name in (
            "BATCH_SIZE",
            "TIMEOUT",
            "CONCURRENCY",
            "MAX_ATTEMPTS",
            "RETRY_DELAY",
            "RETRY_MAX_DELAY",
            "RATE_LIMIT",
            "BACKLOG_LIMIT",
        ):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is {value!r}; it must be above 0")


class CookieIds(msgspec.Struct, frozen=True):
    """The ids that the cookies of a provider give a browser."""

    anonymous: str | None = None
    """An event takes it over as its ``anonymous_id`` where neither the caller nor the host's own cookie gives one."""
    visitor: str | None = None
    """What ``event.visitor_ids`` holds for the alias: whom the provider's script takes the browser for."""


class Plugin:
    """One enabled alias of one installed plugin. Subclass it, and implement hooks with ``@hookimpl``.

    The host makes the object when it first needs it, from validated options. It
    may be made before a fork: open connections in ``setup``, never in ``__init__``.
    """

    Options: ClassVar[type[Options]] = Options
    """The plugin's own options, a subclass of ``pluginhost.Options``."""
    purpose: str = "analytics"
    """What the data is for; a filter lets through purposes, not names."""
    personal_data: bool = True
    """Whether what is delivered may name or describe a person."""
    needs_identity: ClassVar[bool] = False
    """Events without a person are skipped."""
    event_types: frozenset[EventType] = frozenset({"track", "page"})
    """The types of event that this plugin is for."""
    event_options: ClassVar[frozenset[str]] = frozenset()
    """What a caller may tune for one event: ``plugins={alias: {option: value}}``."""
    dedupes: ClassVar[bool] = False
    """The receiver recognises a repeated ``message_id``, so that sending twice has one effect."""
    batch_size: int | None = None
    """Events a batch. None: 500 for ``aggregate``; for ``on_event`` 100, or 1 if the receiver does not dedupe."""
    timeout: float = 30.0
    """Seconds that one call of a hook may take. Keep every wait in the plugin below it."""
    concurrency: int = 1
    """Batches at a time in one worker process."""
    requires_host: ClassVar[str] = "0.1"
    """The oldest version of the host that this plugin works with."""
    django_app: ClassVar[str | None] = None
    """The line that INSTALLED_APPS needs, for plugins with models."""
    announces_identity: bool = False
    """The snippet names the visitor: the host then finds out the user of a page, and varies it by Cookie."""
    varies_on: frozenset[str] = frozenset({"Cookie"})
    """The request's headers that ``filter_request`` looks at. Caches keep pages with snippets apart by them."""
    unread: frozenset[str] = frozenset()
    """Of ``properties`` and ``context``, what neither the delivery hook nor ``wants`` nor ``screen`` looks at.

    Workers leave it empty: to read it takes longer than to read all the rest.
    """

    def __init__(self, alias: str, options: Any, lane: LaneOptions | None = None) -> None:
        self.alias = alias
        self.options = options
        self.lane = lane or LaneOptions()
        self.purpose = self.lane.PURPOSE or self.purpose
        self.batch_size = self.lane.BATCH_SIZE or self.batch_size
        self.timeout = self.lane.TIMEOUT or self.timeout
        self.concurrency = self.lane.CONCURRENCY or self.concurrency

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.alias!r}>"

    def check(self) -> list[CheckMessage]:
        """System checks of this alias. Called by ``manage.py check``; must not touch the network."""
        return []

    def setup(self) -> None:
        """Open what delivering needs. Called once a process, before its first batch.

        With ``concurrency`` above 1, several threads share the object.
        """

    def close(self) -> None:
        """Close what ``setup`` opened. Called when the worker ends."""

    def cookie_ids(self, request: HttpRequest) -> CookieIds | None:  # noqa: ARG002
        """What the provider's own cookies say of the browser, or None. Asked once a request.

        Cookies are the visitor's to write: check what they say.
        """
        return None

    def screen(self, event: Event) -> bool:  # noqa: ARG002
        """Whether any plugin may have this event. Asked in the worker, before each lane delivers.

        For filters that need more than a request, such as a list in the database.
        What is screened out counts as skipped. One that raises has no opinion.
        """
        return True

    def send_test(self) -> str:
        """Deliver one event at once, and say in a sentence or two what the answer means.

        Called by ``manage.py pluginhost send-test ALIAS``, after ``setup``. Raises the
        delivery errors, which the command explains.
        """
        event = sample_event()
        if callable(on_event := getattr(self, "on_event", None)):
            on_event(event)
        else:
            self.aggregate(Batch([event]))  # type: ignore[attr-defined]
        return "The plugin took the event."

    def explain(self, message_id: str) -> str | None:  # noqa: ARG002
        """What the receiver has under this message id, in a sentence; None if it has nothing, or can't be asked.

        Called by ``manage.py pluginhost explain MESSAGE_ID``, after ``setup``.
        """
        return None

    def forget(self, person: Person) -> str:
        """Delete what the receiver knows of a person, and say in a sentence what was done.

        Called by ``manage.py pluginhost forget``, after ``setup``, when nothing of the
        person is on its way any more. Raises ``NotImplementedError`` where that has to
        be done by hand, with a sentence that says how; the delivery errors where it failed.
        """
        raise NotImplementedError("This plugin can't: ask the receiver to delete what it knows of the person.")

    def wants(self, event: Event) -> bool:
        """Whether the lane hands this event over; what it does not want counts as skipped."""
        return not self.needs_identity or bool(event.user_id or event.anonymous_id or event.visitor_ids.get(self.alias))


def reads_cookies(plugin: Plugin) -> bool:
    """Whether the plugin has something to say of a request's cookies."""
    return type(plugin).cookie_ids is not Plugin.cookie_ids


def wants_all(plugin: Plugin) -> bool:
    """Whether the plugin takes every event of its lane."""
    return getattr(plugin.wants, "__func__", None) is Plugin.wants and not plugin.needs_identity


def screens(plugin: Plugin) -> bool:
    """Whether the plugin wants to be asked about the events of all lanes."""
    return type(plugin).screen is not Plugin.screen
