"""The stand-ins keep and refuse what the real providers do, as far as their documents and sources say."""

from __future__ import annotations

import http.client
import json
import time
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

import pytest

from demo.standin import FAULTS, StandIn

if TYPE_CHECKING:
    from collections.abc import Iterator

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
NOW = int(time.time())


@pytest.fixture(scope="module")
def server() -> Iterator[StandIn]:
    with StandIn() as server:
        yield server


@pytest.fixture
def stand_in(server: StandIn) -> StandIn:
    server.mend()
    server.clear()
    return server


class Reply:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = response.status, response.headers, response.read()


def ask(url: str, body: str | None = None, **headers: str) -> Reply:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    try:
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        headers = {"User-Agent": FIREFOX, **{name.replace("_", "-"): value for name, value in headers.items()}}
        connection.request("GET" if body is None else "POST", target, body, headers)
        return Reply(connection.getresponse())
    finally:
        connection.close()


# KISSmetrics

KM = {"_k": StandIn.KEY, "_p": "ada", "_n": "Signed Up"}


def record(stand_in: StandIn, path: str = "e", *, without: str = "", **parameters: object) -> Reply:
    sent = {name: value for name, value in {**KM, **parameters}.items() if name != without}
    return ask(f"{stand_in.kissmetrics_url}/{path}?{urlencode(sent)}")


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"without": "_k"}, "no key"),
        ({"_k": "0123"}, "no key"),
        ({"_k": StandIn.KEY.upper()}, "no key"),
        ({"_k": "f" * 40}, "no product"),
        ({"without": "_p"}, "_p is missing"),
        ({"_p": ""}, "_p is missing"),
        ({"_p": "x" * 256}, "more than 255"),
        ({"without": "_n"}, "_n is missing"),
        ({"_n": "x" * 256}, "more than 255"),
        ({"path": "a", "without": "_n"}, "_n is missing"),
        ({"path": "s", "without": "_n"}, "no property"),
        ({"_t": "1.5", "_d": 1}, "no whole number"),
        ({"_t": NOW * 1000, "_d": 1}, "not milliseconds"),
        ({"_t": 1_200_000_000, "_d": 1}, "before 2009"),
    ],
)
def test_kissmetrics_refuses_without_a_word(stand_in, parameters, reason):
    reply = record(stand_in, **parameters)

    assert (reply.status, reply.headers["Content-Type"], reply.body[:3]) == (200, "image/gif", b"GIF")
    assert stand_in.received() == []
    [hit] = stand_in.received("kissmetrics", kept=False)
    assert reason in hit.reason


def test_kissmetrics_keeps_an_event_from_a_form_too(stand_in):
    ask(f"{stand_in.kissmetrics_url}/e", urlencode({**KM, "_t": NOW - 60, "_d": 1, "Plan": "Pro", "_secret": "x"}))

    [hit] = stand_in.received("kissmetrics")
    assert (hit.kind, hit.name, hit.person, hit.properties) == ("event", "Signed Up", "ada", {"Plan": "Pro"})
    assert hit.time.timestamp() == NOW - 60
    assert hit.origin == "server"
    assert hit.notes == ["_secret left out: such names are reserved"]


def test_kissmetrics_believes_a_time_only_with_its_mark(stand_in):
    record(stand_in, _t=NOW - 3600)

    [hit] = stand_in.received("kissmetrics")
    assert hit.time == hit.received
    assert hit.notes


def test_kissmetrics_cuts_values_and_cleans_names(stand_in):
    record(stand_in, _n="Paid: cash, now", **{"long": "x" * 600, "y" * 256: 1})

    [hit] = stand_in.received("kissmetrics")
    assert hit.name == "Paid  cash  now"
    assert hit.properties == {"long": "x" * 512}
    assert len(hit.notes) == 2


@pytest.mark.parametrize(
    ("second", "duplicate"),
    [
        ({"_n": "signed up"}, True),
        ({"_n": "Signed Up", "Plan": "other"}, True),
        ({"_p": "Ada"}, False),
        ({"_n": "Logged In"}, False),
        ({"_t": NOW - 1}, False),
    ],
)
def test_kissmetrics_knows_an_event_of_the_same_second(stand_in, second, duplicate):
    record(stand_in, _t=NOW, _d=1)
    record(stand_in, **{"_t": NOW, "_d": 1, **second})

    assert len(stand_in.received()) == (1 if duplicate else 2)
    assert [hit.duplicate for hit in stand_in.received(kept=False)] == [True] * duplicate


