"""Properties and traits whose names say that they are secrets."""

from __future__ import annotations

import gc
import weakref

import pytest

from pluginhost import door, host
from pluginhost.delivery import memory
from pluginhost.door import MASK


@pytest.fixture
def arrived(configure):
    """Track properties, and return those of the event."""

    def arrived(properties, **keys):
        configure(recorder={}, **keys)
        assert host.track(None, "something", properties)
        return memory.events[-1].properties

    return arrived


@pytest.mark.parametrize(
    "name",
    [
        "password", "Password", "PASSWORD", "userPassword", "user_password", "password2", "password-repeat", "pwd",
        "secret", "client_secret", "clientSecret", "api_key", "apiKey", "APIKey", "API-KEY", "apikey", "X-Api-Key",
        "access_token", "authorization", "Cookie", "csrfmiddlewaretoken", "sessionid", "session_id", "private key",
        "card", "cardNumber", "card_number", "creditCard", "cvc", "IBAN",
    ],
)  # fmt: skip
def test_names_that_are_masked(arrived, name):
    assert arrived({name: "4111", "x": [{"deep": {name: {"a": 1}}}]}) == {name: MASK, "x": [{"deep": {name: MASK}}]}


@pytest.mark.parametrize(
    "name",
    ["discard", "author", "cardigan", "cardinal", "authored_by", "key", "keyboard", "session", "passport", "compass",
     "tokenized", "secretary", "number", "", "***", "пароль", "id"],
)  # fmt: skip
def test_names_that_are_not_masked(arrived, name):
    assert arrived({name: "kept"}) == {name: "kept"}


def test_what_is_masked_need_not_be_good(arrived):
    assert arrived({"password": object(), "card": float("nan")}) == {"password": MASK, "card": MASK}


def test_other_names_may_be_masked(arrived):
    properties = {
        "PIN": 1,
        "userPin": 1,
        "motherMaidenName": 1,
        "пароль": 1,
        "Пароль": 1,
        "password": "shown",
        "ping": 1,
        "***": 1,
    }
    assert arrived(properties, MASKED_NAMES=["Pin", "mother_maiden_name", "пароль"]) == {
        "PIN": MASK, "userPin": MASK, "motherMaidenName": MASK, "пароль": MASK, "Пароль": MASK,
        "password": "shown", "ping": 1, "***": 1,
    }  # fmt: skip


def test_traits_are_masked_too_and_tuning_is_not(configure):
    configure(recorder={})
    host.identify(None, {"password": "x", "plan": "pro"}, plugins={"recorder": {"colour": {"token": "shown"}}})
    assert memory.events[-1].properties == {"password": MASK, "plan": "pro"}
    assert memory.events[-1].tuning("recorder") == {"colour": {"token": "shown"}}


def test_long_names_are_not_remembered(configure):
    configure(recorder={})
    before = door.is_masked.cache_info().currsize
    for number in range(5):
        assert host.track(None, "x", {f"{number}{'n' * 300}": 1, "n": 1})
    assert door.is_masked.cache_info().currsize <= before + 1  # the short one


class Name(str):
    """A name that holds more than its text, as those of a parsed page do."""


def test_nothing_of_a_name_is_kept_but_its_text(configure):
    configure(recorder={})
    name = Name("of a page")
    kept = weakref.ref(name)
    host.track(None, "x", {name: 1})
    assert memory.events[-1].properties == {"of a page": 1}
    del name
    gc.collect()
    assert kept() is None
