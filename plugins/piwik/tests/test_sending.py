"""How large requests are, and how often an event is sent, by the clock of a server that answers slowly."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from pluginhost import DeliveryError, PermanentError, RetryableError, UncertainError
from pluginhost_piwik import sending
from pluginhost_piwik.answers import Answer
from pluginhost_piwik.refusals import Sent
from pluginhost_piwik.sending import Sender

READ, SPARE = 30.0, 8.0


class Slow:
    """A server that records at once, takes so many seconds for each hit, and is waited for as long as READ."""

    def __init__(self, seconds_a_hit: float, *, resends: bool = True) -> None:
        self.seconds_a_hit = seconds_a_hit
        self.clock = 0.0
        self.recorded: Counter[str] = Counter()
        self.sizes: list[int] = []
        self.asked = 0
        self.failing: dict[int, Exception] = {}
        """Number of a request -> what comes of it."""
        self.seconds_to_ask = 0.0
        self.sender = Sender(self.post, self.ask, self.judge, resends=resends, spare=SPARE, quick=READ / 2)

    def monotonic(self) -> float:
        return self.clock

    def post(self, sent) -> Answer:
        self.sizes.append(len(sent))
        if error := self.failing.get(len(self.sizes)):
            raise error
        self.recorded.update(event.message_id for event in sent)
        needed = self.seconds_a_hit * len(sent)
        self.clock += min(needed, READ)
        if needed >= READ:
            raise UncertainError("no answer")
        return Answer(counted=True, tracked=len(sent))

    def ask(self) -> None:
        self.asked += 1
        self.clock += self.seconds_to_ask

    def judge(self, sent, answer, attempt) -> dict[str, Exception]:
        return {}

    def call(self, events) -> dict[str, Exception]:
        """One call of the hook: what became of each event that failed."""
        begun = self.clock
        try:
            failures = self.sender.send(events, 1)
        except DeliveryError as error:
            failures = {event.message_id: error for event in events}
        assert self.clock - begun <= SPARE + READ
        return failures


@pytest.fixture
def slow(monkeypatch):
    def make(*args, **options) -> Slow:
        made = Slow(*args, **options)
        monkeypatch.setattr(sending.time, "monotonic", made.monotonic)
        return made

    return make


def events(number: int, hit: dict | None = None) -> list[Sent]:
    return [Sent(str(index), [hit or {"e_c": "a"}]) for index in range(number)]


ORDER = {"idgoal": "0", "ec_id": "7"}


def kinds(failures: dict[str, Exception]) -> Counter[type]:
    return Counter(type(error) for error in failures.values())


def all_calls(server: Slow, waiting: list[Sent], most: int = 100) -> dict[str, Exception]:
    """Calls until nothing waits; the events that were given up."""
    given_up = {}
    for _ in range(most):
        failures = server.call(waiting)
        given_up |= {key: error for key, error in failures.items() if isinstance(error, PermanentError)}
        waiting = [event for event in waiting if event.message_id in failures.keys() - given_up.keys()]
        if not waiting:
            return given_up
    raise AssertionError(f"{len(waiting)} still wait")


@pytest.mark.parametrize("seconds_a_hit", [0.01, 0.31, 1, 2.9, 10])
def test_a_server_that_is_too_slow_for_a_batch_gets_smaller_requests(slow, seconds_a_hit):
    server = slow(seconds_a_hit)
    assert all_calls(server, events(100)) == {}
    assert len(server.recorded) == 100
    assert max(server.recorded.values()) <= sending.MAX_SENDS
    assert server.sizes.count(100) <= 1


def test_31_seconds_for_100_hits(slow):
    server = slow(0.31)
    assert kinds(server.call(events(100))) == {UncertainError: 100}
    failures = server.call(events(100))
    assert kinds(failures) == {RetryableError: 70}
    assert {error.retry_after for error in failures.values()} == {0.0}
    assert server.sizes == [100, 10, 20]
    server.call(events(100)[30:])
    assert server.sizes == [100, 10, 20, 40]


def test_a_server_that_is_quick_again_gets_whole_batches(slow):
    server = slow(0.31)
    server.call(events(100))
    server.seconds_a_hit = 0.001
    for _ in range(5):
        server.call(events(100))
    assert server.sizes[-1] == 100


def test_requests_stay_small_for_what_was_not_in_doubt(slow):
    server = slow(0.31)
    server.call(events(100))
    server.call([Sent("new", [{}])] * 100)
    assert server.sizes[1] == 10


def test_an_event_is_sent_three_times_at_most(slow):
    server = slow(100)
    given_up = all_calls(server, events(5))
    assert server.recorded == {str(index): 3 for index in range(5)}
    said = "it was sent 3 times without an answer, and may have been counted each time: a replay may count it again"
    assert {str(error) for error in given_up.values()} == {f"no answer; {said}"}


def test_one_event_that_hangs_takes_no_other_with_it(slow):
    server = slow(0.01)
    recorded = server.post

    def post(sent):
        answer = recorded(sent)
        if "50" in [event.message_id for event in sent]:
            raise UncertainError("no answer")
        return answer

    server.sender._post = post
    assert list(all_calls(server, events(100))) == ["50"]
    assert max(server.recorded.values()) == 3


def test_a_replay_is_sent_again(slow):
    server = slow(100)
    all_calls(server, events(1))
    assert kinds(server.call(events(1))) == {UncertainError: 1}
    assert server.recorded["0"] == 4


def test_what_was_answered_begins_anew(slow):
    server = slow(100)
    for _ in range(4):
        server.seconds_a_hit = 100
        assert kinds(server.call(events(1))) == {UncertainError: 1}
        server.seconds_a_hit = 1
        assert server.call(events(1)) == {}


def test_orders_go_on(slow):
    server = slow(100)
    for _ in range(9):
        assert kinds(server.call(events(2, ORDER))) == {RetryableError: 2}


def test_of_a_last_send_each_event_has_its_own_fate(slow):
    server = slow(100)
    old, order, new = Sent("old", [{}]), Sent("order", [ORDER]), Sent("new", [{}])
    for _ in range(2):
        server.call([old])
    failures = server.call([old, order, new])
    assert {key: type(error) for key, error in failures.items()} == {
        "old": PermanentError,
        "order": RetryableError,
        "new": RetryableError,
    }
    assert server.recorded["new"] == 0
    assert str(failures["new"]) == "not sent yet: no answer"


def test_nothing_is_sent_again_if_the_project_says_so(slow):
    server = slow(1, resends=False)
    first = server.call(events(100))
    assert kinds(first) == {UncertainError: 100}
    assert kinds(server.call([Sent(f"n{index}", [{}]) for index in range(100)])) == {RetryableError: 90}
    assert server.sizes == [100, 10]
    assert max(server.recorded.values()) == 1


def test_what_was_not_sent_because_of_a_failure_waits(slow):
    server = slow(0.01)
    server.sender._limit = 10
    server.failing = {1: UncertainError("gone")}
    server.sender._resends = False
    failures = server.call(events(30))
    assert [type(failures[str(index)]) for index in (0, 9, 10, 29)] == [
        UncertainError, UncertainError, RetryableError, RetryableError,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "own"),
    [
        (RetryableError("later", retry_after=9), RetryableError),
        (DeliveryError("odd"), DeliveryError),
        (PermanentError("too large"), DeliveryError),
    ],
)
def test_a_later_request_that_fails_takes_nothing_back(slow, error, own):
    server = slow(0.01)
    server.sender._limit = 10
    server.failing = {2: error}
    failures = server.call(events(60))
    assert len(failures) == 50
    assert [type(failures[str(index)]) for index in (10, 29, 30, 59)] == [own, own, RetryableError, RetryableError]
    assert failures["30"].retry_after == getattr(error, "retry_after", None)
    assert str(failures["10"]) == str(error)


def test_a_single_event_that_is_too_large_is_given_up(slow):
    server = slow(0.01)
    server.sender._limit = 1
    server.failing = {2: PermanentError("too large")}
    assert type(server.call(events(2))["1"]) is PermanentError


@pytest.mark.parametrize("error", [RetryableError("later"), DeliveryError("odd"), PermanentError("too large")])
def test_a_first_request_that_fails_speaks_of_the_whole_batch(slow, error):
    server = slow(0.01)
    server.failing = {1: error}
    with pytest.raises(DeliveryError) as caught:
        server.sender.send(events(3), 1)
    assert caught.value is error


def test_after_doubt_nothing_is_sent_until_the_server_answers(slow):
    server = slow(100)
    server.call(events(2))

    def away() -> None:
        raise RetryableError("can't be reached", retry_after=7)

    server.sender._ask = away
    for _ in range(5):
        failures = server.call(events(3))
    assert server.sizes == [2]
    assert kinds(failures) == {RetryableError: 3}
    assert failures["0"].retry_after == 7
    assert "of 3 that wait, 2 were sent already, and may have been counted" in str(failures["0"])

    server.sender._ask = server.ask
    server.seconds_a_hit = 0.01
    assert server.call(events(3)) == {}
    assert server.asked == 1
    server.call(events(3))
    assert server.asked == 1


def test_a_server_that_took_long_to_say_that_it_answers_has_the_whole_next_call(slow):
    server = slow(100)
    server.call(events(1))
    server.seconds_to_ask = 20.0
    failures = server.call(events(1))
    assert failures["0"].retry_after == 0.0
    assert server.sizes == [1]
    server.call(events(1))
    assert (server.sizes, server.asked) == ([1, 1], 1)


def test_what_is_remembered_is_bounded(slow, monkeypatch):
    monkeypatch.setattr(sending, "MAX_REMEMBERED", 5)
    server = slow(100)
    numbers = itertools.count()
    for _ in range(20):
        server.call([Sent(f"n{next(numbers)}", [{}])])
    assert len(server.sender._sends) == 5