def test_kissmetrics_knows_a_property_of_the_same_second(stand_in):
    record(stand_in, "s", _t=NOW, _d=1, Plan="Pro", without="_n")
    record(stand_in, "s", _t=NOW, _d=1, plan="Free", Colour="red", without="_n")

    assert [hit.properties for hit in stand_in.received()] == [{"Plan": "Pro"}, {"Colour": "red"}]


def test_kissmetrics_merges_people_through_chains_of_aliases(stand_in):
    record(stand_in, _p="anonymous")
    for one, other in (("anonymous", "7"), ("phone", "laptop"), ("7", "phone")):
        record(stand_in, "a", _p=one, _n=other)
    record(stand_in, _p="8")

    assert stand_in.person("laptop") == {"anonymous", "7", "phone", "laptop"}
    assert stand_in.people() == [stand_in.person("7"), {"8"}]
    assert stand_in.person("9") == set()


# Matomo

HIT = {"idsite": 1, "rec": 1, "url": "https://shop.example/", "action_name": "Home"}


def track(stand_in: StandIn, body: str | None = None, **parameters: object) -> Reply:
    sent = {name: value for name, value in {**HIT, **parameters}.items() if value is not None}
    return ask(f"{stand_in.matomo_url}/matomo.php?{urlencode(sent)}", body)


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"idsite": None}, "idsite"),
        ({"idsite": "abc"}, "idsite"),
        ({"idsite": 9}, "idsite"),
        ({"idgoal": 9}, "goal 9"),
        ({"cip": "192.0.2.1"}, "cip"),
        ({"country": "fr"}, "country"),
        ({"cid": "abc"}, "cid"),
        ({"cdt": NOW - 90_000}, "24 hours"),
        ({"e_c": "shop", "e_a": " ", "ca": 1}, "blank"),
        ({"e_c": "shop", "ca": 1}, "blank"),
        ({"pf_srv": -1}, "negative"),
        ({"ca": 1}, "ca=1"),
        ({"idgoal": 1, "ca": 1}, "ca=1"),
        ({"cip": "192.0.2.1", "token_auth": StandIn.TOKEN}, "cip"),  # not in an address
    ],
)
def test_matomo_refuses_with_400(stand_in, parameters, reason):
    reply = track(stand_in, **parameters)

    assert (reply.status, reply.body[:13]) == (400, b"This resource")
    assert stand_in.received() == []
    [hit] = stand_in.received("matomo", kept=False)
    assert reason in hit.reason
    assert StandIn.TOKEN not in str(hit)


@pytest.mark.parametrize(
    "parameters",
    [
        {"rec": None},
        {"ua": "Googlebot/2.1 (+http://www.google.com/bot.html)"},
        {"ua": "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)"},
        {"recMode": 1},
    ],
)
def test_matomo_leaves_out_without_a_word(stand_in, parameters):
    reply = track(stand_in, **parameters)

    assert (reply.status, reply.body[:3]) == (200, b"GIF")
    assert stand_in.received() == []
    assert len(stand_in.received(kept=False)) == 1


@pytest.mark.parametrize(
    ("parameters", "kind", "name"),
    [
        ({}, "page view", "Home"),
        ({"search": "tea", "search_count": 0}, "site search", "tea"),
        ({"e_c": "shop", "e_a": "opened", "e_v": "2.5", "ca": 1}, "event", "opened"),
        ({"c_n": "banner", "ca": 1}, "content", "banner"),
        ({"link": "https://maker.example/", "e_c": "a", "e_a": "b"}, "outlink", "https://maker.example/"),
        ({"download": "https://shop.example/a.pdf"}, "download", "https://shop.example/a.pdf"),
        ({"idgoal": 2, "revenue": 0}, "goal", "2"),
        ({"idgoal": 0, "revenue": 5, "ec_id": "42"}, "order", "42"),
        ({"idgoal": 0, "revenue": 5}, "cart", "cart"),
        ({"ping": 1}, "ping", ""),
        ({"ua": "Googlebot/2.1", "bots": 1}, "page view", "Home"),
        ({"ua": "Mozilla/5.0; ChatGPT-User/1.0", "recMode": 2}, "bot", "https://shop.example/"),
    ],
)
def test_matomo_takes_a_hit_as_one_thing(stand_in, parameters, kind, name):
    assert track(stand_in, **parameters).status == 200

    [hit] = stand_in.received("matomo")
    assert (hit.kind, hit.name) == (kind, name)


