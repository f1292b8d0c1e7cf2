"""From a page and options to JavaScript. Pure. Every value crosses through ``to_js`` or ``Page.push``.

Globals, queue and loader: KISSmetrics, "JavaScript Library" (support.kissmetrics.io, 2026).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pluginhost import PermanentError, to_js
from pluginhost.html import signed_out
from pluginhost_kissmetrics import identity, payload

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.utils.safestring import SafeString

    from pluginhost import Event, Page
    from pluginhost_kissmetrics.options import Options

QUEUE = "_kmq"

#: What each word of the option SKIP turns off in KISSmetrics' script.
SKIPS = {
    "form_fields": "KM_SKIP_FORM_FIELDS",
    "page_view": "KM_SKIP_PAGE_VIEW",
    "referrer": "KM_SKIP_REFERRER",
    "returning": "KM_SKIP_RETURNING",
    "search_engine": "KM_SKIP_SEARCH_ENGINE",
    "url": "KM_SKIP_URL",
    "utm": "KM_SKIP_UTM",
    "visited_site": "KM_SKIP_VISITED_SITE",
}

#: Names the visitor once a log-in, and forgets at a log-out; never are two persons made one. Arguments: the queue, a
#: key of localStorage, the id of the visitor or null, and whether this browser has just been signed out.
#:
#: ``seen`` is whom this script named last, or "" from a log-out until KISSmetrics' script has forgotten. ``name`` is
#: whom that script knows (km_ni); with km_ai alone it knows nobody. Why:
#: - ``identify`` for an anonymous browser makes that browser's past and the person one, so whoever was there before
#:   is cleared first: another one seen, or another one named by anybody.
#: - What was pushed is lost if the visitor leaves before the script is there, so the cookies have the last word.
#: - Without localStorage the cookies decide alone.
_IDENTITY = (
    "(function(q,key,id,out){"
    'var seen=null,name=null,cookies="";'
    "try{seen=localStorage.getItem(key)}catch(e){}"
    "try{cookies=document.cookie}catch(e){}"
    "var found=/(?:^|; )km_ni=([^;]+)/.exec(cookies),anonymous=!found&&/(?:^|; )km_ai=/.test(cookies);"
    "if(found){try{name=decodeURIComponent(found[1])}catch(e){name=found[1]}}"
    'if(out)seen="";'
    "var other=id!==null&&seen!==id&&(!!seen||name!==null&&name!==id);"
    'var clear=out||other||seen===""&&name!==null;'
    "var tell=id!==null&&(clear||(seen===id?anonymous:name!==id));"
    'if(clear)q.push(["clearIdentity"]);'
    'if(tell)q.push(["identify",id]);'
    'if(id!==null)seen=id;else if(seen===""&&anonymous)seen=null;'
    "try{if(seen===null)localStorage.removeItem(key);else localStorage.setItem(key,seen)}catch(e){}"
    "})"
)

#: Loads scripts that take over the nonce of ours, for policies that trust nonces only.
_LOAD = (
    "(function(urls,nonce){urls.forEach(function(url){"
    'var s=document.createElement("script");s.async=true;s.src=url;if(nonce)s.nonce=nonce;'
    "document.head.appendChild(s)})})"
)


def render(page: Page, alias: str, options: Options) -> SafeString | None:
    """The plugin's part of a place: in the head all of it, in the body only events that came late."""
    code = "".join(_head(page, alias, options) if page.place == "head" else _events(page, alias, options))
    return page.script(code) if code else None


def _head(page: Page, alias: str, options: Options) -> Iterator[str]:
    if options.LOADER:
        yield from _globals(page, options)
    if options.LOADER or options.IDENTIFY:
        yield f"window.{QUEUE}=window.{QUEUE}||[];"
    if options.IDENTIFY:
        key = to_js(f"pluginhost:{alias}:identity")
        person = to_js(identity.usable(page.identity))
        yield f"{_IDENTITY}(window.{QUEUE},{key},{person},{signed_out(alias)});"
    yield from _events(page, alias, options)
    if options.LOADER:
        urls = [options.LOADER_URL, f"{options.SCRIPT_URL}/{options.API_KEY.reveal()}.2.js"]
        yield f"{_LOAD}({to_js(urls)},(document.currentScript||{{}}).nonce);"


def _globals(page: Page, options: Options) -> Iterator[str]:
    """What has to be there before KISSmetrics' script."""
    yield f"window._kmk={to_js(options.API_KEY.reveal())};"
    if options.COOKIE_DOMAIN is not None:
        yield f"window.KM_COOKIE_DOMAIN={to_js(options.COOKIE_DOMAIN)};"
    skipped = set(options.SKIP) if page.counts_view else {*options.SKIP, "page_view"}
    for word in sorted(skipped):
        yield f"window.{SKIPS[word]}=1;"


def _events(page: Page, alias: str, options: Options) -> Iterator[str]:
    calls = [(event.message_id, _record(event, alias, options)) for event in page.events]
    if calls:
        yield page.push(QUEUE, calls, alias)


def _record(event: Event, alias: str, options: Options) -> list[Any]:
    """The call for one event, by the same rules as on the server. Its time is the browser's."""
    try:
        properties = payload.properties_of(event, alias, options.VALUE_PROPERTY)
    except PermanentError:  # a page has no dead letters; the event is worth more than its value
        properties = payload.flat(event.properties)
    return ["record", payload.event_name(event), *([properties] if properties else [])]
