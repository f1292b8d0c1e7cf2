"""A person is forgotten in Matomo: whom it looks for, what it deletes, and what is left to do by hand."""

from __future__ import annotations

import hashlib
import re
from typing import Any
from urllib.parse import unquote_plus

import pytest

from pluginhost import DeliveryError, Person, RetryableError
from pluginhost_piwik.people import MAX_ROUNDS
from plugins.piwik.tests.helpers import TOKEN, event, plugin
from tests.servers import free_port

ADA = Person(user_ids=("ada",), anonymous_ids=("a browser", "0123456789ABCDEF"))


class Visits:
    """Matomo's visits, found and deleted by its Reporting API. Decodes values as often as told."""

    def __init__(self, *visits: dict[str, Any], decodes: int = 1, at_once: int = 401) -> None:
        self.visits = [{"idSite": 1, "idVisit": number, **visit} for number, visit in enumerate(visits, 1)]
        self.decodes, self.at_once = decodes, at_once
        self.admin: Any = ["1", "2"]
        self.profiles: Any = {"value": True}
        self.deletes = True

    @property
    def left(self) -> list[int]:
        return [visit["idVisit"] for visit in self.visits]

    def __call__(self, method: str, form: dict[str, str]) -> Any:
        assert form["token_auth"] == TOKEN
        if method == "SitesManager.getSitesIdWithAdminAccess":
            return self.admin
        if method == "Live.isVisitorProfileEnabled":
            return self.profiles
        assert method in ("PrivacyManager.findDataSubjects", "PrivacyManager.deleteDataSubjects")
        if method.endswith("deleteDataSubjects"):
            given = re.findall(r"visits\[\d+\]\[idvisit\] (\d+)", "\n".join(map(" ".join, form.items())))
            assert all(form[name] == "1" for name in form if name.endswith("[idsite]"))
            if self.deletes:
                self.visits = [visit for visit in self.visits if str(visit["idVisit"]) not in given]
            return {"log_visit": len(given)}
        name, _, value = form["segment"].partition("==")
        for _ in range(self.decodes):
            value = unquote_plus(value)
        return [visit for visit in self.visits if str(visit.get(name, "")) == value][: self.at_once]


def forget(matomo: Any, visits: Any, person: Person = ADA, url: str = "", **options: Any) -> str:
    matomo.api = visits
    of = plugin(url or matomo.url, **{"TOKEN_AUTH": TOKEN, **options})
    of.setup()
    try:
        return of.forget(person)
    finally:
        of.close()


def sent_id(matomo: Any, **who: Any) -> str:
    """The visitor id that a hit of such an event carries."""
    of = plugin(matomo.url)
    of.setup()
    of._post([_sent(of, event("x", **who))])
    of.close()
    return matomo.hits[-1]["_id"]


def _sent(of: Any, one: Any) -> Any:
    from pluginhost_piwik import payload
    from pluginhost_piwik.refusals import Sent

    return Sent(one.message_id, payload.hits(one, of._site(), one.timestamp))


def test_visits_of_every_id_that_hits_carry_are_deleted(matomo):
    own = [
        {"visitorId": sent_id(matomo, user_id="ada")},
        {"visitorId": sent_id(matomo, anonymous_id="a browser", user_id="whoever")},
        {"visitorId": sent_id(matomo, anonymous_id="0123456789ABCDEF")},
        {"visitorId": hashlib.sha1(b"ada").hexdigest()[:16]},
        {"visitorId": "ffffffffffffffff", "userId": "ada"},
    ]
    visits = Visits(*own, {"visitorId": "eeeeeeeeeeeeeeee", "userId": "bea"})
    said = forget(matomo, visits)
    assert visits.left == [6]
    assert said.startswith("5 visits were deleted from site 1. ")


def test_visits_of_before_the_key_was_changed_are_deleted(matomo, settings):
    settings.SECRET_KEY = "the key before"
    visits = Visits({"visitorId": sent_id(matomo, user_id="ada")})
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "the key now", ["the key before"]
    forget(matomo, visits)
    assert visits.left == []


def test_nothing_but_the_method_stands_in_the_address(matomo):
    forget(matomo, Visits())
    assert {form["idSite"] for method, form in matomo.calls if method.endswith("findDataSubjects")} == {"1"}
    assert all(form["token_auth"] == TOKEN for _, form in matomo.calls)


def test_nobody_is_found_of_somebody_who_is_nobody(matomo):
    said = forget(matomo, Visits(), Person(user_ids=("None", ""), anonymous_ids=("anonymous",)))
    assert said.startswith("0 visits were deleted")
    assert not [method for method, _ in matomo.calls if method.startswith("PrivacyManager")]


@pytest.mark.parametrize("decodes", [1, 2, 3])
@pytest.mark.parametrize("id_", ["a,b;c", "a+b@example.com", "50%2C", "Zoë Ünal", "x==y", "a/b?c&d=e#f"])
def test_any_user_id_is_found(matomo, id_, decodes):
    visits = Visits({"userId": id_}, {"userId": "another"}, decodes=decodes)
    forget(matomo, visits, Person(user_ids=(id_,)))
    assert visits.left == [2]


