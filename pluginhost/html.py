"""From ``render_client`` to the page: values become JavaScript in one place, and only safe strings get through."""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from pluginhost.events import Event  # noqa: TC001 - msgspec reads the annotations

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.http import HttpRequest

    from pluginhost.dispatch import Answer

logger = logging.getLogger("pluginhost.html")

Place = Literal["head", "body"]
PLACES: tuple[Place, ...] = get_args(Place)

#: The cookie by which a page, cached or not, learns of the last log-out in this browser.
SIGNED_OUT_COOKIE = "pluginhost_signed_out"

_ESCAPES = {ord(sign): f"\\u{ord(sign):04X}" for sign in "<>&'"}
_QUEUE = re.compile(r"[A-Za-z_$][\w$]*", re.ASCII)

#: Pushes each call, those with an id only once a browser. Sessions alone can't promise that: two tabs may be given
#: the same page, and a page may come from the browser's own cache.
_PUSH = (
    "(function(q,k,c){var s=[];try{s=JSON.parse(localStorage.getItem(k))}catch(e){}"
    "if(!Array.isArray(s))s=[];var b=s.slice();"
    "c.forEach(function(x){if(x[0]){if(b.indexOf(x[0])>=0)return;if(s.indexOf(x[0])<0)s.push(x[0])}q.push(x[1])});"
    "try{localStorage.setItem(k,JSON.stringify(s.slice(-200)))}catch(e){}})"
)
#: What was seen is remembered in localStorage, as browsers end the cookies of scripts early, and else in a cookie.
_SIGNED_OUT = (
    "(function(k){try{var c='; '+document.cookie+';',m=/; " + SIGNED_OUT_COOKIE + "=(\\d+);/.exec(c);"
    "if(!m)return false;"
    "try{if(localStorage.getItem(k)===m[1])return false;localStorage.setItem(k,m[1])}"
    "catch(e){k=k.replace(/:/g,'_')+'='+m[1];if(c.indexOf('; '+k+';')>=0)return false;"
    "document.cookie=k+';path=/;max-age=33696000;samesite=lax'}}catch(e){return false}return true})"
)


def to_js(value: Any) -> SafeString:
    """JavaScript that stands for ``value``, safe within a ``<script>`` whatever it holds.

    ``value`` is what JSON can hold. The text is plain ASCII, so that neither the
    page's encoding nor a parser of HTML finds anything in it. Raises ``TypeError``
    for what JSON cannot hold, ``ValueError`` for NaN, infinities and cycles.
    """
    text = json.dumps(value, allow_nan=False)
    if '"__proto__"' in text:  # in an object literal this key would set the prototype instead
        text = f"JSON.parse({json.dumps(text)})"
    return mark_safe(text.translate(_ESCAPES))  # noqa: S308 - this is where text becomes safe


def signed_out(alias: str) -> str:
    """A JavaScript expression: true once for each alias and browser after a log-out.

    A browser without localStorage remembers it in a cookie.
    """
    return f"{_SIGNED_OUT}({to_js(f'pluginhost:{alias}:signed_out')})"


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """What a plugin may know of the page that it renders into."""

    place: Place
    nonce: str | None = None
    """The nonce of the page's Content-Security-Policy, if it has one."""
    identity: str | None = None
    """The id of the user to announce. None: nobody is logged in, or it is not known who."""
    events: tuple[Event, ...] = ()
    """Client events that wait for a page: render them at whatever place they come, they come once."""
    counts_view: bool = True
    """Whether the browser is to count this page view; False if the server does."""

    def script(self, code: str) -> SafeString:
        """``code`` in a ``<script>`` with the page's nonce.

        ``code`` is made of constants and ``to_js``. Raises ``ValueError`` if it could
        end the element: then a value has not passed ``to_js``.
        """
        if re.search(r"</script|<!--|<script", code, re.IGNORECASE):
            raise ValueError("the code of a script holds a tag of HTML; pass each value through to_js")
        nonce = format_html(' nonce="{}"', self.nonce) if self.nonce else ""
        return mark_safe(f"<script{nonce}>{code}</script>")  # noqa: S308 - checked above

    def push(self, queue: str, calls: Iterable[tuple[str | None, list[Any]]], alias: str) -> str:
        """JavaScript that makes the array ``queue`` if there is none, and pushes each call into it.

        A call with a message id is pushed once a browser, one with None always.
        Several calls may share an id. Raises ``ValueError`` if ``queue`` is no name.
        """
        if not _QUEUE.fullmatch(queue):
            raise ValueError(f"{queue!r} is no name for a queue")
        key = to_js(f"pluginhost:{alias}:sent")
        return f"{_PUSH}(window.{queue}=window.{queue}||[],{key},{to_js([list(call) for call in calls])});"


def csp_nonce(request: HttpRequest) -> str | None:
    """The request's CSP nonce: of Django's own middleware (6.0 and later) or of django-csp, else None.

    None also where django-csp 4 refuses to make one because its header has gone out.
    """
    try:
        from django.middleware.csp import get_nonce  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        nonce: Any = None
    else:
        nonce = get_nonce(request)
    if nonce is None:
        nonce = getattr(request, "csp_nonce", None)
    try:
        return None if nonce is None else str(nonce)
    except Exception as error:
        logger.error("the page's nonce can't be had any more: %s", error)
        return None


def accepted(answer: Answer) -> bool:
    """Whether a plugin's part may stand in a page; one that is no safe string is logged."""
    if isinstance(answer.value, SafeString):
        return True
    if answer.value is not None:
        kind = type(answer.value).__name__
        logger.error("plugin %s: render_client gave %s, not a safe string; left out", answer.alias, kind)
    return False


def join(parts: Iterable[SafeString]) -> SafeString:
    """The parts of one place, a line each."""
    return mark_safe("\n".join(parts))  # noqa: S308 - every part is safe
