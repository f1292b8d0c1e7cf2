"""Publishes to the broker of the site's Celery, within a time that nothing makes longer.

Host names, TCP, TLS and the handshake all have time-outs of their own, or none, and
know nothing of ours. So a thread of this module talks to the broker, and the request
waits for its answer, as long as it may. What is connected too late serves the next
request. Connections are not those of Celery's own pool: confirms, `mandatory` and
time-outs must not depend on what the site has set for its tasks.
"""

from __future__ import annotations

import os
import time
import uuid
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any

from pluginhost.conf import get_settings
from pluginhost.delivery.breaker import Breaker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: The task that stores what is published. It takes what ``delivery.ingest.ingest`` does.
TASK = "pluginhost.ingest"
#: Seconds after which an idle connection is closed, before a firewall between forgets it.
IDLE = 60.0
#: AMQP: the message survives a restart of the broker.
PERSISTENT = 2


class Refused(Exception):
    """The broker, or what leads to it, does not take messages; the text holds no secret."""


def _on_blocked() -> None:
    """RabbitMQ has an alarm (memory, disk): it reads nothing more of a connection that publishes."""
    raise Refused("the broker blocks publishers: memory or disk is short")


class Link:
    """A connection to the broker, with the queue declared. For one thread. Raises what the broker's library does."""

    def __init__(self, app: Any, queue: str, seconds: float) -> None:
        self.app = app
        self.queue = queue
        self._connection = _connection(app, seconds)
        try:
            # One try at each of the site's brokers; the next request is the next one.
            self._connection.ensure_connection(max_retries=max(0, len(self._connection.alt) - 1), interval_start=0)
            channel = self._connection.channel()
            app.amqp.queues[queue](channel).declare()
            self._producer = app.amqp.Producer(channel, auto_declare=False, serializer=_serializer(app))
        except BaseException:
            self.drop()
            raise

    def send(self, message: Mapping[str, Any], seconds: float) -> None:
        """Publish it. Returns when RabbitMQ has confirmed it, Redis or Valkey have answered.

        RabbitMQ returns what no queue takes, because of ``mandatory``; py-amqp raises that,
        as nothing listens to returned messages (``amqp.Channel._on_basic_return``).
        """
        built = self.app.amqp.create_task_message(
            str(uuid.uuid4()),
            TASK,
            kwargs=message,
            ignore_result=True,
            # In words, for logs and monitors of Celery, where no properties of people belong.
            argsrepr="()",
            kwargsrepr=f"{{'envelope_id': '{message['envelope_id']}', 'n': {message['n']}}}",
        )
        self._producer.publish(
            built.body,
            headers=built.headers,
            exchange="",
            routing_key=self.queue,
            delivery_mode=PERSISTENT,
            mandatory=True,
            timeout=seconds,
            confirm_timeout=seconds,
            **built.properties,
        )

    def drop(self) -> None:
        """Let go without a word to the broker, which may hang."""
        with suppress(Exception):
            self._connection.collect()

    def close(self) -> None:
        """Say good-bye: a broker logs connections that end without."""
        with suppress(Exception):
            self._connection.release()


def _connection(app: Any, seconds: float) -> Any:
    """A connection, not open yet, to the broker that the site publishes to, by its settings but for ours."""
    try:
        # Nobody would send heartbeats for a connection that rests.
        connection = app.connection_for_write(heartbeat=0)
        driver = connection.transport.driver_type
    except Exception as error:  # its text may hold the URL, and so the password
        raise Refused(f"the broker's URL can't be used ({type(error).__name__})") from None
    ours: dict[str, Any] = {}
    if driver == "amqp":
        ours = {
            "confirm_publish": True,
            "read_timeout": seconds,
            "write_timeout": seconds,
            "on_blocked": _on_blocked,
        }
    elif driver == "redis":
        ours = {
            "socket_timeout": seconds,
            "socket_connect_timeout": connection.connect_timeout,
            "retry_on_timeout": False,
        }
    connection.transport_options = {**(connection.transport_options or {}), **ours}
    return connection


def _serializer(app: Any) -> str:
    """JSON, which is all that our texts and numbers need, unless the site's workers accept only something else.

    A worker drops what it does not accept: that of a site that changes its serializer, too.
    """
    accepted = app.conf.accept_content or ()
    return "json" if "json" in accepted or "application/json" in accepted else str(app.conf.task_serializer)


