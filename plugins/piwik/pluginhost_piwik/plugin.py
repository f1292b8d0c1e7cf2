"""The plugin ``piwik``: options and hooks."""

from __future__ import annotations

import datetime as dt
import logging
import re
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

import msgspec
from django.conf import settings
from django.utils.encoding import force_bytes

import pluginhost
from pluginhost import CookieIds, PartialFailure, PermanentError, hookimpl
from pluginhost.events import sample_event
from pluginhost_piwik import payload, snippet, visitors
from pluginhost_piwik.actions import EVENT_OPTIONS, Vocabulary
from pluginhost_piwik.checks import problems
from pluginhost_piwik.refusals import Refusals, Sent
from pluginhost_piwik.sending import Sender

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.core.checks import CheckMessage
    from django.http import HttpRequest
    from django.utils.safestring import SafeString

    from pluginhost import Batch, Event, Page, Person
    from pluginhost_piwik.answers import Answer
    from pluginhost_piwik.client import Client

# Whatever sends is imported where that begins, as requests takes long to import and only a worker needs it. That it is
# missing is said at the start of every process.
if find_spec("requests") is None:
    raise ModuleNotFoundError("No module named 'requests'", name="requests")

logger = logging.getLogger("pluginhost_piwik")

Id = Annotated[int, msgspec.Meta(gt=0)]
FileName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$")]
Seconds = Annotated[float, msgspec.Meta(gt=0)]

#: Seconds that Matomo has, at least, to search all of its visits, and to delete some.
SECONDS_TO_FORGET = 300.0

#: What may stand in URL: no user, no query, and nothing that means something in HTML or JavaScript.
_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~%+,/-]*)?")


