"""Sample plugins with snippets, offered by the pretended distribution under ``installed``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.utils.safestring import mark_safe

import pluginhost
from pluginhost import hookimpl, to_js
from tests.samples import Recorder

if TYPE_CHECKING:
    from django.utils.safestring import SafeString


class Echo(Recorder):
    """Puts all that it is given into an array of the page, as ``[place, what, …]``; keeps what comes to its lane."""

    announces_identity = True

    class Options(pluginhost.Options):
        TEXT: Any = None
        QUEUE: str = "echoed"

    @hookimpl
    def render_client(self, page: pluginhost.Page) -> SafeString:
        queue, here = self.options.QUEUE, page.place
        calls: list[tuple[str | None, list[Any]]] = [(None, [here, "pushed option", self.options.TEXT])]
        calls += [(event.message_id, [here, "event", event.name, event.properties]) for event in page.events]
        pushed = page.push(queue, calls, self.alias)
        literals = ("option", self.options.TEXT), ("identity", page.identity)
        code = "".join(f"window.{queue}.push([{to_js(here)},{to_js(what)},{to_js(text)}]);" for what, text in literals)
        return page.script(pushed + code)


class Careless(pluginhost.Plugin):
    """Escapes nothing: what the tests of the browser must notice."""

    class Options(pluginhost.Options):
        HTML: str

    @hookimpl
    def render_client(self) -> SafeString:
        return mark_safe(self.options.HTML)
