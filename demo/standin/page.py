"""The page that shows what was received. Each value passes ``escape``, and the policy allows nothing inline."""

from __future__ import annotations

from html import escape
from typing import Any

from .faults import FAULTS

#: Sent with every answer; a script or a GIF does not mind.
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self';"
        " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
#: Hits of a provider that are shown, the latest first.
SHOWN = 150
TITLES = {"kissmetrics": "KISSmetrics", "matomo": "Matomo"}
#: What says nothing to who looks at the page.
HIDDEN = frozenset({"pv_id"})


def render(snapshot: dict[str, Any]) -> str:
    """The whole page, of what ``StandIn.snapshot`` gives."""
    sections = "".join(_provider(name, snapshot[name], snapshot["faults"].get(name, "")) for name in TITLES)
    return f"""<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>What the providers got · Kiln &amp; Kettle</title>
  <link rel="icon" href="/icon.svg">
  <link rel="stylesheet" href="/page.css">
  <script src="/page.js" defer></script>
</head>
<body>
  <header class="top">
    <a class="brand" href="/"><img src="/icon.svg" alt="" width="32" height="32">What the providers got</a>
    <nav aria-label="Main">
      <a href="/">Reload</a>
      <a href="/received.json">As data</a>
      <form action="/clear" method="post"><button class="link">Forget everything</button></form>
    </nav>
  </header>
  <main data-version="{snapshot["version"]}">
    <p class="intro">This stands for KISSmetrics and Matomo. It answers as they do, keeps what they would keep,
      and says why it does not keep the rest.</p>
{sections}  </main>
</body>
</html>
"""


def _provider(name: str, found: dict[str, Any], fault: str) -> str:
    hits = found["hits"]
    kept = sum(hit["kept"] for hit in hits)
    browser = sum(hit["origin"] == "browser" for hit in hits)
    rows = "".join(map(_hit, reversed(hits[-SHOWN:])))
    more = f'<p class="soft">The latest {SHOWN} are shown.</p>' if len(hits) > SHOWN else ""
    table = f'<ol class="hits">{rows}</ol>{more}' if hits else '<p class="nothing">Nothing was received so far.</p>'
    who = _people(found["people"]) if name == "kissmetrics" else _visitors(found["visitors"])
    return f"""    <section id="{name}">
      <div class="title"><h2>{TITLES[name]}</h2>{_fault(name, fault)}</div>
      <ul class="counts">
        <li><strong>{kept}</strong> kept</li><li><strong>{len(hits) - kept}</strong> not kept</li>
        <li><strong>{len(hits) - browser}</strong> from the server</li>
        <li><strong>{browser}</strong> from a browser</li>
      </ul>
      {who}
      {table}
    </section>
"""


def _fault(name: str, fault: str) -> str:
    """What is wrong with the provider, and the form that changes it."""
    options = "".join(
        f'<option value="{kind}"{" selected" if kind == fault else ""}>{escape(f"{kind}: {what}")}</option>'
        for kind, what in FAULTS.items()
    )
    state = f'<span class="badge bad">fails: {escape(fault)}</span>' if fault else '<span class="badge">works</span>'
    return f"""<form class="fault" action="/faults" method="post">
        {state}<input type="hidden" name="provider" value="{name}">
        <select name="fault" aria-label="What is wrong with it">
          <option value="">nothing is wrong</option>{options}
        </select>
        <button>Set</button>
      </form>"""


def _people(people: list[list[str]]) -> str:
    merged = [person for person in reversed(people) if len(person) > 1]
    if not people:
        return ""
    rows = "".join(f"<li>{' = '.join(f'<code>{escape(identity)}</code>' for identity in ids)}</li>" for ids in merged)
    return _who(f"{_count(len(people), 'person', 'people')}, {len(merged)} known by several ids", rows)


def _visitors(visitors: list[dict[str, Any]]) -> str:
    if not visitors:
        return ""
    rows = []
    for visitor in reversed(visitors):
        users = "".join(f", user <code>{escape(user)}</code>" for user in visitor["user_ids"])
        others = [cookie for cookie in visitor["cookie_ids"] if cookie != visitor["visitor_id"]]
        cookies = "".join(f", cookie <code>{escape(cookie)}</code>" for cookie in others)
        numbers = f"{_count(visitor['hits'], 'hit')} in {_count(visitor['visits'], 'visit')}"
        rows.append(f"<li><code>{escape(visitor['visitor_id'])}</code>{users}{cookies}: {numbers}</li>")
    return _who(_count(len(visitors), "visitor"), "".join(rows))


def _who(summary: str, rows: str) -> str:
    return f'<div class="who"><h3>{summary}</h3><ul>{rows}</ul></div>'


def _hit(hit: dict[str, Any]) -> str:
    state = "" if hit["kept"] else f'<span class="badge bad">not kept</span> <em>{escape(hit["reason"])}</em>'
    notes = "".join(f"<li>{escape(note)}</li>" for note in hit["notes"])
    who = escape(hit["person"]) + (f" (user {escape(hit['user_id'])})" if hit["user_id"] else "")
    properties = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(_text(value))}</dd></div>"
        for name, value in hit["properties"].items()
        if name not in HIDDEN
    )
    return f"""<li class="{"kept" if hit["kept"] else "refused"}">
        <div class="what"><time datetime="{escape(hit["time"])}">{escape(hit["time"][11:19])}</time>
          <span class="badge {hit["origin"]}">{hit["origin"]}</span>
          <span class="kind">{escape(hit["kind"])}</span> <strong>{escape(hit["name"])}</strong>
          <code class="person">{who}</code> {state}</div>
        {f"<dl>{properties}</dl>" if properties else ""}{f'<ul class="notes">{notes}</ul>' if notes else ""}
      </li>"""


def _count(n: int, one: str, many: str = "") -> str:
    return f"{n} {one if n == 1 else many or f'{one}s'}"


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    if isinstance(value, dict):
        if "sku" in value:
            return f"{value['quantity']} \N{MULTIPLICATION SIGN} {value['name'] or value['sku']} at {value['price']:g}"
        return ", ".join(f"{name} {_text(part)}" for name, part in value.items() if part != "")
    if value == "":
        return "(empty)"
    return f"{value:g}" if isinstance(value, float) else str(value)