def _load_driver(app: Any) -> None:
    """Import it, which takes longer than a broker needs, once in a process. Asks no broker."""
    with suppress(Exception):  # told when the broker is asked
        app.connection_for_write().get_transport_cls()


class Job:
    """Messages that a request wants to have published."""

    def __init__(self, app: Any, messages: Sequence[Mapping[str, Any]], deadline: float) -> None:
        settings = get_settings()
        self.app = app
        self.messages = messages
        self.deadline = deadline
        self.queue = settings.INGEST_QUEUE
        self.budget = settings.BROKER_BUDGET
        self.confirmed = 0
        """So many messages, from the start, have arrived."""
        self.problem = ""
        self.over = Event()

    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()


class Courier(Thread):
    """Does one job at a time, over a connection of its own."""

    def __init__(self, office: Office) -> None:
        super().__init__(name="pluginhost-broker", daemon=True)
        self.inbox: SimpleQueue[Job] = SimpleQueue()
        self._office = office
        self._link: Link | None = None

    def run(self) -> None:
        while (job := self._next()) is not None:
            self._do(job)
            self._office.rests(self)
            job.over.set()
        if self._link is not None:
            self._link.close()

    def _next(self) -> Job | None:
        try:
            return self.inbox.get(timeout=IDLE)
        except Empty:
            return None if self._office.leaves(self) else self.inbox.get()

    def _do(self, job: Job) -> None:
        if self._link is not None and (self._link.app, self._link.queue) != (job.app, job.queue):
            self._drop()
        reused = self._link is not None
        try:
            try:
                self._publish(job)
            except Exception:
                # A broker that restarts closes what is idle: no outage, if it takes a new connection.
                self._drop()
                if not reused or job.seconds_left() <= 0:
                    raise
                self._publish(job)
        except Exception as error:
            self._drop()
            job.problem = describe(error)

    def _publish(self, job: Job) -> None:
        if self._link is None:
            self._link = Link(job.app, job.queue, job.budget)
        for message in job.messages[job.confirmed :]:
            if (seconds := job.seconds_left()) <= 0:  # the request has gone on without us
                return
            self._link.send(message, seconds)
            job.confirmed += 1

    def _drop(self) -> None:
        if self._link is not None:
            self._link.drop()
            self._link = None


class Office:
    """What one process has of the broker: couriers, as many as publish at once, and the circuit breaker."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.breaker = Breaker()
        self._resting: list[Courier] = []
        self._lock = Lock()

    def publish(
        self, app: Any, messages: Sequence[Mapping[str, Any]], deadline: Callable[[], float]
    ) -> tuple[int, str]:
        """Publish until ``deadline``, a time of ``time.monotonic`` that is asked for when the waiting begins.

        Returns how many messages, from the start, have surely arrived, and why not all.
        """
        with self._lock:
            courier = self._resting.pop() if self._resting else None  # the last one: the others may grow idle
        if courier is None:
            _load_driver(app)
            courier = Courier(self)
            courier.start()
        job = Job(app, messages, deadline())
        courier.inbox.put(job)
        job.over.wait(max(0.0, job.seconds_left()))
        return job.confirmed, job.problem or f"no answer within {job.budget} s"

    def rests(self, courier: Courier) -> None:
        with self._lock:
            self._resting.append(courier)

    def leaves(self, courier: Courier) -> bool:
        """Whether it may: not if it was just given a job."""
        with self._lock:
            if courier in self._resting:
                self._resting.remove(courier)
                return True
        return False


_office = Office()


def office() -> Office:
    """Of this process. After a fork a new one: threads are not inherited, and the parent's connections are not ours.

    The child neither uses nor closes them.
    """
    global _office
    if _office.pid != os.getpid():
        _inherited.append(_office)
        _office = Office()
    return _office


#: Kept, so that nothing of the parent's is ever finalised here.
_inherited: list[Office] = []


def describe(error: Exception) -> str:
    """In one line, without what may hold the broker's URL, and so the password: that of a URL that can't be read."""
    if isinstance(error, ValueError):
        return type(error).__name__
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
