"""Why an event became a dead letter, in words, and what to do about it.

Reasons are texts: those of the host's own, and those of plugins, which begin with
the name of the exception (``failures.Judge.describe``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from django.db.models import Q
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from pluginhost.delivery.work import DEADLY, INTERRUPTED

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise

    from pluginhost.models import Delivery


class Kind(NamedTuple):
    """A kind of reason."""

    name: str
    title: _StrPromise
    hint: _StrPromise
    begins: tuple[str, ...]

    @property
    def condition(self) -> Q:
        """The deliveries whose reason is of this kind."""
        found = Q()
        for text in self.begins:
            found |= Q(reason__startswith=text)
        return found


GAVE_UP = Kind(
    "gave-up",
    _("gave up"),
    _("Each attempt failed, the last one with this reason. Replay it when the receiver works again."),
    ("RetryableError",),
)
KINDS = (
    GAVE_UP,
    Kind(
        "refused",
        _("refused for good"),
        _(
            "The plugin says that this event will never be taken as it is. "
            "Replay it when the plugin, its options or the receiver have changed."
        ),
        ("PermanentError",),
    ),
    Kind(
        "uncertain",
        _("fate unknown"),
        _(
            "It was on its way when the answer or the worker was lost, so the receiver may have it. "
            "Look there first: after a replay it may count twice."
        ),
        ("UncertainError", INTERRUPTED.reason),
    ),
    Kind(
        "killed",
        _("its worker died"),
        _(
            "Several workers died, one after the other, while they delivered this event. "
            "Find out why in their logs before you replay it: it may end the next one."
        ),
        (DEADLY.reason,),
    ),
    Kind(
        "unreadable",
        _("unreadable"),
        _(
            "The stored bytes are no event that this version can read. "
            "A replay helps only if another version of the host wrote them, and reads them again."
        ),
        ("unreadable", "unknown version", "the payload has "),
    ),
)
OTHER = Kind(
    "other",
    _("other failure"),
    _(
        "The plugin failed each time, and did not say what that means. "
        "Its traceback is in the log pluginhost.delivery. Replay the event when the plugin is corrected."
    ),
    (),
)


def kind_of(letter: Delivery) -> Kind:
    """The kind of a dead letter's reason."""
    return next((kind for kind in KINDS if letter.reason.startswith(kind.begins)), OTHER)


def in_words(letter: Delivery) -> str:
    """The kind in a few words."""
    kind = kind_of(letter)
    if kind.name != GAVE_UP.name:
        return str(kind.title)
    return ngettext("gave up after %d attempt", "gave up after %d attempts", letter.attempts) % letter.attempts


def condition(name: str) -> Q:
    """The deliveries whose reason is of the kind with this name; all, if there is none."""
    if name == OTHER.name:
        known = Q()
        for kind in KINDS:
            known |= kind.condition
        return ~known
    return next((kind.condition for kind in KINDS if kind.name == name), Q())
