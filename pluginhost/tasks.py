"""Celery's tasks: Celery finds this module by its name. Nothing of the host imports it.

Other queues look for modules of this name too (Huey, Dramatiq, Procrastinate). On a
site without Celery it can be imported, and what would be tasks are functions.

``tick`` and ``deliver`` empty the outbox, ``ingest`` fills it from the broker, and
``clean`` tidies up. Only what ``ingest`` is given is worth anything: the others
only say "look", so they expire, and what they are to do is in the database.
"""

from __future__ import annotations

import logging
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery import Task

    from pluginhost.delivery.runner import Runner

# The models come with the calls: ``beat_schedule`` is for settings, which are read before any app is there.

logger = logging.getLogger("pluginhost.worker")

#: Seconds after which a message that only says "look" is worth nothing. Far above what clocks of machines differ by.
EXPIRES = 60
#: Seconds between two attempts to store what the broker carried; then the broker has it back.
PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 3.0, 5.0, 5.0)
#: Seconds that are no time limit.
NEVER = 30 * 24 * 3600
#: Seconds between two cleanings.
CLEAN_EVERY = 3600.0
#: A hook that hangs is found by a thread of its process. Should that hang too, the pool ends the process after the
#: time of a task and of so many calls more: as many as it takes to find one bad event among 500 by halving.
CALLS_BEFORE_THE_END = 20

TICK, CLEAN = "pluginhost.tick", "pluginhost.clean"


def beat_schedule(period: float = 1.0, databases: Sequence[str] = ("default",)) -> dict[str, dict[str, Any]]:
    """The entries that beat needs: ``CELERY_BEAT_SCHEDULE = beat_schedule()`` in the settings.

    ``period`` is the number of seconds between two looks into the outbox,
    ``databases`` are the aliases of those that have one. Returns a dict, for a
    site that has entries of its own. Reads no settings.
    """
    entries: dict[str, dict[str, Any]] = {}
    for using in databases:
        # By their names: to touch the tasks would make the app, and so read the settings.
        for task, seconds in ((TICK, period), (CLEAN, CLEAN_EVERY)):
            entries[f"{task} {using}"] = {"task": task, "schedule": seconds, "kwargs": {"using": using}}
    return entries


def _task(**options: Any) -> Callable[[Any], Any]:
    """``celery.shared_task``, if there is Celery."""
    if find_spec("celery") is None:
        return lambda function: function
    from celery import shared_task

    decorator: Callable[[Any], Any] = shared_task(**options)
    return decorator


@_task(name=TICK, ignore_result=True, expires=EXPIRES)
def tick(using: str = "default") -> None:
    """Take what requests have left in the outbox, and send a task for each lane that has something due."""
    from pluginhost.workers.nudging import look

    for runner in look(using):
        _send(runner, using)


@_task(
    name="pluginhost.deliver",
    bind=True,
    acks_late=True,
    reject_on_worker_lost=True,
    ignore_result=True,
    expires=EXPIRES,
)
def deliver(self: Task, lane: str, using: str = "default") -> None:
    """Deliver for one lane for a while; if there is more, send a task that goes on."""
    from pluginhost.workers.nudging import work_off

    # The broker gives a message out again when the process died that had it.
    again = bool((self.request.delivery_info or {}).get("redelivered"))
    runner = work_off(lane, using, stopping=_stopping, takes_over=again)
    if runner is not None:
        _send(runner, using)


def _send(runner: Runner, using: str) -> None:
    from pluginhost.delivery.broker import describe
    from pluginhost.workers.nudging import SECONDS_TO_WORK

    limit = SECONDS_TO_WORK + CALLS_BEFORE_THE_END * runner.plugin.timeout
    # Both, as a limit of the site's would end a call that may take longer.
    options: dict[str, Any] = {"time_limit": limit, "soft_time_limit": limit, "delivery_mode": "transient"}
    if runner.plugin.lane.CELERY_QUEUE:
        options["queue"] = runner.plugin.lane.CELERY_QUEUE
    try:
        deliver.apply_async((runner.alias, using), **options)
    except Exception as error:  # of one lane, be it that there is no such queue; the next look sends it
        logger.warning("lane %s: the broker refuses: %s", runner.alias, describe(error))


def _stopping() -> bool:
    """Whether this worker was told to end. Children of a prefork pool are not told: their parent waits for them."""
    from celery.worker import state  # much of Celery, which settings that import this module do not need

    return any(told is not None and told is not False for told in (state.should_stop, state.should_terminate))


# Acknowledged late: only what is stored, or given back, leaves the broker. Celery discards the message of a task that
# raises, so whatever it raises is a Reject. A time limit of the site's would end that: not every version of Celery
# gives back the message of a task that it has ended.
@_task(
    name="pluginhost.ingest",
    acks_late=True,
    reject_on_worker_lost=True,
    acks_on_failure_or_timeout=False,
    ignore_result=True,
    time_limit=NEVER,
    soft_time_limit=NEVER,
)
def ingest(*envelope: Any, **named: Any) -> None:
    """Store an envelope that the broker carried. What can't be stored goes back to the broker.

    Takes any arguments: those of a newer version of the host are for its workers.
    """
    from celery.exceptions import Reject

    try:
        _store(envelope, named)
    except Exception as error:
        logger.error("an envelope could not be stored, and goes back to the broker: %s", error)
        raise Reject(type(error).__name__, requeue=True) from error


def _store(envelope: Sequence[Any], named: dict[str, Any]) -> None:
    """Try it for a while. Raises what it fails with in the end."""
    for pause in (*PAUSES, None):
        try:
            from pluginhost.delivery.ingest import ingest as store

            store(*envelope, **named)
        except Exception as error:
            from pluginhost.workers.nudging import let_go

            let_go()
            if pause is None or _stopping():
                raise
            if pause == PAUSES[0]:
                logger.warning("an envelope could not be stored, and is tried again: %s", error)
            time.sleep(pause)
        else:
            return


@_task(name=CLEAN, ignore_result=True, expires=int(CLEAN_EVERY))
def clean(using: str = "default") -> None:
    """Discard what is older than the settings say, and tidy up."""
    from pluginhost.operations.retention import clean as tidy

    tidy(using)


def _close(**_: Any) -> None:
    """This process ends: send what is to be told, let the plugins close what they opened."""
    from pluginhost.registry import load_registry
    from pluginhost.signals import flush
    from pluginhost.workers.worker import close_all

    flush()
    close_all(load_registry().runners.values())


if find_spec("celery") is not None:
    from celery.signals import worker_process_shutdown, worker_shutdown

    for _signal in (worker_process_shutdown, worker_shutdown):
        _signal.connect(_close, dispatch_uid="pluginhost.tasks", weak=False)
