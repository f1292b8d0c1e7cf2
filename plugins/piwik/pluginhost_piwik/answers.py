"""What Matomo's answer to a bulk request means for the events in it. Pure.

Source of the answers: Matomo's Tracking HTTP API reference (2026), and the source of
its tracker and of the plugins BulkTracking and QueuedTracking (5.2).
"""

from __future__ import annotations

import datetime as dt
import json
import re
from email.utils import parsedate_to_datetime
from itertools import combinations
from typing import TYPE_CHECKING, Any

import msgspec

from pluginhost import DeliveryError, PermanentError, RetryableError, UncertainError
from pluginhost_piwik.payload import counted_once

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pluginhost_piwik.payload import Hit

#: What is said in text where nothing was asked, or nothing was understood.
NOT_TRACKED = b"This resource is part of Matomo"
#: A proxy gave up waiting; Matomo may go on.
GATEWAY_GAVE_UP = frozenset({502, 504, 520, 524})
#: Attempts, about half an hour with the lane's usual delays, until hits are given up that Matomo refused altogether.
PATIENCE = 10
#: So many causes are weighed against each other, at most.
MAX_CAUSES = 8
DIAGNOSTIC = "Matomo names some causes under Administration > Diagnostic > Tracking failures"


class Answer(msgspec.Struct, frozen=True):
    """What Matomo says of a bulk request that it took."""

    counted: bool = False
    """Whether it says anything; a queue, or a server told to be silent, does not."""
    tracked: int = 0
    """Recorded, or silently excluded."""
    invalid: int = 0
    """Refused."""
    indices: frozenset[int] | None = None
    """Which were refused. Only a super user's token is told."""


def read(status: int, headers: Mapping[str, str], body: bytes, sent: int, now: dt.datetime) -> Answer:
    """Read the answer to a bulk request of ``sent`` hits.

    ``now`` is an aware datetime, for a Retry-After that is a date. Raises
    ``RetryableError`` if nothing was recorded, ``UncertainError`` if nobody knows,
    ``PermanentError`` if the request must not be repeated as it is, and a plain
    ``DeliveryError`` if either the server or one of the events may be at fault: the
    host then tries again, and after that looks for the event.
    """
    if 200 <= status < 300:
        return _taken(status, headers, body, sent)
    if 300 <= status < 400:
        raise RetryableError(
            f"answered {status}, a redirect{_target(headers)}: the option URL must be the address it leads to"
        )
    if status in (408, 425, 429) or (status >= 501 and status not in GATEWAY_GAVE_UP):
        raise RetryableError(f"answered {status}", retry_after=_retry_after(headers, now))
    if status in (400, 413, 414, 431):
        raise PermanentError(f"answered {status}, and recorded nothing{_hint(status)}")
    if status in GATEWAY_GAVE_UP:
        raise UncertainError(f"answered {status}: a proxy gave up waiting")
    if _counts(body):
        raise DeliveryError(f"answered {status}, and undid the whole request")
    raise DeliveryError(f"answered {status}{': is the option URL right?' if status < 500 else ''}")


def _taken(status: int, headers: Mapping[str, str], body: bytes, sent: int) -> Answer:
    counts = _counts(body)
    if counts is not None:
        if counts["status"] == "error":
            raise DeliveryError(f"answered {status}, and undid the whole request")
        return _checked(counts, sent)
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if status == 204 or body.startswith((b"GIF87a", b"GIF89a")) or kind.startswith("image/"):
        return Answer()
    if NOT_TRACKED in body:
        raise RetryableError(f"answered {status} as if no hit had come: something on the way dropped the request")
    what = kind[:60] or "something"
    raise UncertainError(f"answered {status} with {what} that is not Matomo's: is the option URL right?")


def _counts(body: bytes) -> dict[str, Any] | None:
    """The JSON of a bulk answer; PHP may have printed warnings before it."""
    text = body.decode("utf-8", "replace")
    for match in re.finditer(r"\{", text):
        try:
            found, _ = json.JSONDecoder().raw_decode(text, match.start())
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict) and found.get("status") in ("success", "error"):
            return found
    return None


def _checked(counts: Mapping[str, Any], sent: int) -> Answer:
    tracked, invalid, indices = counts.get("tracked"), counts.get("invalid"), counts.get("invalid_indices")
    if not isinstance(tracked, int) or not isinstance(invalid, int) or tracked < 0 or invalid < 0:
        raise UncertainError("answered without the numbers of hits that it tracked and refused")
    named: frozenset[int] | None = None
    if isinstance(indices, list) and all(isinstance(index, int) and 0 <= index < sent for index in indices):
        named = frozenset(indices) if len(set(indices)) == invalid else None
    return Answer(counted=True, tracked=tracked, invalid=invalid, indices=named)


def _hint(status: int) -> str:
    if status == 400:
        return (
            ": the plugin BulkTracking may be off, SITE_ID may not exist, or something refused the request on its way."
            f" {DIAGNOSTIC}"
        )
    return "; smaller batches (BATCH_SIZE) may help" if status == 413 else ""


def _target(headers: Mapping[str, str]) -> str:
    """Scheme and host of a redirect: the rest may hold what nobody should read."""
    match = re.match(r"(https?://[\w.:\[\]-]{1,100})(?:[/?#]|$)", headers.get("Location", ""), re.ASCII)
    return f" to {match[1]}" if match else ""


def _retry_after(headers: Mapping[str, str], now: dt.datetime) -> float | None:
    """Retry-After in seconds; it may be seconds or a date (RFC 9110, 10.2.3)."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, IndexError, TypeError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return max((moment - now).total_seconds(), 0.0)


class Sent(msgspec.Struct, frozen=True):
    """One event's hits, as they were sent."""

    message_id: str
    hits: Sequence[Any]

    @property
    def counted_once(self) -> bool:
        """Whether sending the event again has no further effect."""
        return all(counted_once(hit) for hit in self.hits)


def unknown_fate(sent: Iterable[Sent], reason: str) -> dict[str, Exception]:
    """What becomes of events of which nobody knows whether they were recorded, by message id.

    An order may be sent again: Matomo counts its id once.
    """
    return {
        event.message_id: RetryableError(f"{reason}; Matomo counts an order once, so it is sent again")
        if event.counted_once
        else UncertainError(reason)
        for event in sent
    }


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
        failures = self._missing(sent, missing, len(hits))
        if refused is not None:
            return failures | _named(sent, refused, len(hits))
        if answer.invalid:
            failures |= self._unnamed(sent, answer.invalid, now)
        return failures

    def _missing(self, sent: Sequence[Sent], missing: int, total: int) -> dict[str, Exception]:
        if missing <= 0:
            return {}
        return unknown_fate(sent, f"Matomo passed over {missing} of {total} hits, and does not say which")

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