def test_more_visits_than_matomo_gives_at_once(matomo):
    visits = Visits(*[{"userId": "ada"}] * 7, {"userId": "bea"}, at_once=3)
    assert forget(matomo, visits).startswith("7 visits were deleted")
    assert visits.left == [8]


def test_what_a_search_finds_beside_is_not_deleted(matomo):
    """As with a segment that is misunderstood, or another site."""
    visits = Visits({"userId": "bea", "visitorId": "f" * 16}, {"userId": "ada", "idSite": 2}, {"userId": "ada"})
    matched = Visits.__call__

    def all_of_them(method: str, form: dict[str, str]) -> Any:
        return visits.visits if method.endswith("findDataSubjects") else matched(visits, method, form)

    assert forget(matomo, all_of_them).startswith("1 visit was deleted")
    assert visits.left == [1, 2]


def test_visits_that_stay_are_a_failure(matomo):
    visits = Visits({"userId": "ada"})
    visits.deletes = False
    with pytest.raises(DeliveryError, match="1 visits are still there after they were deleted"):
        forget(matomo, visits)
    assert len(matomo.calls) < MAX_ROUNDS


@pytest.mark.parametrize(
    "answer", [{"result": "success"}, "none", {"value": False}, [{"idSite": 1}], [["1"]], None], ids=repr
)
def test_an_answer_that_is_no_list_of_visits_is_a_failure(matomo, answer):
    """It would else look as if nothing were there."""
    known = Visits()

    def strange(method: str, form: dict[str, str]) -> Any:
        return answer if method.endswith("findDataSubjects") else known(method, form)

    with pytest.raises(DeliveryError, match="did not answer with a list of visits"):
        forget(matomo, strange)


def test_a_list_with_gaps_is_one(matomo):
    visits = Visits({"userId": "bea"}, {"userId": "ada"})

    def gappy(method: str, form: dict[str, str]) -> Any:
        found = visits(method, form)
        if method.endswith("findDataSubjects") and found:
            return {str(number): visit for number, visit in enumerate(found, 3)}
        return found

    assert forget(matomo, gappy).startswith("1 visit was deleted")
    assert visits.left == [1]


def test_what_is_left_after_many_searches_is_said(matomo, monkeypatch):
    monkeypatch.setattr("pluginhost_piwik.people.MAX_ROUNDS", 2)
    visits = Visits(*[{"userId": "ada"}] * 7, at_once=3)
    with pytest.raises(DeliveryError, match="6 visits were deleted, and there may be more: run this again"):
        forget(matomo, visits)
    assert visits.left == [7]


def test_the_api_is_beside_a_tracker_that_is_named_in_full(matomo):
    assert forget(matomo, Visits(), url=f"{matomo.url}matomo.php").startswith("0 visits")


# --- by hand ---


def by_hand(matomo: Any, visits: Any, **options: Any) -> str:
    with pytest.raises(NotImplementedError) as raised:
        forget(matomo, visits, **options)
    assert TOKEN not in str(raised.value)
    return str(raised.value)


def test_without_a_token_it_says_what_to_look_for(matomo):
    said = by_hand(matomo, Visits(), TOKEN_AUTH=None)
    assert said.startswith("There is no TOKEN_AUTH.")
    assert "Administration > Privacy > GDPR Tools, site 1" in said
    assert "User ID ada, Visitor ID " in said
    assert sent_id(matomo, anonymous_id="a browser") in said
    assert matomo.calls == []


def test_a_token_that_may_not_delete(matomo):
    visits = Visits({"userId": "ada"})
    visits.admin = ["2"]
    said = by_hand(matomo, visits)
    assert "give it admin access to site 1, or do it in Matomo itself" in said
    assert visits.left == [1]


def test_a_site_without_profiles(matomo):
    visits = Visits({"userId": "ada"})
    visits.profiles = {"value": False}
    assert "profiles of site 1 are off" in by_hand(matomo, visits)


def test_an_older_matomo_has_no_such_switch(matomo):
    visits = Visits({"userId": "ada"})
    visits.profiles = {"result": "error", "message": "The method 'isVisitorProfileEnabled' does not exist"}
    forget(matomo, visits)
    assert visits.left == []


def test_where_the_api_is_not(matomo):
    said = by_hand(matomo, lambda method, form: (404, b"<html>"))
    assert "answered 404: there is no index.php beside the tracker. Do it in Matomo itself" in said


# --- failures ---


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param({"result": "error", "message": "Unable to authenticate"}, "says: Unable to auth", id="token"),
        pytest.param((401, b'{"result":"error","message":"no"}'), "says: no", id="401"),
        pytest.param((200, b"<html>"), "answered 200 with something that is not its Reporting API's", id="HTML"),
        pytest.param((503, b""), "answered 503", id="503"),
    ],
)
def test_what_fails_is_said_without_the_token(matomo, given, said):
    with pytest.raises(DeliveryError, match=said) as raised:
        forget(matomo, lambda method, form: given)
    assert TOKEN not in str(raised.value)


def test_a_matomo_that_is_away_fails(matomo):
    with pytest.raises(RetryableError, match="can't be reached"):
        forget(matomo, Visits(), url=f"http://127.0.0.1:{free_port()}/")
