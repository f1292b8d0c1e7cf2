"""What Matomo makes of a request to ``matomo.php`` (https://developer.matomo.org/api-reference/tracking-api).

Much of what it does not record is answered like what it does.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from . import rules
from .hits import GIF, Answer, Hit, Request, form, moment
from .rules import Excluded, Refused, Unclaimed
from .visitors import Visitors

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

#: The whole of what it says of a request that it refuses.
TEXT = b"This resource is part of Matomo."


class Matomo:
    name = "matomo"

    def __init__(
        self,
        sites: Collection[int],
        goals: Collection[int],
        token: str,
        super_token: str,
        keep: Callable[[Hit], None],
    ) -> None:
        """``token`` may write to each site, ``super_token`` may do all; ``keep`` is given each hit, kept or not."""
        self._sites, self._goals = frozenset(sites), frozenset(goals)
        self._tokens = frozenset({token, super_token})
        self._super_token = super_token
        self._keep = keep
        self.clear()

    def clear(self) -> None:
        self.visitors = Visitors()
        self._orders: set[tuple[str, str]] = set()
        self._count = 0

    def answer(self, request: Request, refusal: str = "") -> Answer:
        """Decide, and answer. With a ``refusal`` nothing is kept, for that reason."""
        if request.method == "OPTIONS":
            return Answer(204)
        if request.method == "POST" and request.body.find(b'"requests"') > 0:
            return self._bulk(request, refusal)
        sent = request.parameters()
        if not sent:
            return Answer(200 if request.method == "GET" else 400, TEXT)
        # A token that was made in Matomo 5 is refused in an address; one in the body or the header is believed.
        tokens = {form(request.body.decode("utf-8", "replace")).get("token_auth", ""), _bearer(request)} - {""}
        hit, invalid = self._hit(request, sent), True
        try:
            if len(tokens) > 1:
                raise Refused("two tokens that differ")
            self._decide(hit, request, refusal, authorised=bool(tokens & self._tokens))
            invalid = False
        except Excluded as reason:
            hit.refuse(str(reason))
            invalid = False
        except (Refused, Unclaimed) as reason:
            hit.refuse(str(reason))
        self._finish(hit)
        if invalid:
            return Answer(400, TEXT)
        return Answer(204) if sent.get("send_image") == "0" else Answer(200, GIF, "image/gif")

    def _hit(self, request: Request, sent: dict[str, str]) -> Hit:
        self._count += 1
        return Hit(
            provider=self.name,
            number=self._count,
            received=moment(request.at),
            origin=request.origin,
            sent={name: "********" if name == "token_auth" else value for name, value in sent.items()},
            user_agent=sent.get("ua") or request.headers.get("User-Agent", ""),
            user_id=sent.get("uid", "")[:200],
            time=moment(request.at),
        )

    def _decide(self, hit: Hit, request: Request, refusal: str, *, authorised: bool) -> None:
        """Fill the hit and store it. Raises ``Refused``, ``Excluded`` or ``Unclaimed``."""
        if refusal:
            raise Excluded(refusal)
        if rules.integer(hit.sent, "idsite") not in self._sites:
            raise Refused("idsite is missing, or there is no such site")
        rules.check(hit, authorised=authorised)
        if hit.kind != "bot":
            rules.read_action(hit, self._goals, referrer=request.headers.get("Referer", ""))
            address = hit.sent.get("cip") or request.address
            language = hit.sent.get("lang") or request.headers.get("Accept-Language", "")
            hit.person = self.visitors.recognise(hit, address, language)
        if hit.kind == "order":
            order = hit.sent["idsite"], hit.name
            if order in self._orders:
                hit.duplicate = True
                raise Excluded("a duplicate: this site has an order with this ec_id")
            self._orders.add(order)

    def _finish(self, hit: Hit) -> None:
        if hit.kept and hit.kind not in ("bot", "ping"):
            self.visitors.count(hit)
        self._keep(hit)

    def _bulk(self, request: Request, refusal: str) -> Answer:
        """Many hits in one request: a JSON object with a list ``requests``."""
        try:
            sent: dict[str, Any] = json.loads(request.body)
            entries = [entry for entry in map(_entry, sent["requests"]) if entry is not None]
        except (ValueError, TypeError, KeyError, AttributeError):
            return Answer(400, TEXT)
        token = str(sent.get("token_auth") or _bearer(request))
        invalid, hits = [], []
        for index, entry in enumerate(entries):
            hit = self._hit(request, entry)
            hits.append(hit)
            try:
                self._decide(hit, request, refusal, authorised=bool({token, entry.get("token_auth")} & self._tokens))
            except Excluded as reason:
                hit.refuse(str(reason))
            except Refused as reason:
                hit.refuse(str(reason))
                invalid.append(index)
            except Unclaimed as reason:
                return self._roll_back(hits, str(reason), len(invalid))
        for hit in hits:
            self._finish(hit)
        if "send_image" in sent and str(sent["send_image"]) in ("0", "", "False"):
            return Answer(204)
        outcome: dict[str, Any] = {"status": "success", "tracked": len(entries) - len(invalid), "invalid": len(invalid)}
        if token == self._super_token:
            outcome["invalid_indices"] = invalid
        return Answer(200, json.dumps(outcome).encode(), "application/json")

    def _roll_back(self, hits: list[Hit], reason: str, invalid: int) -> Answer:
        """An exception that is no hit's own fault takes the whole request back."""
        for hit in hits:
            if hit.kept and hit.kind == "order":
                self._orders.discard((hit.sent["idsite"], hit.name))
            hit.refuse(f"rolled back with the whole request: {reason}")
            self._finish(hit)
        outcome = {"status": "error", "tracked": len(hits) - 1 - invalid, "invalid": invalid}
        return Answer(500, json.dumps(outcome).encode(), "application/json")


def _bearer(request: Request) -> str:
    return request.headers.get("Authorization", "").removeprefix("Bearer ").strip()


def _entry(entry: str | dict[str, Any]) -> dict[str, str] | None:
    """An entry's parameters; None if it is text without a query, which is dropped without being counted."""
    if isinstance(entry, dict):
        return {str(name): str(value) for name, value in entry.items()}
    _, mark, query = entry.partition("?")
    return form(query) if mark and query else None
