"""The strict door: what may become part of an event, and what it is converted to.

Everything is copied on the way, so that nothing the caller does later can change
an event. Every problem names the path of the bad value.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from itertools import islice
from math import isfinite
from typing import Any
from uuid import UUID

from django.db.models import Model
from django.utils import timezone
from django.utils.functional import Promise

from pluginhost.events import Subject
from pluginhost.exceptions import InvalidEvent

MAX_NAME = 200
MAX_ID = 255
MAX_DEPTH = 10
MAX_BYTES = 32 * 1024
MASK = "[masked]"

#: Characters of the names of one mapping that are remembered together.
MAX_REMEMBERED = 1024
#: Receivers keep integers in 64 bits with a sign.
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1


class _Walk:
    """One walk through one value, and how much it has seen.

    An error begins with an empty path. Each container that it leaves puts the place
    within in front, so that no path is made while all is well.
    """

    __slots__ = ("left", "masked")

    def __init__(self, masked: frozenset[str]) -> None:
        self.masked = masked
        self.left = MAX_BYTES

    def value(self, value: Any, above: tuple[int, ...] = ()) -> Any:
        """The copy of a value. ``above`` are the containers that it is inside of, by their ``id``."""
        kind = type(value)
        if kind is dict or kind is list:
            if id(value) in above or len(above) == MAX_DEPTH:
                raise _too_deep(value, above)
            # Each value takes at least a byte of JSON: a shared list of lists cannot explode before its size is seen.
            self.left -= len(value)
            if self.left < 0:
                raise _too_large("")
            return self.container(value.copy(), (*above, id(value)))
        if kind is str:
            self.left -= len(value)
            if self.left < 0:
                raise _too_large("")
            return plain("", value)
        if value is None or kind is bool:
            return value
        try:
            return self.converted(value, above)
        except InvalidEvent:
            raise
        except Exception as error:  # of a class of the caller's
            raise _raised("", error) from error

    def converted(self, value: Any, above: tuple[int, ...]) -> Any:
        """What is no plain value of JSON, or one that JSON can't hold."""
        if isinstance(value, Enum):
            return self.value(value.value, above)
        if isinstance(value, (str, Promise)):
            return self.value(exact("", value), above)
        if isinstance(value, int):
            return _integer(int(value))
        if isinstance(value, float):
            return finite("", float(value))
        if isinstance(value, (Mapping, list, tuple, set, frozenset)):
            return self.foreign(value, above)
        if isinstance(value, Decimal):
            return _decimal(value)
        if isinstance(value, dt.datetime):
            return moment("", value).isoformat().replace("+00:00", "Z")
        if isinstance(value, (dt.date, dt.time)):
            return value.isoformat()
        if isinstance(value, dt.timedelta):
            return value.total_seconds()
        if isinstance(value, UUID):
            return str(value)
        if isinstance(value, Model):
            raise InvalidEvent("", "a model instance; pass its pk, or the instance as subject")
        raise InvalidEvent("", f"JSON can't hold a {type(value).__name__}")

    def foreign(self, value: Any, above: tuple[int, ...]) -> Any:
        """A container of another class. Whatever that says of its length, no more is read than what is too large."""
        if id(value) in above or len(above) == MAX_DEPTH:
            raise _too_deep(value, above)
        items = value.items() if isinstance(value, Mapping) else value
        some = list(islice(items, self.left + 1))
        self.left -= len(some)
        if self.left < 0:
            raise _too_large("")
        return self.container(some if items is value else dict(some), (*above, id(value)))

    def named(self, copied: dict[Any, Any]) -> dict[str, Any]:
        """A mapping with names that are plain text, and a mask instead of each value that nobody is to see."""
        if not _TEXT.issuperset(map(type, copied)):
            copied = {_name(key): item for key, item in copied.items()}
        size = sum(map(len, copied))
        self.left -= size
        if self.left < 0:
            raise _too_large(_step(max(copied, key=len)))
        # Long names are not remembered: a visitor may think of as many as there is memory.
        masks = _masked if size <= MAX_REMEMBERED else _masked.__wrapped__
        for name in masks(tuple(copied), self.masked):
            copied[name] = MASK
        return copied

    def container(self, copied: Any, above: tuple[int, ...]) -> Any:
        """Convert what a copied dict or list holds, in its place. Most values are plain, and are left at a glance."""
        if type(copied) is dict:
            copied = self.named(copied)
            places = copied.items()
        else:
            places = enumerate(copied)
        for place, item in places:
            kind = type(item)
            if kind is str:
                if item.isascii() and "\0" not in item:
                    self.left -= len(item)
                    if self.left >= 0:
                        continue
            elif kind is float:
                if isfinite(item):
                    continue
            elif kind is int:
                if _INT_MIN <= item <= _INT_MAX:
                    continue
            elif item is None or kind is bool:
                continue
            try:
                copied[place] = self.value(item, above)
            except InvalidEvent as error:
                raise error.within(_step(place)) from error.__cause__
        if self.left < 0:
            raise _too_large("")
        return copied


