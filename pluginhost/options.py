"""Validates what a project wrote against what a struct declares, with errors that say what would be right."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

import msgspec

from pluginhost.plugin import LaneOptions, Secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """``Did you mean 'x'? `` or nothing, by likeness."""
    known = {choice.lower(): choice for choice in choices}
    close = get_close_matches(str(word).lower(), known, n=1)
    return f"Did you mean {known[close[0]]!r}? " if close else ""


def listing(words: Iterable[str]) -> str:
    return ", ".join(words) or "none"


def _convert_custom(kind: type, value: Any) -> Any:
    """msgspec's hook for types that it does not know."""
    if isinstance(value, kind):
        return value
    if kind is Secret:
        return Secret(value)
    raise TypeError(f"expected `{kind.__name__}`, got `{type(value).__name__}`")


@cache
def _fields(kind: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    """Kept, as msgspec evaluates all annotations each time."""
    return msgspec.structs.fields(kind)


def problems_and_values(kind: type[msgspec.Struct], given: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Check each known key of ``given`` against the struct ``kind``; a value never appears in a problem."""
    problems, values = [], {}
    for field in _fields(kind):
        if field.name not in given:
            if field.required:
                problems.append(f"the option {field.name} is missing.")
            continue
        try:
            values[field.name] = msgspec.convert(given[field.name], field.type, dec_hook=_convert_custom)
        except (msgspec.ValidationError, TypeError) as error:
            problems.append(f"{field.name}: {_problem(field.type, given[field.name], error)}")
    return problems, values


def _problem(kind: Any, value: Any, error: Exception) -> str:
    problem = str(error).replace(" - at `$`", "")
    words = tuple(_words(kind))
    if words and (get_origin(kind) is Literal or problem.startswith("Invalid enum value")):  # msgspec quotes the value
        close = did_you_mean(value, words) if isinstance(value, str) else ""
        return f"must be one of {listing(map(repr, words))}. {close}".rstrip()
    return f"{problem}."


def _words(kind: Any) -> Iterator[Any]:
    """Those that a type allows, at any depth."""
    if get_origin(kind) is Literal:
        yield from get_args(kind)
    else:
        for part in get_args(kind):
            yield from _words(part)


def build(kind: type[msgspec.Struct], given: Mapping[str, Any]) -> tuple[list[str], Any]:
    """What is wrong with ``given``, and the struct made of it, which is None if anything is."""
    problems, values = problems_and_values(kind, given)
    if problems:
        return problems, None
    try:
        return [], kind(**values)
    except ValueError as error:
        return [f"{redacted(str(error), values)}."], None
    except Exception as error:
        return [f"{kind.__qualname__} raised {type(error).__name__}: {redacted(str(error), values)}."], None


def redacted(text: str, holder: Any) -> str:
    """``text`` without the secrets that ``holder`` (options, a dict, a list of them) holds."""
    for secret in _secrets(holder):
        text = text.replace(secret, "********")
    return text


def _secrets(holder: Any) -> Iterator[str]:
    if isinstance(holder, Secret):
        yield from filter(None, (holder.reveal(), _password(holder.reveal())))
    elif isinstance(holder, msgspec.Struct):
        yield from _secrets([getattr(holder, name) for name in names(type(holder))])
    elif isinstance(holder, dict):
        yield from _secrets([*holder.keys(), *holder.values()])
    elif isinstance(holder, (list, tuple, set, frozenset)):
        for value in holder:
            yield from _secrets(value)


def _password(text: str) -> str | None:
    """The password within a secret that is a URL."""
    try:
        return urlsplit(text).password
    except ValueError:
        return None


def names(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    return kind.__struct_fields__


LANE_OPTIONS = frozenset(names(LaneOptions))
