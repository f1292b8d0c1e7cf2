"""Sample plugins, offered by the two pretended distributions under ``tests/installed``."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any, ClassVar

import pluggy
from asgiref.sync import async_to_sync
from django.utils.safestring import mark_safe

import pluginhost
from pluginhost import CookieIds, hookimpl, to_js


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


class Plain(Recorder):
    """Of one whose receiver cannot tell two from one."""

    dedupes = False


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


class VariesOnText(pluginhost.Plugin):
    varies_on = "Cookie"


class VariesOnList(pluginhost.Plugin):
    def __init__(self, *args):
        super().__init__(*args)
        self.varies_on = ["Cookie"]


class Uncertain(pluginhost.Plugin):
    @property
    def announces_identity(self):
        return 1 / 0


class FailingInit(pluginhost.Plugin):
    def __init__(self, *args):
        raise RuntimeError("no")


NOT_A_PLUGIN = pluggy.HookimplMarker


class Writer(pluginhost.Plugin):
    """Writes the names of events into a file; sleeps before one that is called ``slow``, forever at ``hang``.

    When there is a file of the same name with ``.mended``, nothing hangs any more.
    """

    dedupes = True

    class Options(pluginhost.Options):
        PATH: str

    @hookimpl
    def aggregate(self, batch):
        for event in batch:
            if event.name in ("slow", "hang") and not Path(f"{self.options.PATH}.mended").exists():
                time.sleep(3 if event.name == "slow" else 3600)
        with Path(self.options.PATH).open("a") as file:
            file.write("".join(f"{event.name} {event.message_id}\n" for event in batch))


class Tag(pluginhost.Plugin):
    """A provider's snippet: tells the browser what the page said, and pushes the events."""

    act: ClassVar[dict[str, Any]] = Recorder.act
    event_options = frozenset({"colour"})

    @hookimpl
    def render_client(self, request, page):
        if act := self.act.get(self.alias):
            act(request, page)
        events = [[e.message_id, e.name, e.properties, e.value] for e in page.events]
        facts = {
            "alias": self.alias,
            "place": page.place,
            "identity": page.identity,
            "counts_view": page.counts_view,
            "events": events,
        }
        calls = [(message_id, ["record", name, properties]) for message_id, name, properties, _ in events]
        return page.script(f"tag({to_js(facts)});{page.push('_tag', calls, self.alias)}")


class NameTag(Tag):
    """One that names the visitor."""

    announces_identity = True


def content(response: Any) -> str:
    """The text of a response, also of one that streams."""
    if not response.streaming:
        return str(response.text)
    if not response.is_async:
        return b"".join(response).decode()

    async def read() -> bytes:
        return b"".join([part async for part in response])

    return async_to_sync(read)().decode()


def told(html: str) -> list[dict[str, Any]]:
    """What the tags in a page say, in their order."""
    return [json.loads(facts) for facts in re.findall(r"tag\(({.*?})\);\(function", html)]


class Robots(pluginhost.Plugin):
    """Keeps out what calls itself a robot."""

    varies_on = frozenset({"User-Agent"})

    @hookimpl
    def filter_request(self, request):
        return False if request is not None and "robot" in request.headers.get("User-Agent", "") else None


class Privacy(pluginhost.Plugin):
    """Keeps out who asks for it by Global Privacy Control."""

    varies_on = frozenset({"Sec-GPC", "DNT"})

    @hookimpl
    def filter_request(self, request):
        return False if request is not None and request.headers.get("Sec-GPC") == "1" else None


class Cookies(Recorder):
    """A provider whose cookie gives browsers an id."""

    def cookie_ids(self, request):
        if act := self.act.get(f"{self.alias}.cookie_ids"):
            return act(request)
        own = request.COOKIES.get("provider")
        return None if own is None else CookieIds(own, own)


class Visitors(Cookies):
    """And one that has another id for the same browser."""

    def cookie_ids(self, request):
        if act := self.act.get(f"{self.alias}.cookie_ids"):
            return act(request)
        return CookieIds(request.COOKIES.get("provider"), "visitor-" + self.alias)


class Screener(pluginhost.Plugin):
    """Looks at the events of all lanes."""

    act: ClassVar[dict[str, Any]] = Recorder.act

    class Options(pluginhost.Options):
        TOKEN: pluginhost.Secret = pluginhost.Secret("")

    def screen(self, event):
        return self.act[self.alias](event) if self.alias in self.act else True
