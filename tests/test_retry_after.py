"""The header Retry-After in both forms (RFC 9110, 10.2.3), whatever a receiver makes of it."""

from __future__ import annotations

import datetime as dt
import sys

import pytest

from pluginhost import RetryableError

IN_AN_HOUR = {
    "IMF-fixdate": "%a, %d %b %Y %H:%M:%S GMT",
    "RFC 850": "%A, %d-%b-%y %H:%M:%S GMT",
    "asctime": "%a %b %d %H:%M:%S %Y",
}


def wait(asked: object) -> float | None:
    return RetryableError("busy", retry_after=asked).retry_after


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ("120", 120),
        ("0", 0),
        (" 7.5 ", 7.5),
        ("120.", 120),
        ("9" * 400, sys.float_info.max),
        (dt.timedelta(minutes=2), 120),
        (120, 120),
        (-5, 0),
        (dt.timedelta(seconds=-5), 0),
    ],
    ids=lambda value: str(value)[:12],
)
def test_seconds(asked, seconds):
    assert wait(asked) == seconds


@pytest.mark.parametrize("form", IN_AN_HOUR.values(), ids=IN_AN_HOUR)
def test_a_date_becomes_seconds_from_now(form):
    moment = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)

    assert 3590 < wait(moment.strftime(form)) <= 3600


@pytest.mark.parametrize("hours", [2, -5])
def test_a_date_in_another_zone_is_the_same_moment(hours):
    moment = dt.datetime.now(dt.timezone(dt.timedelta(hours=hours))) + dt.timedelta(hours=1)

    assert 3590 < wait(moment.strftime("%a, %d %b %Y %H:%M:%S %z")) <= 3600


@pytest.mark.parametrize(
    "asked",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Sun, 06 Nov 1994 08:49:37 -0000",
    ],
)
def test_a_date_that_has_passed_is_no_wait(asked):
    assert wait(asked) == 0


@pytest.mark.parametrize(
    "asked",
    [
        None,
        "",
        "soon",
        "-5",
        "1e3",
        "1_000",
        "٣",
        "²",
        "nan",
        "inf",
        float("nan"),
        float("inf"),
        10**400,
        "Fri, 32 Dec 1999 23:59:59 GMT",
        "Fri, 31 Dec 99999 23:59:59 GMT",
        "Fri, 31 Dec 1999 23:59:59 +9999999999",
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_time_is_ignored(asked):
    assert wait(asked) is None
