"""What Matomo's answer to a bulk request means for all of it. Pure.

Source of the answers: Matomo's Tracking HTTP API reference (2026), and the source of
its tracker and of the plugins BulkTracking and QueuedTracking (5.2).
"""

from __future__ import annotations

import json
import re
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from pluginhost import DeliveryError, PermanentError, RetryableError, UncertainError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What is said in text where nothing was asked, or nothing was understood.
NOT_TRACKED = b"This resource is part of Matomo"
#: A proxy gave up waiting; Matomo may go on.
GATEWAY_GAVE_UP = frozenset({502, 504, 520, 524})
#: So many braces in an answer are tried, at most: text that is no JSON may be full of them.
MAX_BRACES = 20
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


def by_status(status: int, headers: Mapping[str, str]) -> None:
    """Judge an answer whose body says no more than its status does, so that it need not be read.

    Returns if the body is needed. Raises ``RetryableError`` if nothing was recorded,
    ``UncertainError`` if nobody knows, ``PermanentError`` if the request must not be
    repeated as it is, and a plain ``DeliveryError`` if either the server or one of the
    events may be at fault: the host then tries again, and after that looks for the event.
    """
    if 200 <= status < 300 or status == 500:
        return
    if 300 <= status < 400:
        raise RetryableError(
            f"answered {status}, a redirect{_target(headers)}: the option URL must be the address it leads to"
        )
    if status in GATEWAY_GAVE_UP:
        raise UncertainError(f"answered {status}: a proxy gave up waiting")
    if status in (408, 425, 429) or status >= 501:
        raise RetryableError(f"answered {status}", retry_after=headers.get("Retry-After"))
    if status in (413, 414, 431):
        raise PermanentError(f"answered {status}, and recorded nothing{_hint(status)}")
    raise DeliveryError(f"answered {status}{_hint(status)}")


def read(status: int, headers: Mapping[str, str], body: bytes, sent: int) -> Answer:
    """Read the answer to a bulk request of ``sent`` hits. Raises what ``by_status`` raises."""
    by_status(status, headers)
    counts = _counts(body)
    if counts is not None:
        if counts["status"] == "error":
            raise DeliveryError(f"answered {status}, and undid the whole request")
        return _checked(counts, sent)
    if status == 500:  # PHP may have died of the first hit, or of what it did after the last one
        raise UncertainError(f"answered {status} without saying what it recorded")
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
    for match in islice(re.finditer(r"\{", text), MAX_BRACES):
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
    if status == 413:
        return "; smaller batches (BATCH_SIZE) may help"
    return "" if status in (414, 431) else ": is the option URL right?"


def _target(headers: Mapping[str, str]) -> str:
    """Scheme and host of a redirect: the rest may hold what nobody should read."""
    match = re.match(r"(https?://[\w.:\[\]-]{1,100})(?:[/?#]|$)", headers.get("Location", ""), re.ASCII)
    return f" to {match[1]}" if match else ""
