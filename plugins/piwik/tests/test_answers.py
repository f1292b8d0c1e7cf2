"""What an answer means for the events of a request: one row of the table a test."""

from __future__ import annotations

import datetime as dt

import pytest

from pluginhost import DeliveryError, PermanentError, RetryableError, UncertainError
from pluginhost_piwik.answers import Answer, Refusals, Sent, read
from plugins.piwik.tests.helpers import GIF, NOON_UNIX, NOW, answer

JSON = {"Content-Type": "application/json"}


def judged(status: int = 200, body: bytes = b"", sent: int = 3, **headers: str) -> Answer:
    return read(status, {name.replace("_", "-"): value for name, value in headers.items()}, body, sent, NOW)


def test_the_numbers_of_a_success():
    assert judged(body=answer(3)) == Answer(counted=True, tracked=3)
    assert judged(body=answer(2, 1)) == Answer(counted=True, tracked=2, invalid=1)
    assert judged(body=answer(2, 1, invalid_indices=[1])).indices == frozenset({1})


@pytest.mark.parametrize("indices", [[3], [-1], [0, 1], ["1"], "1", None, {}, [[]]])
def test_indices_that_make_no_sense_are_not_believed(indices):
    assert judged(body=answer(2, 1, invalid_indices=indices)).indices is None


def test_warnings_of_php_before_the_answer():
    body = b"<br />\n<b>Deprecated</b>: {closure}() in /a.php on line {3}\n" + answer(3)
    assert judged(body=body) == Answer(counted=True, tracked=3)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, GIF, "image/gif"),
        (200, b"GIF87a", ""),
        (200, b"\x89PNG", "image/png"),
        (204, b"", ""),
    ],
)
def test_taken_without_a_number(status, body, kind):
    assert judged(status, body, Content_Type=kind) == Answer()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html>Log in</html>", "text/html; charset=utf-8"),
        (b"", ""),
        (b"null", "application/json"),
        (b'{"ok": true}', "application/json"),
        (b'{"status":"success","tracked":3', "application/json"),
        (b'{"status":"success"}', "application/json"),
        (b'{"status":"ok","tracked":3,"invalid":0}', "application/json"),
        (b'{"status":"success","tracked":"3","invalid":0}', "application/json"),
        (b'{"status":"success","tracked":-3,"invalid":6}', "application/json"),
        (b"{" * 5000, "application/json"),
    ],
)
def test_a_success_that_is_not_matomo_s_is_uncertain(body, kind):
    with pytest.raises(UncertainError):
        judged(body=body, Content_Type=kind)


def test_an_answer_as_if_nothing_had_been_asked_is_retried():
    with pytest.raises(RetryableError, match="dropped the request"):
        judged(body=b"This resource is part of Matomo. Keep full control of your data")


@pytest.mark.parametrize("status", [200, 500])
def test_an_undone_request_blames_nobody_yet(status):
    with pytest.raises(DeliveryError, match=f"answered {status}, and undid the whole request") as caught:
        judged(status, answer(2, 0, "error"))
    assert type(caught.value) is DeliveryError


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, RetryableError), (302, RetryableError), (308, RetryableError), (304, RetryableError),
        (400, PermanentError), (413, PermanentError), (414, PermanentError), (431, PermanentError),
        (401, DeliveryError), (403, DeliveryError), (404, DeliveryError), (405, DeliveryError),
        (408, RetryableError), (425, RetryableError), (429, RetryableError),
        (500, DeliveryError),
        (501, RetryableError), (503, RetryableError), (521, RetryableError), (599, RetryableError),
        (502, UncertainError), (504, UncertainError), (520, UncertainError), (524, UncertainError),
    ],
)  # fmt: skip
@pytest.mark.parametrize("body", [b"", GIF, b"<html>"])
def test_every_other_status(status, kind, body):
    with pytest.raises(DeliveryError, match=f"answered {status}") as caught:
        judged(status, body)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        (" 7 ", 7.0),
        ("Sat, 21 Nov 2026 12:01:00 GMT", 30.0),
        ("Sat, 21 Nov 2026 11:00:00 GMT", 0.0),
        ("Sat, 21 Nov 2026 12:01:00 -0000", 30.0),
        ("soon", None),
        ("-5", None),
        ("", None),
        ("²", None),
        ("9" * 400, 999_999_999.0),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_in_both_forms(status, header, seconds):
    with pytest.raises(RetryableError) as caught:
        judged(status, Retry_After=header)
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("https://stats.example/matomo.php?token_auth=secret", "answered 301, a redirect to https://stats.example: "),
        ("https://ann:secret@stats.example/", "answered 301, a redirect: "),
        ("/matomo.php?secret", "answered 301, a redirect: "),
        ("", "answered 301, a redirect: "),
    ],
)
def test_a_redirect_says_where_to_but_no_more(location, shown):
    with pytest.raises(RetryableError) as caught:
        judged(301, Location=location)
    assert str(caught.value) == f"{shown}the option URL must be the address it leads to"


# Which events were refused

EVENT = {"e_c": "a", "e_a": "b", "cdt": NOON_UNIX}
PAGE = {"action_name": "a", "cdt": NOON_UNIX}
ORDER = {"idgoal": "0", "ec_id": "7", "cdt": NOON_UNIX}
GOAL_3 = {"idgoal": "3", "cdt": NOON_UNIX}
GOAL_5 = {"idgoal": "5", "cdt": NOON_UNIX}


