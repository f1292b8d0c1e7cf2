"""Many workers and many writers, each a process: made by forks, because each start of Django costs a second.

``python -m tests.many KIND FOLDER WORKERS WRITERS EVENTS`` writes what each writer tracked into the folder, delivers
all of it, and ends with status 0 if every process did. The site is that of ``tests.live_settings``.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds for the rest of the deliveries, after the last event.
PATIENCE = 240


def work() -> None:
    """A worker, until it is told to end."""
    from pluginhost import host
    from pluginhost.workers.worker import Worker

    worker = Worker(host.registry.runners, "default")
    signal.signal(signal.SIGTERM, lambda *_: worker.end())
    assert worker.run() == 0


def write(path: Path, number: int, events: int) -> None:
    """A site's process: events in transactions, in batches, alone and undone; what of it must arrive."""
    from django.db import transaction

    from pluginhost import host
    from tests.site.models import Order

    chance = random.Random(number)
    done: list[str] = []

    def track(kept: bool = True) -> None:
        name = f"event {chance.randrange(7)}"
        message_id = host.track(None, name, {"number": len(done)}, user_id=f"user {chance.randrange(50)}")
        if kept:
            done.append(f"{name},{message_id}")

    while len(done) < events:
        with transaction.atomic():
            order = Order.objects.create(number=f"{number}-{len(done)}")
            for _ in range(3):
                track()
            Order.objects.filter(pk=order.pk).update(number="paid")
        with host.batch():
            for _ in range(20):
                track()
        track()
        with transaction.atomic():
            track(kept=False)
            transaction.set_rollback(True)
    path.write_text("\n".join(done))


def visit(path: Path, number: int, events: int) -> None:
    """A site's process whose transactions read first and write later: some are ``refused``, no event is ``lost``."""
    from django.db import OperationalError, transaction

    from pluginhost import host
    from tests.site.models import Order

    done: list[str] = []
    refused = 0
    while len(done) < events:
        accepted = []
        name = f"event {len(done) % 7}"
        try:
            with transaction.atomic():
                Order.objects.count()
                if len(done) % 2:
                    Order.objects.create(number=str(number))
                accepted.append(host.track(None, name))
                Order.objects.create(number=str(number))
        except OperationalError as error:
            if "locked" not in str(error):
                raise
            refused += 1
            time.sleep(0.01 * random.random())
            continue
        accepted.append(host.track(None, name))
        done += [f"{name},{message_id}" if message_id else "lost" for message_id in accepted]
    path.write_text("\n".join([*done, *["refused"] * refused]))


def fork(act: Callable[[], None]) -> int:
    """Do it in a child, which ends with status 1 if it raises."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        act()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


KINDS = {"write": write, "visit": visit}


def main(kind: str, folder: Path, workers: int, writers: int, events: int) -> int:
    import django

    django.setup()
    from tests.processes import nothing_waits

    working = [fork(work) for _ in range(workers)]
    try:
        act = KINDS[kind]
        writing = [fork(lambda number=number: act(folder / str(number), number, events)) for number in range(writers)]
        statuses = [ended(child) for child in writing]
        end = time.monotonic() + PATIENCE
        while not nothing_waits("default") and time.monotonic() < end:
            time.sleep(0.1)
    finally:
        for child in working:
            os.kill(child, signal.SIGTERM)
    return max(map(abs, [*statuses, *map(ended, working)]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])))
