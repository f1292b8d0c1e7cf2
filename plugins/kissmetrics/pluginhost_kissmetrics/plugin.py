"""The plugin ``kissmetrics``: hooks, on top of options, payload, client and snippet."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from django.core.checks import CheckMessage, Error

import pluginhost
from pluginhost import CookieIds, hookimpl
from pluginhost.events import sample_event
from pluginhost.html import SIGNED_OUT_COOKIE
from pluginhost_kissmetrics import identity, payload, snippet
from pluginhost_kissmetrics.options import Options as KissmetricsOptions
from pluginhost_kissmetrics.seconds import Seconds

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.utils.safestring import SafeString

    from pluginhost import Event, Page, Person
    from pluginhost.events import EventType
    from pluginhost.http import Client


# Whatever sends is imported where that begins, as requests takes long to import and only a worker needs it. That it is
# missing is said at the start of every process.
if find_spec("requests") is None:
    raise ModuleNotFoundError("No module named 'requests'", name="requests")


class Kissmetrics(pluginhost.Plugin):
    """Records events, sets properties and makes ids one person; names the visitor in the browser."""

    Options = KissmetricsOptions

    options: KissmetricsOptions
    purpose = "marketing"
    needs_identity: ClassVar[bool] = True
    event_types: frozenset[EventType] = frozenset({"track", "identify", "alias"})
    event_options: ClassVar[frozenset[str]] = frozenset({"value_as"})
    dedupes: ClassVar[bool] = True

    _client: Client | None = None

    def __init__(self, alias: str, options: KissmetricsOptions, lane: Any = None) -> None:
        super().__init__(alias, options, lane)
        self.announces_identity = options.IDENTIFY
        if options.PAGE_EVENT is not None:
            self.event_types = self.event_types | {"page"}
        self._seconds = Seconds()

    def check(self) -> list[CheckMessage]:
        waits = self.options.CONNECT_TIMEOUT + self.options.READ_TIMEOUT
        if waits < self.timeout:
            return []
        return [
            Error(
                f"plugin {self.alias}: CONNECT_TIMEOUT and READ_TIMEOUT are {waits:g} s together,"
                f" not below the lane's TIMEOUT of {self.timeout:g} s.",
                hint="Lower them, or raise TIMEOUT: together they bound a call, and one that takes longer than TIMEOUT"
                " ends its worker.",
                id="pluginhost_kissmetrics.E001",
            )
        ]

    def setup(self) -> None:
        from pluginhost_kissmetrics import client

        self._client = client.connect(self.concurrency)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def cookie_ids(self, request: HttpRequest) -> CookieIds | None:
        return None if _may_be_another(request) else identity.cookie_ids(request.COOKIES)

    def wants(self, event: Event) -> bool:
        return event.type == "alias" or identity.person(event, self.alias) is not None

    @hookimpl
    def on_event(self, event: Event) -> None:
        from pluginhost_kissmetrics import client

        assert self._client is not None
        options = self.options
        call = payload.call(event, self.alias, page_event=options.PAGE_EVENT, value_property=options.VALUE_PROPERTY)
        second = self._seconds.take(event.message_id, call.person, call.path + call.name, payload.moment(event))
        client.send(
            self._client,
            options.TRACKING_URL + call.path,
            payload.parameters(call, options.API_KEY.reveal(), second),
            (options.CONNECT_TIMEOUT, options.READ_TIMEOUT),
        )

    def send_test(self) -> str:
        event = sample_event()
        self.on_event(event)
        return (
            f"KISSmetrics answered. It answers the same to everything, even to a wrong API_KEY: look in its reports for"
            f" the event {event.name!r} of the person {event.anonymous_id!r}. That may take half an hour."
        )

    def forget(self, person: Person) -> str:
        """KISSmetrics deletes people only by hand (support.kissmetrics.io, "GDPR Compliance")."""
        ids = [
            identity.plain(id_)
            for given in (*person.user_ids, *person.anonymous_ids)
            if (id_ := identity.usable(given))
        ]
        raise NotImplementedError(
            "KISSmetrics has no interface for this. Log in there and search for a person by each of"
            f" {', '.join(map(repr, ids)) or 'nobody'}; on the page of the person's details, press Delete Person."
        )

    @hookimpl
    def render_client(self, page: Page) -> SafeString | None:
        return snippet.render(page, self.alias, self.options)


def _may_be_another(request: HttpRequest) -> bool:
    """Whether somebody has signed out here, and the browser still knows a name.

    On the next page the snippet lets KISSmetrics' script forget; until then, or if it
    never runs, name and anonymous id are those of the one who left.
    """
    return SIGNED_OUT_COOKIE in request.COOKIES and identity.NAMED_COOKIE in request.COOKIES
