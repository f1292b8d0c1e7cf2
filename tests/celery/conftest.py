"""Fixtures of the tests that need a broker."""

from __future__ import annotations

import pytest

from tests import brokers

BROKERS = [
    pytest.param("rabbitmq", id="rabbitmq", marks=pytest.mark.rabbitmq),
    pytest.param("valkey", id="valkey", marks=pytest.mark.valkey),
]


@pytest.fixture(scope="session")
def rabbitmq() -> str:
    """The URL of a RabbitMQ that other tests use too: name queues so that no other test has them."""
    url = brokers.rabbitmq_url()
    if url is None:
        pytest.skip("no RabbitMQ server")
    return url


@pytest.fixture(scope="session")
def valkey() -> str:
    """The URL of a Valkey that the other tests of this process use too."""
    url = brokers.valkey_url()
    if url is None:
        pytest.skip("no Valkey server")
    return url


@pytest.fixture(params=BROKERS)
def broker(request: pytest.FixtureRequest) -> str:
    """Run the test with each broker: its URL, which begins with ``amqp:`` or ``redis:``."""
    return str(request.getfixturevalue(request.param))
