"""The transport whose envelopes travel over the broker of Celery, into the outbox.

One message an envelope, published after the commit. A task stores it in the outbox
tables; from there everything is as with ``outbox``, and retries never sit in the
broker. What the broker does not confirm within a budget goes to the outbox directly.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

from django.core.signals import request_started
from django.db import connections, transaction

from pluginhost import counts
from pluginhost.conf import get_settings
from pluginhost.db import in_transaction
from pluginhost.delivery import broker, outbox
from pluginhost.delivery.envelopes import VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

    from pluginhost.delivery.envelopes import Envelope

logger = logging.getLogger("pluginhost.broker")


class Budget:
    """The time that one request gives the broker, for all that one commit lets go. It runs from the first use."""

    def __init__(self) -> None:
        self._deadline: float | None = None

    @property
    def is_running(self) -> bool:
        return self._deadline is not None

    @property
    def deadline(self) -> float:
        if self._deadline is None:
            self._deadline = time.monotonic() + get_settings().BROKER_BUDGET
        return self._deadline


class Celery:
    uses_database: ClassVar[bool] = True

    def __init__(self) -> None:
        self._budgets: WeakKeyDictionary[BaseDatabaseWrapper, Budget] = WeakKeyDictionary()
        """Of the commits to come."""

    def put(self, envelopes: Sequence[Envelope], using: str) -> bool:
        if _is_eager():  # no broker is meant to be asked
            return outbox.transport.put(envelopes, using)
        if not in_transaction(using):
            _note_savepoints(using)
            return _send(envelopes, using, Budget())
        connection = connections[using]
        if not _may_wait_for_the_commit(connection):
            return outbox.transport.put(envelopes, using)
        if broker.office().breaker.is_open:  # part of the transaction, while that costs no more
            return _spill(envelopes, using)
        budget = self._budgets.get(connection)
        if budget is None or budget.is_running:
            budget = self._budgets[connection] = Budget()
        transaction.on_commit(partial(_send_later, envelopes, using, budget), using=using, robust=True)
        return True


def _is_eager() -> bool:
    try:
        from celery import current_app

        return bool(current_app.conf.task_always_eager)
    except Exception:  # Celery is not there, or its settings are broken: told when the broker is asked
        return False


def _may_wait_for_the_commit(connection: BaseDatabaseWrapper) -> bool:
    """Whether ``on_commit`` forgets exactly what the database does.

    Without autocommit nobody says when a transaction ends. And Django takes back what was
    registered within an ``atomic`` block, but not after ``transaction.savepoint()``: a
    savepoint that belongs to no open block may be one of those.
    """
    if not connection.in_atomic_block:
        return False
    state, before = connection.savepoint_state, _savepoints_before.get(connection, 0)
    made = state - before if state >= before else state  # the count may begin anew
    return made == sum(sid is not None for sid in connection.savepoint_ids)


#: How many savepoints a connection had made when it was last seen outside of a transaction.
_savepoints_before: WeakKeyDictionary[BaseDatabaseWrapper, int] = WeakKeyDictionary()


def _note_savepoints(using: str) -> None:
    connection = connections[using]
    _savepoints_before[connection] = connection.savepoint_state


def _note_all_savepoints(**_: Any) -> None:
    for connection in connections.all(initialized_only=True):
        if not in_transaction(connection.alias):
            _note_savepoints(connection.alias)


request_started.connect(_note_all_savepoints, dispatch_uid="pluginhost.delivery.celery")


def _send_later(envelopes: Sequence[Envelope], using: str, budget: Budget) -> None:
    """After the commit. The call has long been told that its events are accepted."""
    if not in_transaction(using):
        _note_savepoints(using)
    if not _send(envelopes, using, budget):
        counts.count("lost", sum(envelope.n for envelope in envelopes))


def _send(envelopes: Sequence[Envelope], using: str, budget: Budget) -> bool:
    """Publish them, and give the outbox what was not confirmed. False if that does not take it either."""
    try:
        rest = envelopes[_publish(envelopes, using, budget) :]
    except BaseException:  # the thread is told to end while it waits, as by a server that stops at once
        _spill(envelopes, using)
        raise
    return not rest or _spill(rest, using)


def _publish(envelopes: Sequence[Envelope], using: str, budget: Budget) -> int:
    """How many of them, from the first on, the broker has for sure."""
    office = broker.office()
    ticket = office.breaker.enter()
    if ticket is None:
        return 0
    confirmed, problem = 0, "the request was broken off"
    try:
        confirmed, problem = _ask(office, envelopes, using, budget)
    except Exception as error:  # Celery is not there, no thread can be started
        problem = broker.describe(error)
    finally:  # the next probe is due even if this one's thread is told to end
        if confirmed == len(envelopes):
            office.breaker.succeeded(ticket)
        else:
            office.breaker.failed(ticket, problem)
    return confirmed


def _ask(office: broker.Office, envelopes: Sequence[Envelope], using: str, budget: Budget) -> tuple[int, str]:
    from celery import current_app

    # Looked up here: it may be another one in another thread.
    app = current_app._get_current_object()
    return office.publish(app, [_message(envelope, using) for envelope in envelopes], lambda: budget.deadline)


def _message(envelope: Envelope, using: str) -> dict[str, Any]:
    """The arguments of the task, as ``delivery.ingest.ingest`` takes them."""
    return {
        "version": VERSION,
        "envelope_id": envelope.envelope_id,
        "lanes": ",".join(envelope.lanes),
        "n": envelope.n,
        "payload": envelope.payload.decode(),
        "using": using,
    }


def _spill(envelopes: Sequence[Envelope], using: str) -> bool:
    """Past the broker, into the outbox. What the broker has all the same is told from it by the envelope's id."""
    if not outbox.transport.spill(envelopes, using):
        return False
    n = sum(envelope.n for envelope in envelopes)
    counts.count("spilled", n)
    broker.office().breaker.spilled(n)
    return True


transport = Celery()
