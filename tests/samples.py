"""Sample plugins, offered by the two pretended distributions under ``tests/installed``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, ClassVar

import pluggy
from django.utils.safestring import mark_safe

import pluginhost
from pluginhost import hookimpl


class Recorder(pluginhost.Plugin):
    """Keeps what it is given, by alias; does what a test tells it to."""

    seen: ClassVar[dict[str, list[pluginhost.Event]]] = {}
    act: ClassVar[dict[str, Any]] = {}
    event_types = frozenset({"track", "page", "identify", "alias"})
    event_options = frozenset({"colour"})
    dedupes = True

    @classmethod
    def reset(cls) -> None:
        cls.seen.clear()
        cls.act.clear()

    @hookimpl
    def on_event(self, event):
        if act := self.act.get(self.alias):
            act(event)
        self.seen.setdefault(self.alias, []).append(event)


class Folder(Recorder):
    """The same for batches."""

    on_event = None
    batches: ClassVar[list[int]] = []

    @hookimpl
    def aggregate(self, batch):
        self.batches.append(len(batch))
        if act := self.act.get(self.alias):
            act(batch)
        self.seen.setdefault(self.alias, []).extend(batch)


class Broken(pluginhost.Plugin):
    """Raises in every hook."""

    @hookimpl
    def filter_request(self, request, user):
        raise RuntimeError("broken filter")

    @hookimpl
    def on_event(self, event):
        raise RuntimeError("broken delivery")

    @hookimpl
    def render_client(self, request, page):
        raise RuntimeError("broken snippet")


class Filter(pluginhost.Plugin):
    """Answers what a test tells it to, and counts how often it is asked."""

    answer: ClassVar[Any] = None
    asked: ClassVar[list[Any]] = []

    @hookimpl
    def filter_request(self, request, user):
        self.asked.append((request, user))
        return self.answer(request, user) if callable(self.answer) else self.answer


class Snippet(pluginhost.Plugin):
    @hookimpl
    def render_client(self, page):
        return mark_safe(f"<!-- {self.alias} {page.place} {page.nonce} -->")


class Unsafe(pluginhost.Plugin):
    @hookimpl
    def render_client(self):
        return "<script>alert(1)</script>"


class Configured(pluginhost.Plugin):
    class Options(pluginhost.Options):
        URL: str
        TOKEN: pluginhost.Secret
        RATE: float = 1.0

        def __post_init__(self):
            if self.RATE > 100:
                raise ValueError("RATE is above 100")

    @hookimpl
    def on_event(self, event):
        raise RuntimeError(f"could not post with {self.options.TOKEN.reveal()}")


class Misspelt(pluginhost.Plugin):
    @hookimpl
    def on_evnt(self, event): ...


class WrongArguments(pluginhost.Plugin):
    @hookimpl
    def on_event(self, evnt): ...


class Wrapper(pluginhost.Plugin):
    @hookimpl(wrapper=True)
    def on_event(self, event):
        return (yield)


class First(pluginhost.Plugin):
    @hookimpl(tryfirst=True)
    def on_event(self, event): ...


class Both(pluginhost.Plugin):
    @hookimpl
    def on_event(self, event): ...

    @hookimpl
    def aggregate(self, batch): ...


class Unmarked(pluginhost.Plugin):
    def on_event(self, event): ...


class Coroutine(pluginhost.Plugin):
    @hookimpl
    async def on_event(self, event): ...


class Default(pluginhost.Plugin):
    @hookimpl
    def on_event(self, event=None): ...


class Reserved(pluginhost.Plugin):
    class Options(pluginhost.Options):
        TIMEOUT: int = 3


class Future(pluginhost.Plugin):
    requires_host = "99.1"


class Modelled(pluginhost.Plugin):
    django_app = "pluginhost_absent"


class Properties(pluginhost.Plugin):
    """Its properties must not run while it is loaded."""

    touched: ClassVar[list[str]] = []

    @property
    def client(self):
        self.touched.append("client")
        raise RuntimeError("no connection yet")

    @hookimpl
    def on_event(self, event): ...


class FailingInit(pluginhost.Plugin):
    def __init__(self, *args):
        raise RuntimeError("no")


NOT_A_PLUGIN = pluggy.HookimplMarker


class Writer(pluginhost.Plugin):
    """Writes the names of events into a file; sleeps before one that is called ``slow``, forever at ``hang``."""

    dedupes = True

    class Options(pluginhost.Options):
        PATH: str

    @hookimpl
    def aggregate(self, batch):
        for event in batch:
            if event.name in ("slow", "hang"):
                time.sleep(3 if event.name == "slow" else 3600)
        with Path(self.options.PATH).open("a") as file:
            file.write("".join(f"{event.name} {event.message_id}\n" for event in batch))