_TEXT = frozenset({str})


def _name(key: Any) -> str:
    """A key that is no plain text, as one: what is remembered of names must hold nothing of the caller's."""
    if not isinstance(key, str):
        raise InvalidEvent("", f"the key {shown(key):.80} is not a string")
    return exact("", key)


def _too_deep(value: Any, above: tuple[int, ...]) -> InvalidEvent:
    problem = "the value contains itself" if id(value) in above else f"deeper than {MAX_DEPTH} levels"
    return InvalidEvent("", problem)


def _too_large(path: str) -> InvalidEvent:
    return InvalidEvent(path, f"the event is larger than {MAX_BYTES} bytes")


def _integer(value: int) -> int:
    if not _INT_MIN <= value <= _INT_MAX:
        raise InvalidEvent("", "an integer of more than 64 bits")
    return value


def _decimal(value: Decimal) -> int | float:
    if not value.is_finite():
        raise InvalidEvent("", f"{value} is not a number of JSON")
    if value.as_tuple().exponent == 0:
        return _integer(int(value))
    return finite("", float(value))


def _step(place: str | int) -> str:
    """What a key or an index adds to a path, short and printable: it ends up in logs."""
    if isinstance(place, int):
        return f"[{place}]"
    return f".{place}" if len(place) <= 80 and place.isprintable() else f".{place!r:.80}"


def exact(path: str, value: Any) -> str:
    """The text of a lazy string or of a subclass such as SafeString, as a ``str`` and nothing else."""
    try:
        return str.__str__(value if isinstance(value, str) else str(value))
    except Exception as error:
        raise _raised(path, error) from error


def shown(value: Any) -> str:
    """What a log or an error says of something that may not even be printed."""
    try:
        return repr(value)[:MAX_NAME]
    except Exception:
        return f"of type {type(value).__name__}"


def _raised(path: str, error: Exception) -> InvalidEvent:
    return InvalidEvent(path, f"could not be read: it raised {type(error).__name__}")


def plain(path: str, text: str) -> str:
    """``text``, if every receiver can store it."""
    if "\0" in text:
        raise InvalidEvent(path, "contains a NUL character")
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidEvent(path, "contains half of a surrogate pair") from None
    return text


def finite(path: str, number: float) -> float:
    if not isfinite(number):
        raise InvalidEvent(path, f"{number} is not a number of JSON")
    return number


def utc(moment: dt.datetime) -> dt.datetime:
    """``moment`` in UTC; a naive one is in Django's current time zone, as everywhere in Django."""
    if timezone.is_naive(moment):
        moment = timezone.make_aware(moment)
    return moment.astimezone(dt.UTC)


_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def _snake(name: str) -> str:
    """``cardNumber`` and ``card-number`` as ``_card_number_``."""
    return f"_{'_'.join(_WORDS.findall(name)).lower()}_"