def test_matomo_needs_a_token_for_addresses_and_old_times(stand_in):
    reply = track(stand_in, f"token_auth={StandIn.TOKEN}", cip="192.0.2.1", cdt="2025-01-02 03:04:05", send_image=0)

    assert (reply.status, reply.body) == (204, b"")
    [hit] = stand_in.received("matomo")
    assert hit.time.isoformat() == "2025-01-02T03:04:05+00:00"


def test_matomo_ignores_a_time_in_the_future(stand_in):
    track(stand_in, cdt=NOW + 3600)

    [hit] = stand_in.received("matomo")
    assert hit.time == hit.received
    assert "future" in hit.notes[0]


def test_matomo_keeps_an_order_once(stand_in):
    items = json.dumps([["mug", "Mug", ["Cups", "Blue"], 9.5, 2], ["", "nameless"]])
    for revenue in (19, 20):
        assert track(stand_in, idgoal=0, ec_id="42", revenue=revenue, ec_items=items).status == 200
    track(stand_in, idsite=2, idgoal=0, ec_id="42", revenue=1)

    first, second = stand_in.received("matomo", kind="order")
    assert first.properties["items"] == [
        {"sku": "mug", "name": "Mug", "category": ["Cups", "Blue"], "price": 9.5, "quantity": 2}
    ]
    assert (first.properties["revenue"], second.sent["idsite"]) == (19, "2")
    assert [hit.duplicate for hit in stand_in.received(kept=False)] == [True]


def test_matomo_recognises_visitors(stand_in):
    for person in ({"uid": "7", "_id": "a" * 16}, {"uid": "7"}, {"_id": "b" * 16}, {"cid": "c" * 16}, {"_id": "short"}):
        track(stand_in, **person)
    track(stand_in)  # the same device: the visitor of a moment ago

    seven, by_cookie, forced = stand_in.visitors()
    assert (seven.visitor_id, seven.user_ids, seven.hits, seven.visits) == ("902ba3cda1883801", {"7"}, 2, 1)
    assert seven.cookie_ids == {"a" * 16}
    assert by_cookie.visitor_id == "b" * 16
    assert (forced.visitor_id, forced.hits) == ("c" * 16, 3)


def test_matomo_cleans_addresses(stand_in):
    track(stand_in, url="https://SHOP.example/a?gclid=1&q=tea#top")
    track(stand_in, url="/relative")

    assert [hit.properties.get("url") for hit in stand_in.received()] == ["https://shop.example/a?q=tea", None]


def bulk(stand_in: StandIn, *entries: object, **more: object) -> Reply:
    body = json.dumps({"requests": entries, **more})
    return ask(f"{stand_in.matomo_url}/matomo.php", body, Content_Type="application/json")


GOOD = f"?{urlencode(HIT)}"
BAD = f"?{urlencode({**HIT, 'idsite': 9})}"
ROBOT = f"?{urlencode({**HIT, 'ua': 'Googlebot/2.1'})}"


@pytest.mark.parametrize(
    ("entries", "more", "answer"),
    [
        ([GOOD, HIT], {}, {"status": "success", "tracked": 2, "invalid": 0}),
        ([GOOD, BAD, ROBOT], {}, {"status": "success", "tracked": 2, "invalid": 1}),
        (["no query", BAD], {"token_auth": StandIn.TOKEN}, {"status": "success", "tracked": 0, "invalid": 1}),
        (
            [GOOD, BAD, f"{GOOD}&cip=192.0.2.1"],
            {"token_auth": StandIn.SUPER_TOKEN},
            {"status": "success", "tracked": 2, "invalid": 1, "invalid_indices": [1]},
        ),
    ],
)
def test_matomo_counts_many(stand_in, entries, more, answer):
    reply = bulk(stand_in, *entries, **more)

    assert (reply.status, json.loads(reply.body)) == (200, answer)


def test_matomo_answers_many_with_nothing_if_asked(stand_in):
    reply = bulk(stand_in, GOOD, send_image="0")

    assert (reply.status, reply.body) == (204, b"")
    assert len(stand_in.received()) == 1


