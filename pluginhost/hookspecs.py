"""The four hooks: all that a plugin can take part in.

Hooks are synchronous, return values, and change none of their arguments. An
implementation names only the arguments that it wants. The host calls plugins in
the order of the setting; what one of them raises never reaches another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.utils.safestring import SafeString

    from pluginhost.events import Batch, Event
    from pluginhost.html import Page

hookspec = pluggy.HookspecMarker("pluginhost")
hookimpl = pluggy.HookimplMarker("pluginhost")


@hookspec
def filter_request(request: HttpRequest | None, user: Any) -> bool | frozenset[str] | None:
    """Decide whether this activity may be tracked, and for which purposes.

    Called once a request, at its first event, and again when the request's user
    changes; without a request for events of a user alone. ``user`` is the user
    that is already known, or None: the host never resolves one to ask.

    ``False``: nothing is tracked. A frozenset of purposes: only plugins whose
    declared purpose is among them. ``None`` or ``True``: no objection. Several
    answers are combined to the strictest. A filter that raises has no opinion.
    """


@hookspec
def on_event(event: Event) -> None:
    """Deliver one event.

    Called in the plugin's lane, in a worker, for each event, and again after a
    failure. For receivers that take one thing at a time. Raise one of the
    delivery errors to say what becomes of the event; anything else that is
    raised is logged and tried again.
    """


@hookspec
def aggregate(batch: Batch) -> None:
    """Deliver many events at once.

    Called in the plugin's lane, in a worker, for each batch. For receivers with
    a bulk call, and for storages that fold many events into few rows. A plugin
    implements this or ``on_event``, not both. ``PartialFailure`` names the
    events that failed; the other delivery errors speak of the whole batch.
    """


@hookspec
def render_client(request: HttpRequest, page: Page) -> SafeString | None:
    """Give the plugin's HTML for this page.

    Called while the page is rendered, once a place. The answer is a safe string
    (``format_html``, ``mark_safe``) or None. An unsafe string is refused; one
    that raises leaves its part of the page out.
    """
