"""What tests of the transport do again and again: a Celery app in this process, a look into the ingest queue."""

from __future__ import annotations

import json
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from celery import Celery, current_app

from pluginhost.delivery import broker
from pluginhost.delivery.envelopes import unpack
from pluginhost.delivery.ingest import ingest
from pluginhost.models import Envelope

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def celery_app(url: str | None, **conf: Any) -> Iterator[Celery]:
    """The site's Celery app for this process, with a circuit breaker and connections of its own."""
    before = current_app._get_current_object()
    office = broker._office
    broker._office = broker.Office()
    app = Celery("tests-carried", broker=url)
    app.conf.update(task_ignore_result=True, **conf)
    app.set_current()
    app.set_default()
    try:
        yield app
    finally:
        app.close()
        before.set_current()
        before.set_default()
        broker._office = office


def new_queue() -> str:
    """A name that no other test has."""
    return f"test-{uuid.uuid4().hex}"


def messages(app: Celery, queue: str) -> Iterator[Any]:
    """Take each message from the queue; it is acknowledged when the next one is asked for."""
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        while (raw := channel.basic_get(queue)) is not None:
            yield channel.message_to_python(raw) if not hasattr(raw, "decode") else raw
            channel.basic_ack(raw.delivery_tag)


def arguments(message: Any) -> dict[str, Any]:
    """What the task is called with."""
    body = message.body if isinstance(message.body, str) else bytes(message.body).decode()
    named: dict[str, Any] = json.loads(body)[1]
    return named


def in_queue(app: Celery, queue: str) -> int:
    """How many messages wait there; none if there is no such queue."""
    with app.connection_for_read() as connection:
        try:
            return int(connection.default_channel.queue_declare(queue, passive=True).message_count)
        except (*connection.channel_errors, *connection.connection_errors):
            return 0


def take_in(app: Celery, queue: str) -> int:
    """What a worker of the ingest queue does. Returns how many messages."""
    number = 0
    for message in messages(app, queue):
        assert ingest(**arguments(message))
        number += 1
    return number


def stored_names() -> list[str]:
    """Of the events in the outbox, in their order."""
    rows = Envelope.objects.order_by("id").values_list("version", "payload")
    return [stored.event.name for version, payload in rows for stored in unpack(version, bytes(payload))]
