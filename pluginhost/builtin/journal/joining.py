"""Gives entries without a user the one who logged in later, and takes them back if that turns out to be unsure.

The rule, for one anonymous id: an entry without a user belongs to the user of the
next event that has one, if no event up to and including that one has another.
Hence at most one user gets entries, the first; and they end with this user's last
event before anybody else's first. ``Browser`` keeps just that. It is a function of
the events alone, not of the order in which they arrive.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from django.db import Error, OperationalError, connections, transaction
from django.db.models import Exists, F, OuterRef, Subquery
from django.db.models.functions import Coalesce, Greatest

from pluginhost.builtin.journal.models import Browser, Entry
from pluginhost.db import first_keys, take_write_lock

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Collection, Iterator, Sequence

    from django.db.models import QuerySet

#: Entries that one transaction joins, and parts, at most.
JOINED_AT_ONCE = 5000
#: Anonymous ids in one query: SQLite takes 999 parameters.
IDS = 400
#: The key of the advisory lock that workers take in turn on PostgreSQL: "journal" in ASCII.
LOCK = int.from_bytes(b"journal")
#: How long a worker waits for its turn on MySQL and MariaDB.
SECONDS = 10


def see(browser: Browser, user_id: str, at: dt.datetime) -> bool:
    """Take note that this user had an event under the anonymous id. Whether ``until`` has to be looked up."""
    if at < browser.first:
        if user_id != browser.user_id:
            browser.user_id, browser.other, browser.until = user_id, browser.first, at
        browser.first = at
    elif user_id == browser.user_id:
        if browser.other is None or at < browser.other:
            browser.until = max(browser.until, at)
    elif at == browser.first or not browser.user_id:
        browser.user_id, browser.until = "", max(browser.until, at)
    elif browser.other is None or at < browser.other:
        browser.other = at
        return browser.until >= at
    return False


def traces(entry: Entry) -> Iterator[str]:
    """The anonymous ids under which this entry shows its user."""
    if entry.user_id:
        yield from {each for each in (entry.anonymous_id, entry.previous_id) if each}


def join(entries: Sequence[Entry], using: str) -> bool:
    """Join what these new entries, just inserted, allow to be joined. Belongs into their transaction.

    Whether all is done; otherwise ``catch_up`` does the rest.
    """
    ids = {each for entry in entries for each in (*traces(entry), entry.anonymous_id) if each}
    if not ids:
        return True
    take_turn(using)
    browsers = {browser.anonymous_id: browser for some in _pieces(ids) for browser in _browsers(some, using)}
    before = {anonymous_id: (browser.user_id, browser.until) for anonymous_id, browser in browsers.items()}
    changed: dict[str, Browser] = {}
    unsure: set[str] = set()
    for entry in entries:
        for anonymous_id in traces(entry):
            browser = browsers.get(anonymous_id)
            if browser is None:
                at = entry.timestamp
                browser = Browser(anonymous_id=anonymous_id, user_id=entry.user_id, first=at, until=at)
                browsers[anonymous_id] = browser
            elif see(browser, entry.user_id, entry.timestamp):
                unsure.add(anonymous_id)
            changed[anonymous_id] = browser
    _save(changed.values(), using)
    for some in _pieces(unsure):
        _look_up_until(some, using)
    more, less = set(unsure), set(unsure)
    for anonymous_id, browser in changed.items():
        user_id, until = before.get(anonymous_id, (browser.user_id, browser.first))
        if browser.user_id != user_id or browser.until < until:
            less.add(anonymous_id)
        if browser.user_id != user_id or browser.until > until or anonymous_id not in before:
            more.add(anonymous_id)
    for entry in entries:
        late = None if entry.user_id else browsers.get(entry.anonymous_id)
        if late is not None and entry.timestamp <= late.until:
            more.add(entry.anonymous_id)
    return _settle(less, more, using)


def catch_up(using: str) -> bool:
    """Join and part some of what was too much at once. Whether there may be more."""
    with turn(using), transaction.atomic(using):
        take_write_lock(connections[using], Browser)
        take_turn(using)
        ids = list(Browser.objects.using(using).filter(behind=True).values_list("anonymous_id", flat=True)[:IDS])
        if not ids:
            return False
        Browser.objects.using(using).filter(anonymous_id__in=ids).update(behind=False)
        _settle(ids, ids, using)
        return True


def take_turn(using: str) -> None:
    """Wait until no other worker joins: only then what it has written can be seen. Until the transaction ends."""
    connection = connections[using]
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])


@contextmanager
def turn(using: str) -> Iterator[None]:
    """The same for MySQL and MariaDB, whose locks with a name end with no transaction: goes around it."""
    connection = connections[using]
    if connection.vendor != "mysql":
        yield
        return
    name = "SHA1(CONCAT('pluginhost.journal.', DATABASE()))"  # names are the server's, and have 64 characters
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT GET_LOCK({name}, %s)", [SECONDS])
        if cursor.fetchone() != (1,):
            raise OperationalError(f"another worker joined for {SECONDS} s")
    try:
        yield
    finally:
        # A connection that is lost has lost the lock as well, and says so itself.
        with suppress(Error), connection.cursor() as cursor:
            cursor.execute(f"SELECT RELEASE_LOCK({name})")


def _pieces(ids: Collection[str]) -> Iterator[list[str]]:
    ordered = sorted(ids)
    for start in range(0, len(ordered), IDS):
        yield ordered[start : start + IDS]


def _browsers(ids: Collection[str], using: str) -> QuerySet[Browser]:
    return Browser.objects.using(using).filter(anonymous_id__in=ids)


def _save(browsers: Collection[Browser], using: str) -> None:
    names_target = connections[using].features.supports_update_conflicts_with_target
    Browser.objects.using(using).bulk_create(
        browsers,
        update_conflicts=True,
        unique_fields=["anonymous_id"] if names_target else None,
        update_fields=["user_id", "first", "until", "other"],
    )


def _look_up_until(ids: Collection[str], using: str) -> None:
    """Set ``until`` to the first user's last event before another's first."""
    own = Entry.objects.filter(user_id=OuterRef("user_id"), joined=False, timestamp__lt=OuterRef("other"))
    here = own.filter(anonymous_id=OuterRef("anonymous_id")).order_by("-timestamp").values("timestamp")[:1]
    alias = own.filter(previous_id=OuterRef("anonymous_id")).order_by("-timestamp").values("timestamp")[:1]
    _browsers(ids, using).exclude(user_id="").update(
        until=Greatest(Coalesce(Subquery(here), F("first")), Coalesce(Subquery(alias), F("first")))
    )


def _settle(less: Collection[str], more: Collection[str], using: str) -> bool:
    """Part the entries of ``less`` from who does not get them any more, then join those of ``more``."""
    done = True
    for some in _pieces(less):
        done &= _part(some, using) or _is_behind(some, using)
    for some in _pieces(more):
        done &= _join(some, using) or _is_behind(some, using)
    return done


def _is_behind(ids: Collection[str], using: str) -> bool:
    _browsers(ids, using).update(behind=True)
    return False


def _join(ids: Collection[str], using: str) -> bool:
    browser = Browser.objects.filter(anonymous_id=OuterRef("anonymous_id"))
    gets_it = browser.exclude(user_id="").filter(until__gte=OuterRef("timestamp"))
    entries = Entry.objects.using(using).order_by()
    some = entries.filter(Exists(gets_it), anonymous_id__in=ids, user_id="")
    n = entries.filter(pk__in=first_keys(some, JOINED_AT_ONCE)).update(
        user_id=Subquery(browser.values("user_id")[:1]), joined=True
    )
    return n < JOINED_AT_ONCE


def _part(ids: Collection[str], using: str) -> bool:
    browser = Browser.objects.filter(anonymous_id=OuterRef("anonymous_id"))
    still_gets_it = browser.filter(user_id=OuterRef("user_id"), until__gte=OuterRef("timestamp"))
    entries = Entry.objects.using(using).order_by()
    some = entries.filter(~Exists(still_gets_it), anonymous_id__in=ids, joined=True)
    n = entries.filter(pk__in=first_keys(some, JOINED_AT_ONCE)).update(user_id="", joined=False)
    return n < JOINED_AT_ONCE
