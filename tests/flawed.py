"""More sample plugins, most of them wrong in one way each, of the pretended distribution ``pluginhost-flawed``."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import msgspec
from django.core.checks import Warning as Caution

import pluginhost
from pluginhost import hookimpl

if TYPE_CHECKING:
    from decimal import Decimal


class Last(pluginhost.Plugin):
    @hookimpl(trylast=True)
    def filter_request(self, user): ...


class OldWrapper(pluginhost.Plugin):
    @hookimpl(hookwrapper=True)
    def on_event(self, event):
        yield


class Generator(pluginhost.Plugin):
    @hookimpl
    def on_event(self, event):
        yield event


class AsyncGenerator(pluginhost.Plugin):
    @hookimpl
    async def on_event(self, event):
        yield event


class KeywordOnly(pluginhost.Plugin):
    @hookimpl
    def on_event(self, *, event): ...


class Varied(pluginhost.Plugin):
    @hookimpl
    def on_event(self, **arguments): ...


class Halfway(pluginhost.Plugin):
    """Its hooks are registered by name, so that the good one comes before the bad one."""

    called: ClassVar[list[Any]] = []

    @hookimpl
    def filter_request(self, user):
        self.called.append(user)
        return False

    @hookimpl
    def on_event(self, evnt): ...


class Named(pluginhost.Plugin):
    """A hook under a method of another name."""

    event_types = frozenset({"track"})

    @hookimpl(specname="on_event")
    def deliver(self, event): ...


class Lazy(pluginhost.Plugin):
    touched: ClassVar[list[str]] = []

    @cached_property
    def client(self):
        self.touched.append("client")

    @classmethod
    @hookimpl
    def filter_request(cls, user): ...

    @staticmethod
    @hookimpl
    def on_event(event): ...


class Optional(pluginhost.Plugin):
    """Implements a hook of a host to come."""

    @hookimpl(optionalhook=True)
    def on_something_new(self): ...

    @staticmethod
    @hookimpl
    def filter_request(user):
        return False


class NotOptions(pluginhost.Plugin):
    Options = dict


class NoClassOfOptions(pluginhost.Plugin):
    Options = pluginhost.Options()


def no_class(alias, options, lane): ...


class Unresolved(pluginhost.Plugin):
    class Options(pluginhost.Options):
        PRICE: Decimal


class Leaky(pluginhost.Plugin):
    """Shows its secret wherever it is told to."""

    class Options(pluginhost.Options):
        TOKEN: pluginhost.Secret
        AT: Literal["options", "options hard", "init", "setup", "check", "filter", "render", "event", ""] = ""
        MORE: dict[str, pluginhost.Secret] = {}
        CODE: Annotated[str, msgspec.Meta(pattern="^[0-9]*$")] = ""

        def __post_init__(self):
            if self.AT == "options":
                raise ValueError(f"bad token {self.TOKEN.reveal()}")
            if self.AT == "options hard":
                raise LookupError(f"no token {self.TOKEN.reveal()}")

    def __init__(self, *args):
        super().__init__(*args)
        self.leak("init")

    def leak(self, place):
        if place == self.options.AT:
            token = self.options.TOKEN.reveal()
            raise RuntimeError(f"{place} failed with {token}")

    def setup(self):
        self.leak("setup")

    def check(self):
        self.leak("check")
        return []

    @hookimpl
    def filter_request(self, user):
        self.leak("filter")

    @hookimpl
    def on_event(self, event):
        self.leak("event")

    @hookimpl
    def render_client(self, page):
        self.leak("render")


class Checked(pluginhost.Plugin):
    def check(self):
        return [Caution(f"{self.alias} looks odd.", hint="Look again.", id="flawed.W001")]


class BadlyChecked(pluginhost.Plugin):
    def check(self):
        return "odd"


class Shape:
    """A type that msgspec does not know."""


class Chosen(pluginhost.Plugin):
    class Options(pluginhost.Options):
        SHAPE: Shape | None = None

    purpose = "marketing"

    @hookimpl
    def on_event(self, event): ...
