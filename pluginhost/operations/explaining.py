"""The life of one event, as far as anybody still knows it: where it lies in the outbox, and what the receivers say."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.db.models import BinaryField, BooleanField, Case, F, Func, IntegerField, Q, Value, When
from django.db.models.functions import Now

from pluginhost.delivery.attempt import RAISED
from pluginhost.delivery.envelopes import unpack
from pluginhost.models import Chunk, Delivery, Envelope
from pluginhost.options import redacted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Model
    from django.db.models.sql.compiler import SQLCompiler

    from pluginhost.delivery.runner import Runner

#: What an event is to a lane.
NOT_TAKEN, WAITING, IN_HAND, FINISHED, DEAD = "not taken", "waiting", "in hand", "finished", "dead"


@dataclass(frozen=True)
class Finding:
    """One place where the event was found, for one lane."""

    lane: str
    state: str
    """``not taken``, ``waiting``, ``in hand``, ``finished`` or ``dead``."""
    name: str = ""
    accepted: dt.datetime | None = None
    attempts: int = 0
    due_at: dt.datetime | None = None
    reason: str = ""


@dataclass
class Life:
    """What is known of one event."""

    message_id: str
    made: dt.datetime | None = None
    """When its id was made, if that can be told of it."""
    findings: list[Finding] = field(default_factory=list)
    answers: dict[str, str | None] = field(default_factory=dict)
    """Alias -> what its plugin says of the event; None if nothing."""
    errors: dict[str, str] = field(default_factory=dict)
    """Alias -> why its plugin could not be asked."""
    unreadable: int = 0
    """Payloads that have this id in them, and can't be read."""

    @property
    def found(self) -> bool:
        return bool(self.findings) or any(self.answers.values())


class BytesIn(Func):
    """Where bytes begin within a binary column, from 1 on; 0 if they are not there."""

    output_field = IntegerField()

    def __init__(self, needle: bytes, haystack: str) -> None:
        super().__init__(Value(needle, output_field=BinaryField()), F(haystack))

    def as_postgresql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **extra: Any) -> Any:
        return self.as_sql(compiler, connection, template="POSITION(%(expressions)s)", arg_joiner=" IN ", **extra)

    def as_mysql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **extra: Any) -> Any:
        return self.as_sql(compiler, connection, function="LOCATE", **extra)

    def as_sqlite(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **extra: Any) -> Any:
        swapped = self.copy()
        swapped.set_source_expressions(self.get_source_expressions()[::-1])
        return super(BytesIn, swapped).as_sql(compiler, connection, function="INSTR", **extra)


def explain(message_id: str, using: str, runners: Mapping[str, Runner]) -> Life:
    """Look for an event in the outbox, and ask the plugins of the lanes that do not owe it any more.

    Raises nothing of theirs.
    """
    message_id = message_id.strip().lower()
    life = Life(message_id, made=made(message_id))
    alone = list(_alone(life, using))
    chunks, envelopes = _in_chunks(life, using, {finding.lane for finding in alone}), _in_envelopes(life, using)
    life.findings = [*alone, *chunks, *envelopes]
    owing = {finding.lane for finding in life.findings if finding.state != FINISHED}
    for alias, runner in runners.items():
        if alias not in owing:
            _ask(life, alias, runner)
    return life


def made(message_id: str) -> dt.datetime | None:
    """When a UUIDv7 (RFC 9562, 5.7) was made; None for any other id."""
    try:
        value = uuid.UUID(message_id)
    except ValueError:
        return None
    if value.version != 7:
        return None
    return dt.datetime.fromtimestamp((value.int >> 80) / 1000, dt.UTC)


def _ask(life: Life, alias: str, runner: Runner) -> None:
    was_open = runner.is_open
    try:
        answer = runner.explain(life.message_id)
    except RAISED as error:
        life.errors[alias] = runner.judge.describe(error)
    else:
        life.answers[alias] = redacted(str(answer), runner.plugin.options) if answer else None
    finally:
        if not was_open:
            runner.close()


def _held() -> Case:
    """Whether a worker holds a delivery right now."""
    return Case(When(Q(token__isnull=False, due_at__gt=Now()), then=True), default=False, output_field=BooleanField())


def _found(row: Delivery, name: str, held: bool, *, finished: bool = False) -> Finding:
    if row.state == Delivery.State.DEAD:
        state = DEAD
    elif finished:
        state = FINISHED
    else:
        state = IN_HAND if held else WAITING
    return Finding(row.lane, state, name, row.created, row.attempts, row.due_at, row.reason)


def _alone(life: Life, using: str) -> Iterator[Finding]:
    """Deliveries of this event alone: it has failed, and waits on its own or is dead."""
    rows = Delivery.objects.using(using).filter(message_id=life.message_id).annotate(held=_held())
    for row in rows.defer("payload").order_by("id"):
        yield _found(row, row.event_name, row.held)


def _holding(model: type[Model], life: Life, using: str) -> list[int]:
    """The rows whose payload has the id in it."""
    place = BytesIn(life.message_id.encode(), "payload")
    rows = model._default_manager.using(using).annotate(place=place).filter(place__gt=0)
    return list(rows.order_by("id").values_list("id", flat=True))


def _in_chunks(life: Life, using: str, alone: Collection[str]) -> Iterator[Finding]:
    """Its place in chunks, and how far each lane has come there. ``alone`` are lanes that it has failed in."""
    for id_ in _holding(Chunk, life, using):
        payload = Chunk.objects.using(using).filter(id=id_).values_list("payload", flat=True).first()
        rows = list(Delivery.objects.using(using).filter(chunk=id_).annotate(held=_held()).order_by("id"))
        if payload is None or not rows:  # finished since
            continue
        for place, name in _places(life, rows[0].version, bytes(payload)):
            for row in rows:
                # What failed there has left for a delivery of its own.
                if place >= row.done or row.lane not in alone:
                    yield _found(row, name, row.held, finished=place < row.done)


def _in_envelopes(life: Life, using: str) -> Iterator[Finding]:
    """Envelopes that no worker has taken."""
    for id_ in _holding(Envelope, life, using):
        if row := Envelope.objects.using(using).filter(id=id_).first():  # else taken since
            for _, name in _places(life, row.version, bytes(row.payload)):
                for lane in row.lanes.split(","):
                    yield Finding(lane, NOT_TAKEN, name, row.created)


def _places(life: Life, version: int, payload: bytes) -> list[tuple[int, str]]:
    """Where in a payload the event is, and its name. That the id occurs in it is not enough."""
    try:
        stored = unpack(version, payload)
    except ValueError:
        life.unreadable += 1
        return []
    return [
        (place, one.event.name)
        for place, one in enumerate(stored)
        if one.event and one.event.message_id == life.message_id
    ]
