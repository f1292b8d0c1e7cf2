"""Deletes what is kept of a person, and that it was this person."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from django.db import connections, transaction
from django.db.models import Q
from django.utils import timezone

from pluginhost.builtin.journal.joining import catch_up, take_turn, turn
from pluginhost.builtin.journal.models import Browser, Entry
from pluginhost.db import take_write_lock

if TYPE_CHECKING:
    from pluginhost import Person

#: Entries that one statement deletes: SQLite takes 999 parameters.
DELETED_AT_ONCE = 500


class Forgotten(NamedTuple):
    """What was done."""

    entries: int
    browsers: int
    """Anonymous ids of which it is not known any more whose they were."""
    aliases: list[str]
    """Other ids that the person had, by events of type alias."""


def forget(person: Person, using: str) -> Forgotten:
    """Delete the entries of a person's ids, also those that were joined to the person; and who had which browser.

    An anonymous id that is not given keeps its row without the user: that somebody
    was there must stay known, or what somebody else left there could go to the next.
    """
    users, visitors = _filled(person.user_ids), _filled(person.anonymous_ids)
    either = [*users, *visitors]
    theirs = Entry.objects.using(using).order_by()
    theirs = theirs.filter(Q(user_id__in=users) | Q(anonymous_id__in=visitors) | Q(previous_id__in=either))
    browsers = Browser.objects.using(using)
    while catch_up(using):  # what is still to be joined to the person
        pass
    named = theirs.filter(type=Entry.Type.ALIAS, user_id__in=users).exclude(previous_id__in=either)
    aliases = sorted({previous_id for previous_id in named.values_list("previous_id", flat=True) if previous_id})
    deleted = 0
    while some := list(theirs.values_list("pk", flat=True)[:DELETED_AT_ONCE]):
        deleted += Entry.objects.using(using).filter(pk__in=some).delete()[0]
    with turn(using), transaction.atomic(using):
        take_write_lock(connections[using], Browser)
        take_turn(using)
        deleted += theirs.delete()[0]  # joined meanwhile; from here on nothing is
        gone, _ = browsers.filter(anonymous_id__in=visitors).delete()
        nameless = browsers.filter(user_id__in=users).update(user_id="", until=timezone.now())
    return Forgotten(deleted, gone + nameless, aliases)


def _filled(ids: tuple[str, ...]) -> list[str]:
    return [id_ for id_ in ids if id_]
