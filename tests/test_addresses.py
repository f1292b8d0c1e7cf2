"""The visitor's address: shortened, and believed no further than the proxies are trusted."""

from __future__ import annotations

import pytest
from django.test import RequestFactory

from pluginhost import host, scrubbing
from pluginhost.delivery import memory

rf = RequestFactory()


@pytest.fixture
def ip_of(configure):
    """The address on an event of this request."""

    def ip_of(request, **keys):
        configure(recorder={}, **keys)
        assert host.track(request, "something")
        return memory.events[-1].context.ip

    return ip_of


ADDRESSES = [
    ("192.0.2.77", "192.0.2.0", "192.0.2.77"),
    (" 192.0.2.77 ", "192.0.2.0", "192.0.2.77"),
    ("192.0.2.77:443", "192.0.2.0", "192.0.2.77"),
    ("2001:db8:1:2:3:4:5:6", "2001:db8:1::", "2001:db8:1:2:3:4:5:6"),
    ("[2001:db8:1:2::6]:443", "2001:db8:1::", "2001:db8:1:2::6"),
    ("fe80::1%eth0", "fe80::", "fe80::1"),
    ("::ffff:192.0.2.77", "192.0.2.0", "192.0.2.77"),
    ("unknown", None, None),
    ("192.0.2", None, None),
    ("", None, None),
    ("1" * 100_000, None, None),
]


@pytest.mark.parametrize(("address", "short", "full"), ADDRESSES, ids=[address[:30] for address, *_ in ADDRESSES])
def test_addresses(ip_of, address, short, full):
    request = rf.get("/", REMOTE_ADDR=address)
    assert ip_of(request) == short
    assert ip_of(rf.get("/", REMOTE_ADDR=address), IP="full") == full
    assert ip_of(rf.get("/", REMOTE_ADDR=address), IP="none") is None


@pytest.mark.parametrize(
    ("proxies", "forwarded", "ip"),
    [
        (0, "6.6.6.6", "10.0.0.1"),
        (1, "192.0.2.7", "192.0.2.7"),
        (1, "6.6.6.6, 192.0.2.7", "192.0.2.7"),
        (1, "6.6.6.6,192.0.2.7:1234", "192.0.2.7"),
        (1, "", "10.0.0.1"),
        (2, "192.0.2.7, 10.0.0.2", "192.0.2.7"),
        (2, "6.6.6.6, 192.0.2.7, 10.0.0.2", "192.0.2.7"),
        (2, "6.6.6.6", "10.0.0.1"),  # did not pass both proxies
        (1, "6.6.6.6, garbage", None),
    ],
)
def test_trusted_proxies(ip_of, proxies, forwarded, ip):
    request = rf.get("/", REMOTE_ADDR="10.0.0.1", HTTP_X_FORWARDED_FOR=forwarded)
    assert ip_of(request, TRUSTED_PROXIES=proxies, IP="full") == ip


def test_what_is_too_long_for_an_address_is_not_remembered(ip_of):
    before = scrubbing.address.cache_info().currsize
    assert ip_of(rf.get("/", REMOTE_ADDR="9" * 10_000)) is None
    assert scrubbing.address.cache_info().currsize == before