def test_matomo_takes_all_back_after_a_hit_that_nothing_claims(stand_in):
    order = f"{GOOD}&idgoal=0&ec_id=42&revenue=1"
    reply = bulk(stand_in, order, f"{GOOD}&ca=1", GOOD)

    assert (reply.status, json.loads(reply.body)) == (500, {"status": "error", "tracked": 1, "invalid": 0})
    assert stand_in.received() == []
    assert stand_in.visitors() == []
    bulk(stand_in, order)
    assert len(stand_in.received(kind="order")) == 1


def test_matomo_says_what_it_is_when_nothing_is_asked(stand_in):
    assert ask(f"{stand_in.matomo_url}/matomo.php").status == 200
    assert ask(f"{stand_in.matomo_url}/matomo.php", "").status == 400


# Both

CUT_OFF = (http.client.RemoteDisconnected, http.client.IncompleteRead, ConnectionResetError)


@pytest.mark.parametrize(("provider", "send"), [("kissmetrics", record), ("matomo", track)])
@pytest.mark.parametrize("fault", sorted(set(FAULTS) - {"hang"}))
def test_faults_are_switched_on_and_off(stand_in, provider, send, fault):
    with stand_in.failing(provider, fault, retry_after=7):
        if fault in ("reset", "half"):
            with pytest.raises(CUT_OFF):
                send(stand_in)
        else:
            reply = send(stand_in)
            assert reply.status == (200 if fault == "garbage" else int(fault))
            assert reply.headers["Retry-After"] == ("7" if fault == "429" else None)
            assert not reply.body.startswith(b"GIF")
    assert len(stand_in.received(provider)) == (1 if fault == "half" else 0)

    assert send(stand_in).status == 200


def test_a_fault_meets_so_many_requests(stand_in):
    ask(f"{stand_in.url}/faults", "provider=matomo&fault=503&times=2&keep=1")

    assert [track(stand_in).status for _ in range(3)] == [503, 503, 200]
    assert len(stand_in.received()) == 3


def test_what_hangs_is_let_go(stand_in):
    stand_in.fail("matomo", "hang")
    parts = urlsplit(stand_in.matomo_url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    connection.request("GET", f"/matomo/matomo.php?{urlencode(HIT)}", headers={"User-Agent": FIREFOX})
    stand_in.wait_for("matomo", kept=False)  # it has arrived, and nobody answers
    assert record(stand_in).status == 200  # the other provider does

    stand_in.mend("matomo")

    with pytest.raises(CUT_OFF):
        connection.getresponse()
    connection.close()


def test_other_pages_may_not_switch_faults(stand_in):
    assert ask(f"{stand_in.url}/faults", "provider=matomo&fault=503", Origin="https://elsewhere.example").status == 403
    assert ask(f"{stand_in.url}/faults", "provider=matomo&fault=flood").status == 400
    assert track(stand_in).status == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/matomo/matomo.js", 200),
        ("/kissmetrics/i.js", 200),
        (f"/kissmetrics/{StandIn.KEY}.2.js", 200),
        (f"/kissmetrics/{'f' * 40}.2.js", 403),
        ("/matomo/../server.py", 404),
    ],
)
def test_scripts(stand_in, path, status):
    assert ask(stand_in.url + path).status == status


def test_the_page_shows_everything_and_executes_nothing(stand_in):
    evil = "<script>alert(1)</script>"
    track(stand_in, action_name=evil, uid=evil, dimension1=evil, ua=evil)
    track(stand_in, cdt=evil, idsite=9)
    record(stand_in, _p=evil, _n=evil, **{evil: evil})
    record(stand_in, "a", _p=evil, _n="ada")
    ask(
        f"{stand_in.matomo_url}/matomo.php",
        urlencode({**HIT, "action_name": "seen"}),
        Sec_Fetch_Mode="no-cors",
        Origin="http://127.0.0.1",
    )

    reply = ask(f"{stand_in.url}/")

    text = reply.body.decode()
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "idsite is missing" in text
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    assert "unsafe" not in reply.headers["Content-Security-Policy"]
    data = json.loads(ask(f"{stand_in.url}/received.json").body)
    assert [hit["origin"] for hit in data["matomo"]["hits"]] == ["server", "server", "browser"]
    assert data["kissmetrics"]["people"] == [sorted([evil, "ada"])]
