"""Many workers and many writers, each a process: made by forks, because each start of Django costs a second.

``python -m tests.many FOLDER WORKERS WRITERS EVENTS`` writes what each writer tracked into the folder, delivers all of
it, and ends with status 0 if every process did. The site is that of ``tests.live_settings``.
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
    from pluginhost.delivery.worker import Worker

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


def main(folder: Path, workers: int, writers: int, events: int) -> int:
    import django

    django.setup()
    from tests.processes import nothing_waits

    working = [fork(work) for _ in range(workers)]
    try:
        writing = [fork(lambda number=number: write(folder / str(number), number, events)) for number in range(writers)]
        statuses = [ended(child) for child in writing]
        end = time.monotonic() + PATIENCE
        while not nothing_waits("default") and time.monotonic() < end:
            time.sleep(0.1)
    finally:
        for child in working:
            os.kill(child, signal.SIGTERM)
    return max(map(abs, [*statuses, *map(ended, working)]))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *map(int, sys.argv[2:])))
