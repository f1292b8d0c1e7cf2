"""Which events Matomo refused or passed over, where it only says how many hits."""

from __future__ import annotations

import datetime as dt

import pytest

from pluginhost import PermanentError, RetryableError
from pluginhost_piwik.answers import Answer
from pluginhost_piwik.refusals import Refusals, Sent
from plugins.piwik.tests.helpers import NOON_UNIX, NOW

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
        "0": PermanentError,
        "1": RetryableError,
        "2": PermanentError,
    }
    assert "passed over 1 of 4 hits that were sent together, and does not say which" in str(errors["0"])
    assert "a replay counts it twice" in str(errors["0"])
    assert "Matomo counts an order once" in str(errors["1"])


def test_some_passed_over_and_one_refused():
    errors = failed([EVENT], [PAGE, GOAL_3], [PAGE], [ORDER], tracked=3, invalid=1)
    assert {key: type(error) for key, error in errors.items()} == {
        "0": PermanentError,
        "1": PermanentError,
        "2": PermanentError,
        "3": RetryableError,
    }
    assert "passed over 1 of 5 hits" in str(errors["2"])
    assert "refused its goal 3" in str(errors["1"])


def test_more_than_was_sent_is_no_loss():
    assert failed([EVENT], tracked=5) == {}


def test_the_day_of_these_tests():
    assert NOW - dt.datetime.fromtimestamp(int(NOON_UNIX), dt.UTC) == dt.timedelta(seconds=30)
