"""Which events of a request Matomo did not record. Pure, but for what it has learnt of earlier requests.

Source of the reasons: the source of Matomo's tracker and of its plugin BulkTracking (5.2).
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import msgspec

from pluginhost import PermanentError, RetryableError
from pluginhost_piwik.answers import DIAGNOSTIC
from pluginhost_piwik.payload import counted_once

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from pluginhost_piwik.answers import Answer
    from pluginhost_piwik.payload import Hit

#: Attempts, about half an hour with the lane's usual delays, until hits are given up that Matomo refused altogether.
PATIENCE = 10
#: So many causes are weighed against each other, at most.
MAX_CAUSES = 8


class Sent(msgspec.Struct, frozen=True):
    """One event's hits, as they were sent."""

    message_id: str
    hits: Sequence[Any]

    @property
    def counted_once(self) -> bool:
        """Whether sending the event again has no further effect."""
        return all(counted_once(hit) for hit in self.hits)


def once_more(reason: str) -> RetryableError:
    """What becomes of an event that is counted once, when nobody knows whether it was recorded."""
    return RetryableError(f"{reason}; Matomo counts an order once, so it is sent again")


class Refusals:
    """Finds the events that Matomo refused, without sending any of them again.

    Matomo records the good hits of a request, and says how many it refused. It says
    which ones only to a super user. To everyone else the number has to do: hits are
    refused for causes that they share, such as a goal that does not exist, and what
    was ever accepted is no cause. If one set of causes alone explains the number,
    these are the hits; else all that may be meant are given up, because those among
    them that were recorded would count twice.
    """

    def __init__(self) -> None:
        self._accepted: set[str] = set()

    def judge(self, sent: Sequence[Sent], answer: Answer, now: dt.datetime, attempt: int = 1) -> dict[str, Exception]:
        """The events that failed, by message id.

        ``attempt`` is the batch's. Raises ``RetryableError`` if nothing at all was
        recorded: an option or a right is wrong then, which somebody may be about to
        mend, so that the events are given up only after ``PATIENCE`` attempts.
        """
        hits = [hit for event in sent for hit in event.hits]
        missing = len(hits) - answer.tracked - answer.invalid
        if not answer.counted or (missing <= 0 and not answer.invalid):
            self._accepted.update(*(_causes(hit, now) for hit in hits if answer.counted))
            return {}
        if not answer.tracked:
            reason = _nothing(len(hits), answer.invalid)
            if answer.invalid < len(hits) or attempt < PATIENCE:
                raise RetryableError(reason)
            return {event.message_id: PermanentError(reason) for event in sent}
        refused = answer.indices
        if refused is None and answer.invalid:
            refused = self._explained([_causes(hit, now) for hit in hits], answer.invalid)
        failures = _passed_over(sent, missing, len(hits)) if missing > 0 else {}
        if refused is not None:
            return failures | _named(sent, refused, len(hits))
        if answer.invalid:
            failures |= self._unnamed(sent, answer.invalid, now)
        return failures

    def _explained(self, causes: Sequence[frozenset[str]], invalid: int) -> frozenset[int] | None:
        """The hits that a set of causes touches, if that is the only explanation of their number."""
        known = frozenset().union(*causes)
        for suspects in (known - self._accepted, known):  # what was accepted once may be gone by now
            found = _explanations(causes, sorted(suspects), invalid)
            if len(found) == 1:
                refused = found.pop()
                self._accepted.update(*(causes[i] for i in range(len(causes)) if i not in refused))
                return refused
            if found:
                return None
        return None

    def _unnamed(self, sent: Sequence[Sent], invalid: int, now: dt.datetime) -> dict[str, Exception]:
        """Give up all events that may be meant."""
        total = sum(len(event.hits) for event in sent)
        doubtful = [event for event in sent if self._doubtful(event, now)]
        if sum(len(event.hits) for event in doubtful) < invalid:
            doubtful = list(sent)
        errors: dict[str, Exception] = {}
        for event in doubtful:
            replay = "may be replayed" if event.counted_once else "if it was recorded, a replay counts it twice"
            errors[event.message_id] = PermanentError(
                f"Matomo refused {invalid} of {total} hits that were sent together, and names them only to a super"
                f" user's token; this may be one of them ({replay}). {DIAGNOSTIC}"
            )
        return errors

    def _doubtful(self, event: Sent, now: dt.datetime) -> bool:
        return any(not _causes(hit, now) <= self._accepted for hit in event.hits)


def _causes(hit: Hit, now: dt.datetime) -> frozenset[str]:
    """For what the server could refuse this hit; everything else was checked before it was sent.

    A goal that does not exist, a token that may not do what the hit needs (an address,
    a time that is long ago), a day whose data the site does not keep any more.
    """
    causes = set()
    if (goal := hit.get("idgoal", "0")) != "0":
        causes.add(f"goal {goal}")
    age = now.timestamp() - int(hit["cdt"])
    if age >= 86_400:
        causes.add(f"day {int(hit['cdt']) // 86_400}")
    if age >= 86_400 or "cip" in hit:
        causes.add("token")
    return frozenset(causes)


def _explanations(causes: Sequence[frozenset[str]], suspects: Sequence[str], invalid: int) -> set[frozenset[int]]:
    """The different sets of ``invalid`` hits that some of the suspects, refused altogether, would make."""
    if len(suspects) > MAX_CAUSES:
        return set()
    found = set()
    for number in range(1, len(suspects) + 1):
        for chosen in combinations(suspects, number):
            touched = frozenset(i for i, own in enumerate(causes) if not own.isdisjoint(chosen))
            if len(touched) == invalid:
                found.add(touched)
    return found


def _nothing(total: int, invalid: int) -> str:
    if invalid < total:
        return f"Matomo recorded none of {total} hits: it is under maintenance, or its database is locked"
    question = "does SITE_ID exist there, and may TOKEN_AUTH write to it?"
    return f"Matomo refused all {total} hits: {question} {DIAGNOSTIC}"


def _passed_over(sent: Sequence[Sent], missing: int, total: int) -> dict[str, Exception]:
    """Give up all events but orders: the others were recorded, and would count twice.

    Matomo skips a hit without a word when its database's locks take too long, which
    is no hit's own fault.
    """
    reason = f"Matomo passed over {missing} of {total} hits that were sent together, and does not say which"
    given_up = PermanentError(f"{reason}; this may be one of them (if it was recorded, a replay counts it twice)")
    return {event.message_id: once_more(reason) if event.counted_once else given_up for event in sent}


def _named(sent: Sequence[Sent], refused: frozenset[int], total: int) -> dict[str, Exception]:
    """Dead letters for the events whose hits these are."""
    errors: dict[str, Exception] = {}
    first = 0
    for event in sent:
        own = [hit for index, hit in enumerate(event.hits, first) if index in refused]
        first += len(event.hits)
        if own:
            rest = "" if len(own) == len(event.hits) else "; the rest of it is recorded, and a replay counts that twice"
            what = " and ".join(map(_described, own))
            errors[event.message_id] = PermanentError(
                f"Matomo refused {what}, of {total} hits that were sent together{rest}. {DIAGNOSTIC}"
            )
    return errors


def _described(hit: Hit) -> str:
    if "idgoal" in hit:
        return f"its goal {hit['idgoal']}" if hit["idgoal"] != "0" else "its order or cart"
    kinds = {"e_c": "its event", "search": "its search", "link": "its link", "download": "its download"}
    return next((name for key, name in kinds.items() if key in hit), "its page view")
