"""The promises of the outbox, on SQLite and PostgreSQL, through a real site's views."""

from __future__ import annotations

import pytest

from pluginhost import host
from pluginhost.delivery import accounts
from pluginhost.delivery.worker import drain
from pluginhost.models import Chunk, Delivery, Envelope
from tests.samples import Folder, Recorder
from tests.site.models import Order

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)


def delivered(database: str) -> list[str]:
    drain(host.registry.runners, database)
    return [event.name for event in Recorder.seen.get("recorder", [])]


def test_a_committed_event_is_delivered_to_every_lane(database, configure, client):
    configure("outbox", recorder={}, folder={})

    assert client.get("/order/").content == b"paid"

    assert delivered(database) == ["order paid"]
    assert [event.value for event in Folder.seen["folder"]] == [12.5]
    assert Recorder.seen["recorder"][0].subject.model == "shop.Order"
    assert Delivery.objects.count() == Chunk.objects.count() == Envelope.objects.count() == 0
    assert accounts.read(database)["folder"] == {
        "accepted": 1, "delivered": 1, "skipped": 0, "waiting": 0, "dead": 0, "discarded": 0,
    }  # fmt: skip


@pytest.mark.parametrize("end", ["rollback", "savepoint", "manual", "set_rollback"])
def test_what_is_rolled_back_leaves_nothing(database, configure, client, end):
    configure("outbox", recorder={})

    assert client.get("/order/", {"end": end}).status_code == 200

    assert Order.objects.count() == (1 if end in ("savepoint", "manual") else 0)
    assert delivered(database) == []
    assert Envelope.objects.count() == 0