def failed(*events: list[dict], refusals: Refusals | None = None, attempt: int = 1, **said) -> dict[str, Exception]:
    sent = [Sent(str(index), hits) for index, hits in enumerate(events)]
    said.setdefault("tracked", sum(map(len, events)) - said.get("invalid", 0))
    return (refusals or Refusals()).judge(sent, Answer(counted=True, **said), NOW, attempt)


def test_all_tracked():
    assert failed([EVENT], [PAGE]) == {}


def test_a_queue_that_says_nothing():
    assert Refusals().judge([Sent("0", [EVENT])], Answer(), NOW) == {}


def test_refused_by_index():
    errors = failed([EVENT], [EVENT, GOAL_3], [PAGE], [ORDER], invalid=3, indices=frozenset({2, 3, 4}))
    assert {key: type(error) for key, error in errors.items()} == dict.fromkeys("123", PermanentError)
    assert str(errors["1"]).startswith(
        "Matomo refused its goal 3, of 5 hits that were sent together; the rest of it is recorded, and a replay"
        " counts that twice."
    )
    assert str(errors["2"]).startswith("Matomo refused its page view, of 5 hits that were sent together. Matomo names")
    assert str(errors["3"]).startswith("Matomo refused its order or cart, of 5 hits")


def test_refused_by_number_when_one_cause_explains_it():
    errors = failed([EVENT, GOAL_3], [PAGE], [EVENT, GOAL_3], [EVENT, GOAL_5], invalid=2)
    assert list(errors) == ["0", "2"]
    assert "refused its goal 3" in str(errors["0"])


def test_several_causes_together():
    assert list(failed([GOAL_3], [GOAL_5], [GOAL_5], [PAGE], invalid=3)) == ["0", "1", "2"]


def test_a_number_that_several_causes_explain_gives_up_only_these():
    errors = failed([EVENT, GOAL_3], [PAGE], [EVENT, GOAL_5], invalid=1)
    assert {key: type(error) for key, error in errors.items()} == dict.fromkeys("02", PermanentError)
    assert "names them only to a super user's token" in str(errors["0"])
    assert "a replay counts it twice" in str(errors["0"])


def test_what_was_accepted_before_is_no_cause():
    refusals = Refusals()
    assert failed([EVENT, GOAL_5], refusals=refusals) == {}
    assert list(failed([EVENT, GOAL_3], [PAGE], [EVENT, GOAL_5], invalid=1, refusals=refusals)) == ["0"]


def test_what_was_accepted_may_be_gone_by_now():
    refusals = Refusals()
    failed([EVENT, GOAL_5], refusals=refusals)
    assert list(failed([PAGE], [EVENT, GOAL_5], invalid=1, refusals=refusals)) == ["1"]


def test_a_number_that_nothing_explains_gives_up_all():
    errors = failed([EVENT], [PAGE], [ORDER], invalid=1)
    assert list(errors) == ["0", "1", "2"]
    assert "may be replayed" in str(errors["2"])
    assert "a replay counts it twice" in str(errors["0"])


def test_a_token_that_may_not_do_it_or_a_day_that_is_gone():
    old = {**PAGE, "cdt": str(int(NOON_UNIX) - 90 * 86_400)}
    older = {**PAGE, "cdt": str(int(NOON_UNIX) - 91 * 86_400)}
    refusals = Refusals()
    failed([{**PAGE, "cip": "192.0.2.0"}], refusals=refusals)  # the token is good

    assert list(failed([PAGE], [older], [older], [old], invalid=2, refusals=refusals)) == ["1", "2"]


def test_too_many_causes_are_not_weighed():
    events = [[{"idgoal": str(goal), "cdt": NOON_UNIX}] for goal in range(1, 30)]
    assert len(failed(*events, [PAGE], invalid=1)) == 29


def test_all_refused_waits_for_somebody_to_mend_it_and_then_gives_up():
    with pytest.raises(RetryableError, match="refused all 2 hits: does SITE_ID exist there, and may TOKEN_AUTH write"):
        failed([EVENT], [PAGE], invalid=2, tracked=0)
    errors = failed([EVENT], [PAGE], invalid=2, tracked=0, attempt=10)
    assert [type(error) for error in errors.values()] == [PermanentError, PermanentError]


@pytest.mark.parametrize("invalid", [0, 1])
def test_nothing_recorded_is_retried_however_often(invalid):
    with pytest.raises(RetryableError, match="under maintenance"):
        failed([EVENT], [PAGE], tracked=0, invalid=invalid, attempt=50)


def test_some_passed_over():
    errors = failed([EVENT], [ORDER], [PAGE, GOAL_3], tracked=3)
    assert {key: type(error) for key, error in errors.items()} == {
        "0": UncertainError,
        "1": RetryableError,
        "2": UncertainError,
    }
    assert "passed over 1 of 4 hits, and does not say which" in str(errors["0"])


def test_some_passed_over_and_one_refused():
    errors = failed([EVENT], [PAGE, GOAL_3], [PAGE], tracked=2, invalid=1)
    assert {key: type(error) for key, error in errors.items()} == {
        "0": UncertainError,
        "1": PermanentError,
        "2": UncertainError,
    }


def test_more_than_was_sent_is_no_loss():
    assert failed([EVENT], tracked=5) == {}


def test_the_day_of_these_tests():
    assert NOW - dt.datetime.fromtimestamp(int(NOON_UNIX), dt.UTC) == dt.timedelta(seconds=30)