class Piwik(pluginhost.Plugin):
    """Sends page views, events, goals and orders to Matomo: from a worker in bulk, and from the browser."""

    class Options(pluginhost.Options):
        URL: str
        """Where Matomo is: ``https://stats.example.com/``, or the whole address of its tracker, ending in ``.php``."""
        SITE_ID: Id
        """The site's id in Matomo."""
        TOKEN_AUTH: pluginhost.Secret | None = None
        """The token of a user who may write to the site. Without one, some parameters are left out."""
        PHP_FILE: FileName = "matomo.php"
        """The tracker's file name: ``piwik.php`` for old servers, another one behind a proxy."""
        JS_FILE: FileName = "matomo.js"
        """The script's file name, likewise."""
        CONNECT_TIMEOUT: Seconds = 2.0
        """Seconds to wait for a connection."""
        READ_TIMEOUT: Seconds = 30.0
        """Seconds to wait for the whole answer to a bulk request."""
        QUEUED_TRACKING: bool = False
        """Let Matomo's plugin QueuedTracking, if it is there, queue what the server sends. Its answers say nothing."""
        GOALS: dict[str, Id] = {}
        """Event name -> id of the goal that it converts."""
        DIMENSIONS: dict[str, Id] = {}
        """Property name -> id of the custom dimension that it becomes."""
        CATEGORY: Annotated[str, msgspec.Meta(pattern=r"\S")] = "Events"
        """The category of events that name none."""
        USER_ID: bool = False
        """Tell Matomo who is logged in, from the server and from the browser."""
        DO_NOT_TRACK: bool = False
        """Respect the browser's header DNT."""
        CONSENT: Literal["off", "tracking", "cookies"] = "off"
        """What the script in the browser waits with until the site calls Matomo's consent methods."""
        DISABLE_COOKIES: bool = False
        """Neither let the script set cookies nor read them here."""
        COOKIE_DOMAIN: Annotated[str, msgspec.Meta(pattern=r"^(\*\.|\.)?[A-Za-z0-9.-]+$")] | None = None
        """The domain of Matomo's cookies, such as ``*.example.com``. None: the page's host."""
        LINK_TRACKING: bool = True
        """Let the script count clicks on outgoing links and downloads."""
        HEARTBEAT: Id | None = None
        """Let the script measure how long a page is looked at, in steps of so many seconds. None: not at all."""
        NOSCRIPT: bool = True
        """Count page views of browsers without JavaScript, by an image in the body."""

        def __post_init__(self) -> None:
            if not _URL.fullmatch(self.URL) or not _is_address(self.URL):
                raise ValueError(
                    "URL must be the address of a Matomo: http:// or https://, a host and perhaps a path,"
                    " without user, query or fragment"
                )
            if self.TOKEN_AUTH and not re.fullmatch(r"[0-9a-fA-F]{32}", self.TOKEN_AUTH.reveal()):
                raise ValueError("TOKEN_AUTH must be 32 hexadecimal digits")

    options: Options
    purpose = "analytics"
    event_options: ClassVar[frozenset[str]] = EVENT_OPTIONS
    batch_size = 100
    timeout = 40.0

    def __init__(self, alias: str, options: Any, lane: pluginhost.plugin.LaneOptions | None = None) -> None:
        super().__init__(alias, options, lane)
        self.announces_identity = options.USER_ID
        if not options.DIMENSIONS and type(self) is Piwik:  # who knows what a subclass looks at
            self.unread = frozenset({"properties"})
        self.tracker_url, self.script_url = addresses(options.URL, options.PHP_FILE, options.JS_FILE)
        self.api_url = api_address(options.URL)
        self._words = Vocabulary(alias, options.CATEGORY, options.GOALS, options.DIMENSIONS)
        self._refusals = Refusals()
        self._client: Client | None = None
        self._sender = Sender(
            self._post,
            self._ask,
            self._judge,
            resends=self.lane.ON_UNCERTAIN == "resend",
            spare=self.timeout - options.CONNECT_TIMEOUT - options.READ_TIMEOUT,
            quick=options.READ_TIMEOUT / 2,
        )
        self._said_uncounted = False

    @property
    def _token(self) -> str:
        return self.options.TOKEN_AUTH.reveal() if self.options.TOKEN_AUTH else ""

    def check(self) -> list[CheckMessage]:
        return list(problems(self))

    def setup(self) -> None:
        from pluginhost_piwik.client import Client

        # An unknown parameter to a Matomo that has no queue.
        url = self.tracker_url if self.options.QUEUED_TRACKING else f"{self.tracker_url}?queuedtracking=0"
        connect, read = self.options.CONNECT_TIMEOUT, self.options.READ_TIMEOUT
        self._client = Client(url, self._token, connect=connect, read=read)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    # Who

    def cookie_ids(self, request: HttpRequest) -> CookieIds | None:
        """The visitor id of Matomo's cookie; or a mark that the visitor opted out, which ``wants`` respects."""
        options = self.options
        if visitors.refuses(request, do_not_track=options.DO_NOT_TRACK):
            return CookieIds(visitor=visitors.REFUSED)
        if options.DISABLE_COOKIES:
            return None
        found = visitors.cookie_id(request, options.SITE_ID, options.COOKIE_DOMAIN)
        return CookieIds(found, found)

    def wants(self, event: Event) -> bool:
        return event.visitor_ids.get(self.alias) != visitors.REFUSED and super().wants(event)

    # From the server

    @hookimpl
    def aggregate(self, batch: Batch) -> None:
        now = dt.datetime.now(dt.UTC)
        sent, failures = self._read(batch, now)
        if sent:
            failures |= self._sender.send(sent, batch.attempt)
        if failures:
            raise PartialFailure(failures)

    def _read(self, batch: Batch, now: dt.datetime) -> tuple[list[Sent], dict[str, Exception]]:
        """The hits of each event, and the events that make none. Matomo builds visits in order of time."""
        site = self._site()
        sent: list[Sent] = []
        failures: dict[str, Exception] = {}
        for event in sorted(batch, key=lambda event: event.timestamp):
            try:
                sent.append(Sent(event.message_id, payload.hits(event, site, now)))
            except PermanentError as error:
                failures[event.message_id] = error
        return sent, failures

    def _site(self) -> payload.Site:
        return payload.Site(
            id=self.options.SITE_ID,
            words=self._words,
            has_token=bool(self.options.TOKEN_AUTH),
            sends_user_id=self.options.USER_ID,
            key=force_bytes(settings.SECRET_KEY),
        )

    def _post(self, sent: Sequence[Sent]) -> Answer:
        assert self._client is not None
        answer = self._client.send([hit for event in sent for hit in event.hits])
        if not answer.counted and not self._said_uncounted:
            self._said_uncounted = True
            logger.warning(
                "plugin %s: Matomo takes hits without saying what becomes of them, as it does with QueuedTracking",
                self.alias,
            )
        return answer

    def _ask(self) -> None:
        assert self._client is not None
        self._client.ask()

    def _judge(self, sent: Sequence[Sent], answer: Answer, attempt: int = 1) -> dict[str, Exception]:
        return self._refusals.judge(sent, answer, dt.datetime.now(dt.UTC), attempt)

    def send_test(self) -> str:
        """Send one event, and explain the answer. Raises the delivery errors."""
        event = sample_event()
        sent = [Sent(event.message_id, payload.hits(event, self._site(), event.timestamp))]
        answer = self._post(sent)
        if not answer.counted:
            return "Matomo took the event without saying what becomes of it, as it does with the plugin QueuedTracking."
        if errors := self._judge(sent, answer):
            raise PartialFailure(errors)
        return (
            f"Matomo took the event {event.name!r} in the category {self.options.CATEGORY!r} for site"
            f" {self.options.SITE_ID}. It says the same of what it silently leaves out: if the event is not in its"
            " visits log, this server's address or user agent is excluded there, or the site takes only its own URLs."
        )

    # A person who is forgotten

    def forget(self, person: Person) -> str:
        """Delete the person's visits, as an administrator would on Matomo's page "GDPR Tools"."""
        from pluginhost_piwik import people

        keys = [force_bytes(key) for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)]
        ids = people.ids_of(person, keys)
        site = self.options.SITE_ID
        by_hand = (
            f"Administration > Privacy > GDPR Tools, site {site}, search for"
            f" each of: {ids.in_words() or 'nobody'}; and delete the visits that it finds."
        )
        if not self._token:
            raise NotImplementedError(f"There is no TOKEN_AUTH. Do it in Matomo itself: {by_hand}")
        connect, read = self.options.CONNECT_TIMEOUT, max(self.options.READ_TIMEOUT, SECONDS_TO_FORGET)
        reporting = people.Reporting(self.api_url, self._token, connect=connect, read=read)
        try:
            if not people.may_delete(reporting, site):
                raise NotImplementedError(
                    f"The token's user may not delete visits: give it admin access to site {site}, or do it in Matomo"
                    f" itself: {by_hand}"
                )
            if not people.can_find(reporting, site):
                raise NotImplementedError(
                    f"Matomo finds nobody, as the visits log or the visitor profiles of site {site} are off. Turn them"
                    " on and run this again, or delete the raw data of the time in question."
                )
            deleted = people.delete(reporting, site, ids)
        except people.Absent as error:
            raise NotImplementedError(f"{error}. Do it in Matomo itself: {by_hand}") from None
        finally:
            reporting.close()
        return (
            f"{deleted} {'visit was' if deleted == 1 else 'visits were'} deleted from site {site}. Visits under the id"
            " of Matomo's own cookie are found only if that is given as an anonymous id."
        )

    # In the browser

    @hookimpl
    def render_client(self, request: HttpRequest, page: Page) -> SafeString | None:  # noqa: ARG002
        return snippet.render(page, self._settings())

    def _settings(self) -> snippet.Settings:
        options = self.options
        return snippet.Settings(
            words=self._words,
            site_id=options.SITE_ID,
            tracker_url=self.tracker_url,
            script_url=self.script_url,
            queue=self._queue(),
            consent=options.CONSENT,
            do_not_track=options.DO_NOT_TRACK,
            disable_cookies=options.DISABLE_COOKIES,
            cookie_domain=options.COOKIE_DOMAIN,
            link_tracking=options.LINK_TRACKING,
            heartbeat=options.HEARTBEAT,
            noscript=options.NOSCRIPT,
            names_users=options.USER_ID,
        )

    def _queue(self) -> str:
        """The JavaScript array of this alias: ``_paq`` for the first of the setting, each other has one of its own."""
        loaded = [each.plugin for each in pluginhost.host.registry.plugins.values()]
        ours = [plugin.alias for plugin in loaded if isinstance(plugin, Piwik)]
        if self.alias not in ours[1:]:
            return snippet.QUEUE
        return f"{snippet.QUEUE}_{self.alias.replace('-', '$')}"


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def addresses(url: str, php_file: str, js_file: str) -> tuple[str, str]:
    """The addresses of tracker and script, from a base URL or from the tracker's whole URL."""
    base, _, last = url.rpartition("/")
    if last.endswith(".php") and urlsplit(url).path:
        return url, f"{base}/{js_file}"
    return f"{url.rstrip('/')}/{php_file}", f"{url.rstrip('/')}/{js_file}"


def api_address(url: str) -> str:
    """The address of the Reporting API, likewise."""
    base, _, last = url.rpartition("/")
    return f"{base if last.endswith('.php') and urlsplit(url).path else url.rstrip('/')}/index.php"
