"""What happened in the same second is kept apart."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from pluginhost_kissmetrics.seconds import Seconds


def test_two_occurrences_in_one_second_get_two():
    seconds = Seconds()

    assert [seconds.take(f"m{n}", "7", "Paid", 100) for n in range(3)] == [100, 101, 102]
    assert seconds.take("m3", "7", "Paid", 101) == 103


@given(st.lists(st.tuples(st.integers(100, 110), st.sampled_from(["7", "8"])), max_size=60))
def test_each_gets_the_first_second_that_is_free(asked):
    seconds, taken = Seconds(), set()
    for n, (second, who) in enumerate(asked):
        free = next(each for each in range(second, 1000) if (who, each) not in taken)
        assert seconds.take(f"m{n}", who, "Paid", second) == free
        taken.add((who, free))


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(0, 12), st.integers(100, 104)), max_size=60),
)
def test_while_it_forgets_no_two_that_it_remembers_share_a_second(size, asked):
    seconds, remembered = Seconds(size), {}
    for message, second in asked:
        taken = seconds.take(str(message), "7", "Paid", second)
        if message in remembered:
            assert taken == remembered.pop(message)
        else:
            assert taken >= second
            assert taken not in remembered.values()
        remembered[message] = taken  # the one that was used last is the last to be forgotten
        if len(remembered) > size:
            del remembered[next(iter(remembered))]


def test_a_person_does_not_stay_in_memory():
    seconds = Seconds()

    assert [seconds.take(message, "ann@example.org", "Paid", 100) for message in ("a", "b")] == [100, 101]
    assert "ann" not in repr(vars(seconds))


def test_a_repeat_gets_the_same_second_again():
    seconds = Seconds()
    first = [seconds.take(message, "7", "Paid", 100) for message in ("a", "b", "c")]

    assert [seconds.take(message, "7", "Paid", 100) for message in ("c", "a", "b")] == [first[2], first[0], first[1]]


def test_others_are_not_concerned():
    seconds = Seconds()
    seconds.take("a", "7", "Paid", 100)

    assert seconds.take("b", "8", "Paid", 100) == 100
    assert seconds.take("c", "7", "Shipped", 100) == 100
    assert seconds.take("d", "7", "Paid", 99) == 99


def test_names_in_capitals_are_the_same_names():
    seconds = Seconds()

    assert [seconds.take("a", "7", "Paid", 100), seconds.take("b", "7", "PAID", 100)] == [100, 101]


def test_commas_and_colons_are_spaces():
    seconds = Seconds()

    assert [seconds.take(f"m{n}", "7", name, 100) for n, name in enumerate(["a:b", "a,b", "a b"])] == [100, 101, 102]
    assert [seconds.take(f"p{n}", who, "Paid", 100) for n, who in enumerate(["a:b", "a,b", "a b"])] == [100, 101, 102]
    assert seconds.take("p3", "A b", "Paid", 100) == 100, "ids have a case"


def test_the_memory_is_bounded_and_forgets_the_oldest():
    seconds = Seconds(size=2)
    assert seconds.take("a", "7", "Paid", 100) == 100
    assert seconds.take("b", "7", "Paid", 100) == 101
    assert seconds.take("a", "7", "Paid", 100) == 100  # used again, so b is now the oldest
    assert seconds.take("c", "7", "Paid", 100) == 102

    assert seconds.take("d", "7", "Paid", 101) == 101, "b is forgotten, its second is free"
    assert len(seconds._by_message) == len(seconds._taken) == 2


def test_threads_never_share_a_second():
    seconds = Seconds()
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda n: seconds.take(str(n), "7", "Paid", 100), range(400)))

    assert sorted(taken) == list(range(100, 500))