@lru_cache(maxsize=512)
def _masked(names: tuple[str, ...], masked: frozenset[str]) -> list[str]:
    """Those of these names whose values are masked. Raises ``InvalidEvent`` for one that can't be stored everywhere."""
    for name in names:
        plain(_step(name), name)
    return [name for name in names if (is_masked if len(name) <= MAX_NAME else is_masked.__wrapped__)(name, masked)]


@lru_cache(maxsize=4096)
def is_masked(name: str, masked: frozenset[str]) -> bool:
    """Whether a property of this name is masked.

    Names are taken apart into words (``card_number``, ``cardNumber``), so that
    ``discard`` and ``cardigan`` are safe; a masked name of several words, such as
    ``api_key``, stands for these beside each other.
    """
    if name.lower() in {word.lower() for word in masked}:
        return True
    words = _snake(name)
    return any(_snake(word) in words for word in masked if word.isascii())


def properties(path: str, value: Any, masked: frozenset[str]) -> dict[str, Any]:
    """Copy, convert and mask the properties or traits of an event."""
    if value is None:
        return {}
    if not isinstance(value, (dict, Mapping)):  # a dict is seen at once, an abstract class asks around
        raise InvalidEvent(path, f"is of type {type(value).__name__}; it must be a dict")
    copied: dict[str, Any] = _walked(path, value, masked)
    return copied


def _walked(path: str, value: Any, masked: frozenset[str]) -> Any:
    try:
        return _Walk(masked).value(value)
    except InvalidEvent as error:
        raise error.within(path) from error.__cause__


def event_name(path: str, value: Any) -> str:
    """The name of an event: 1 to 200 characters."""
    if type(value) is not str:
        if isinstance(value, Enum):
            value = value.value
        if not isinstance(value, (str, Promise)):
            raise InvalidEvent(path, f"is of type {type(value).__name__}; it must be a string")
        value = exact(path, value)
    name = plain(path, value)
    if not name.strip():
        raise InvalidEvent(path, "is empty")
    if len(name) > MAX_NAME:
        raise InvalidEvent(path, f"has {len(name)} characters; {MAX_NAME} are allowed")
    return name


def identifier(path: str, value: Any) -> str | None:
    """A person's id as text of at most 255 characters; None and empty text are no id."""
    if value is None:
        return None
    if type(value) is not str:
        if isinstance(value, bool) or not isinstance(value, (str, int, UUID, Promise)):
            raise InvalidEvent(path, f"is of type {type(value).__name__}; it must be a string, an integer or a UUID")
        value = exact(path, value)
    text = plain(path, value)
    if len(text) > MAX_ID:
        raise InvalidEvent(path, f"has {len(text)} characters; {MAX_ID} are allowed")
    return text or None


def number(path: str, value: Any) -> int | float | None:
    """The value of an event: a finite number or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise InvalidEvent(path, f"is of type {type(value).__name__}; it must be a number")
    result: int | float = _walked(path, value, frozenset())
    return result


def moment(path: str, value: Any) -> dt.datetime:
    """When it happened, in UTC; None is now."""
    if value is None:
        return dt.datetime.now(dt.UTC)
    if not isinstance(value, dt.datetime):
        raise InvalidEvent(path, f"is of type {type(value).__name__}; it must be a datetime")
    try:
        return utc(value)
    except (OverflowError, ValueError) as error:
        raise InvalidEvent(path, "is outside of the years 1 to 9999 in UTC") from error


def subject(path: str, value: Any) -> Subject | None:
    """The saved model instance that the event is about."""
    if value is None:
        return None
    if not isinstance(value, Model):
        raise InvalidEvent(path, f"is of type {type(value).__name__}; it must be a model instance")
    if value.pk is None:
        raise InvalidEvent(path, "is not saved, so it has no primary key")
    if isinstance(value.pk, tuple):
        raise InvalidEvent(path, "has a composite primary key; a subject needs a single one")
    model = (value._meta.concrete_model or type(value))._meta.label
    return Subject(model=model, pk=plain(f"{path}.pk", exact(f"{path}.pk", value.pk)))
