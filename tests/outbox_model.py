"""What the state machine of the outbox knows: receivers that do as they are told, and where each event should be."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import transaction

from pluginhost import PartialFailure, PermanentError, RetryableError, SkipEvent, UncertainError, host
from pluginhost.delivery import accounts, marks
from pluginhost.delivery.envelopes import unpack
from pluginhost.models import Chunk, Delivery, Envelope
from tests.steps import given

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pluginhost.delivery.lanes import Claim

#: Lane -> its options. They differ in what a repetition does, in how many events travel at once, and in patience.
LANES: dict[str, dict[str, Any]] = {
    "folder": {"BATCH_SIZE": 3},
    "plain": {},
    "careful": {"PLUGIN": "plain", "ON_UNCERTAIN": "dead", "BATCH_SIZE": 3},
    "mortal": {"PLUGIN": "recorder", "MAX_ATTEMPTS": 2},
}
#: Kind of fault -> what the receiver raises. Of those that end in "arrived" it takes the events all the same.
ERRORS: dict[str, Callable[[], Exception]] = {
    "retryable": lambda: RetryableError("away"),
    "retry after": lambda: RetryableError("busy", retry_after=90),
    "permanent": lambda: PermanentError("refused"),
    "unexplained": lambda: RuntimeError("a fault of the plugin"),
    "uncertain": lambda: UncertainError("no answer"),
    "uncertain, arrived": lambda: UncertainError("no answer"),
    "skip": lambda: SkipEvent("not for us"),
}


#: Stands for the message id of an event that was erased, because its person was forgotten.
ERASED = ""
#: SQLite's clock has milliseconds. The clock of those who track is ahead as far as a mark reaches: then nobody has to
#: wait for that long after somebody was forgotten.
GRAIN = dt.timedelta(milliseconds=1)
#: Events that are said to have happened so long ago turn up late.
LATE = dt.timedelta(hours=1)


class Killed(BaseException):
    """Ends a worker as if its process had ended."""


class Undone(Exception):
    """Ends a transaction, or a block, of the site."""


@dataclass
class Fault:
    """What happens when an event is sent, so many times."""

    kind: str
    times: int
    partly: bool
    """Whether a batch fails for this event alone."""


@dataclass
class Receiver:
    """What is behind one lane. It counts each event that it takes, also those that it has taken before."""

    faults: dict[str, Fault] = field(default_factory=dict)
    """Message id -> its fault."""
    away: str = ""
    """The kind of fault that all events meet."""
    effects: Counter[str] = field(default_factory=Counter)
    asked: set[str] = field(default_factory=set)
    """In the step that is under way, as the next four."""
    taken: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    failed: dict[str, set[str]] = field(default_factory=dict)
    """Message id -> kinds of faults."""
    calls: int = 0
    before: Callable[[], None] | None = None
    """What happens elsewhere while the receiver is asked: before it takes the events, and after."""
    after: Callable[[], None] | None = None

    @staticmethod
    def kill() -> None:
        raise Killed

    def arm(self, act: Callable[[], None], calls: int, *, before: bool) -> None:
        """Let something happen at the call after so many."""

        def wait() -> None:
            if calls:
                self.arm(act, calls - 1, before=before)
            elif before:
                act()
            else:
                self.after = act

        self.before = wait

    def disarm(self) -> None:
        self.before = self.after = None

    def begin(self) -> None:
        """Another step begins."""
        self.asked.clear()
        self.taken.clear()
        self.skipped.clear()
        self.failed.clear()
        self.calls = 0

    def __call__(self, argument: Any) -> None:
        self.calls += 1
        ids = [event.message_id for event in given(argument)]
        self.asked.update(ids)
        before, self.before = self.before, None
        if before:
            before()
        try:
            self._answer(ids, is_batch=hasattr(argument, "events"))
        finally:
            after, self.after = self.after, None
            if after:
                after()

    def _answer(self, ids: Sequence[str], *, is_batch: bool) -> None:
        if self.away:
            self._raise(self.away, ids)
        met = {id_: fault for id_ in ids if (fault := self._strike(id_))}
        whole = [fault.kind for fault in met.values() if not (fault.partly and is_batch)]
        if whole:
            self._raise(whole[0], ids)
        self.taken.update(good := [id_ for id_ in ids if id_ not in met])
        self.effects.update(good)
        if met:
            for id_, fault in met.items():
                self._note(fault.kind, [id_] * ids.count(id_))
            raise PartialFailure({id_: ERRORS[fault.kind]() for id_, fault in met.items()})

    def _strike(self, id_: str) -> Fault | None:
        fault = self.faults.get(id_)
        if fault is None:
            return None
        fault.times -= 1
        if fault.times <= 0:
            del self.faults[id_]
        return fault

    def _raise(self, kind: str, ids: Sequence[str]) -> None:
        self._note(kind, ids)
        raise ERRORS[kind]()

    def _note(self, kind: str, ids: Sequence[str]) -> None:
        if kind == "skip":
            self.skipped.update(ids)
        if kind.endswith("arrived"):
            self.effects.update(ids)
        for id_ in ids:
            self.failed.setdefault(id_, set()).add(kind)


@dataclass
class Places:
    """Where the events of one lane are: each as often as it was accepted."""

    waiting: Counter[str] = field(default_factory=Counter)
    dead: Counter[str] = field(default_factory=Counter)
    delivered: int = 0
    skipped: int = 0
    discarded: int = 0

    @property
    def open(self) -> Counter[str]:
        return self.waiting + self.dead


def places(using: str, *, only_fresh: bool = False) -> dict[str, Places]:
    """What the tables say of every lane, or only what no worker has taken. The accounts have to agree."""
    found = {lane: Places() for lane in LANES}
    for version, lanes, payload in Envelope.objects.using(using).values_list("version", "lanes", "payload"):
        for lane in lanes.split(","):
            found[lane].waiting.update(_ids(version, payload))
    if only_fresh:
        return found
    chunks = dict(Chunk.objects.using(using).values_list("id", "payload"))
    for row in Delivery.objects.using(using).all():
        payload = row.payload if row.chunk_id is None else chunks[row.chunk_id]
        place = found[row.lane].dead if row.state == "dead" else found[row.lane].waiting
        place.update(_ids(row.version, payload)[row.done :])
    for lane, account in accounts.read(using).items():
        assert accounts.balances(account), (lane, account)
        place = found[lane]
        assert (place.waiting.total(), place.dead.total()) == (account["waiting"], account["dead"]), lane
        place.delivered, place.skipped = account["delivered"], account["skipped"]
        place.discarded = account["discarded"]
    return found


def _ids(version: int, payload: bytes) -> list[str]:
    return [one.event.message_id if one.event else ERASED for one in unpack(version, bytes(payload))]


def held_ids(claim: Claim) -> Iterator[str]:
    return (item.event.message_id for item in claim.items if item.event)


# --- what a site does in a request ---


@dataclass(frozen=True)
class Track:
    """One call."""

    person: str | None = None
    key: str | None = None
    without: int | None = None
    """The number of the lane that is not to have it."""
    late: bool = False
    """Whether it happened an hour ago."""


class Accepted(NamedTuple):
    """What is accepted and committed."""

    message_id: str
    lanes: set[str]
    call: Track


@dataclass(frozen=True)
class Block:
    """A transaction, a savepoint or a batch, and how it ends."""

    kind: str
    end: str
    body: tuple[Track | Block, ...]


def perform(program: Sequence[Track | Block], lanes: Sequence[str], using: str) -> list[Accepted]:
    """Run it, for these lanes. Returns what is accepted and committed."""
    accepted: list[Accepted] = []
    for statement in program:
        if isinstance(statement, Track):
            accepted += _track(statement, lanes, using)
        else:
            accepted += _perform_block(statement, lanes, using)
    return accepted


def _track(call: Track, lanes: Sequence[str], using: str) -> list[Accepted]:
    receivers = {lane for number, lane in enumerate(lanes) if number != call.without}
    switches = {lane: lane in receivers for lane in LANES}
    message_id = host.track(
        None,
        "tracked",
        user_id=call.person,
        key=f"{call.key} of {call.person}" if call.key and not call.late else None,
        timestamp=dt.datetime.now(dt.UTC) + (-LATE if call.late else marks.AHEAD - GRAIN),
        plugins=switches,
        using=using,
    )
    assert (message_id is None) == (not receivers)
    return [Accepted(message_id, receivers, call)] if message_id else []


def _perform_block(block: Block, lanes: Sequence[str], using: str) -> list[Accepted]:
    inside: list[Accepted] = []
    if block.kind == "savepoint":
        return _perform_savepoint(block, lanes, using)
    with suppress(Undone), transaction.atomic(using) if block.kind == "transaction" else host.batch(using):
        inside = perform(block.body, lanes, using)
        if block.end == "raised":
            raise Undone
        if block.kind == "transaction" and block.end == "marked":
            transaction.set_rollback(True, using)
    # A batch keeps what was tracked before an exception; only a transaction takes back.
    return inside if block.kind == "batch" or block.end == "whole" else []


def _perform_savepoint(block: Block, lanes: Sequence[str], using: str) -> list[Accepted]:
    """One by hand. Where there is no transaction it is none, and takes nothing back."""
    atomic = transaction.get_connection(using).in_atomic_block
    create = getattr(transaction, "savepoint_create", None) or transaction.savepoint  # its name since Django 6.1
    savepoint = create(using) if atomic else None
    inside = perform(block.body, lanes, using)
    if savepoint is None:
        return inside
    if block.end == "whole":
        transaction.savepoint_commit(savepoint, using)
        return inside
    transaction.savepoint_rollback(savepoint, using)
    return []
