"""Deletes a person's visits by Matomo's Reporting API, as its page "GDPR Tools" does.

Sources: Matomo's reference "Reporting API", "Segmentation in the API", and the source
of its plugin PrivacyManager (5.x): ``findDataSubjects`` gives 401 visits at most, and
none where visitor profiles are off; ``deleteDataSubjects`` takes pairs of site and visit,
deletes their raw data and has the reports of their days made anew. Both want admin access.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import msgspec

from pluginhost import DeliveryError
from pluginhost_piwik import answers, visitors
from pluginhost_piwik.client import Body, Client

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pluginhost import Person

#: Bytes of an answer that are read: 401 visits are less than one of these megabytes.
MAX_REPORT = 8 * 1024 * 1024
#: Searches for one id, at most, each of which may find 401 visits.
MAX_ROUNDS = 500
#: So often a value in a segment is decoded: once by the rules, more by some versions.
DECODED = (1, 2, 3)
#: These say in their body what is wrong.
SPEAKING = frozenset({400, 401, 403, 500})


class Ids(msgspec.Struct, frozen=True):
    """What Matomo may know a person by."""

    user_ids: frozenset[str]
    visitor_ids: frozenset[str]

    def in_words(self) -> str:
        """As its page "GDPR Tools" calls them."""
        words = [*(f"User ID {id_}" for id_ in sorted(self.user_ids))]
        return ", ".join([*words, *(f"Visitor ID {id_}" for id_ in sorted(self.visitor_ids))])

    def segments(self) -> Iterator[str]:
        for id_ in sorted(self.visitor_ids):
            yield f"visitorId=={id_}"
        for id_ in sorted(self.user_ids):
            yield from dict.fromkeys(f"userId=={_encoded(id_, times)}" for times in DECODED)

    def have(self, visit: Mapping[str, Any]) -> bool:
        visitor_id = str(visit.get("visitorId") or "").lower()
        return visitor_id in self.visitor_ids or str(visit.get("userId") or "") in self.user_ids


def _encoded(value: str, times: int) -> str:
    for _ in range(times):
        value = quote(value, safe="")
    return value


def ids_of(person: Person, keys: Sequence[bytes]) -> Ids:
    """The ids of a person in Matomo: given, derived as for hits, and as Matomo itself derives them of a user id.

    ``keys`` are those that hits were and are derived with.
    """
    users = [id_ for id_ in person.user_ids if visitors.person(id_)]
    browsers = [id_ for id_ in person.anonymous_ids if visitors.person(id_)]
    sent = {sent for id_ in users if (sent := visitors.user_id(id_))}
    return Ids(
        user_ids=frozenset(sent),
        visitor_ids=frozenset(
            {
                *(visitors.derived("user", id_, key) for id_ in users for key in keys),
                *(visitors.derived("anonymous", id_, key) for id_ in browsers for key in keys),
                *(id_.lower() for id_ in browsers if visitors.VISITOR_ID.fullmatch(id_)),
                # With enable_userid_overwrites_visitorid, which is on unless a server turns it off.
                *(hashlib.sha1(id_.encode(), usedforsecurity=False).hexdigest()[:16] for id_ in sent),
            }
        ),
    )


class Reporting(Client):
    """Asks one Matomo's Reporting API. No error shows the token; none but Matomo's own words may show an id."""

    def call(self, method: str, **parameters: Any) -> Any:
        """What the method answers. All but its name is in the body: addresses stand in logs.

        Raises ``Refused`` for what Matomo says is wrong, ``Absent`` if there is no such
        API, and the other delivery errors.
        """
        content = urlencode({**parameters, "token_auth": self._token})
        status, headers, text = self._exchange(
            Body(content.encode()),
            url=f"{self._url}?module=API&method={method}&format=json",
            kind="application/x-www-form-urlencoded",
            most=MAX_REPORT,
            judge=_by_status,
        )
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            kind = headers.get("Content-Type", "").partition(";")[0][:60] or "something"
            raise DeliveryError(f"{self._host} answered {status} with {kind} that is not its Reporting API's") from None
        if isinstance(answer, dict) and answer.get("result") == "error":
            raise Refused(f"{self._host} says: {str(answer.get('message', ''))[:300]}")
        return answer

    def visits_in(self, answer: Any) -> list[dict[str, Any]]:
        """The visits of an answer. Raises ``DeliveryError`` if it is none: that nothing was found must be said."""
        if isinstance(answer, dict):  # PHP makes an object of a list with gaps
            answer = list(answer.values())
        if isinstance(answer, list) and all(isinstance(visit, dict) and "idVisit" in visit for visit in answer):
            return answer
        raise DeliveryError(f"{self._host} did not answer with a list of visits")


class Refused(DeliveryError):
    """What Matomo's API says in its own words."""


class Absent(DeliveryError):
    """There is no API where it would be, as with the tracker's address of a proxy."""


def _by_status(status: int, headers: Mapping[str, str]) -> None:
    if status in (404, 405, 410):
        raise Absent(f"answered {status}: there is no index.php beside the tracker")
    if status not in SPEAKING:
        answers.by_status(status, headers)


def may_delete(reporting: Reporting, site_id: int) -> bool:
    """Whether the token's user has admin access to the site."""
    sites = reporting.call("SitesManager.getSitesIdWithAdminAccess", filter_limit=-1)
    return str(site_id) in {str(site) for site in (sites if isinstance(sites, list) else ())}


def can_find(reporting: Reporting, site_id: int) -> bool:
    """Whether people can be found at all: visitor profiles may be off. Versions without that switch find them."""
    try:
        answer = reporting.call("Live.isVisitorProfileEnabled", idSite=site_id)
    except Refused:
        return True
    return not (isinstance(answer, dict) and answer.get("value") in (False, 0, "0"))


def delete(reporting: Reporting, site_id: int, ids: Ids) -> int:
    """Delete the visits of these ids, and say how many. Raises the delivery errors; what is deleted then is.

    A visit is deleted only if it says itself that it is of one of the ids, whatever a search has found.
    """
    deleted: set[str] = set()
    for segment in ids.segments():
        for _ in range(MAX_ROUNDS):
            found = reporting.call("PrivacyManager.findDataSubjects", idSite=site_id, segment=segment)
            theirs = {
                str(visit["idVisit"])
                for visit in reporting.visits_in(found)
                if str(visit.get("idSite")) == str(site_id) and ids.have(visit)
            }
            if not theirs:
                break
            if theirs <= deleted:
                raise DeliveryError(f"{len(theirs)} visits are still there after they were deleted")
            reporting.call("PrivacyManager.deleteDataSubjects", **_visits(site_id, theirs))
            deleted |= theirs
        else:
            raise DeliveryError(f"{len(deleted)} visits were deleted, and there may be more: run this again")
    return len(deleted)


def _visits(site_id: int, visits: set[str]) -> dict[str, Any]:
    """As PHP takes a list of pairs from a form."""
    pairs: dict[str, Any] = {}
    for number, visit in enumerate(sorted(visits)):
        pairs |= {f"visits[{number}][idsite]": site_id, f"visits[{number}][idvisit]": visit}
    return pairs
