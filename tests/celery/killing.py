"""What the tests share that kill Celery's workers."""

from __future__ import annotations

import os
import random
import signal
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from tests import killing
from tests.processes import nothing_waits, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.celery.workers import Process, Site


class Killer(killing.Killer):
    """Kills a whole worker, or, every other time, only a child of its pool, which the worker then replaces."""

    def hit(self, herd: list[Process], number: int) -> None:  # type: ignore[override]
        children = herd[number].children()
        if self.kills % 2 == 0 or not children:
            super().hit(herd, number)  # type: ignore[arg-type]
            return
        with suppress(ProcessLookupError):  # it has just ended by itself
            os.kill(random.choice(children), signal.SIGKILL)
        self.kills += 1


class Nudger(threading.Thread):
    """Does what beat does, without another process."""

    def __init__(self, site: Site) -> None:
        super().__init__(daemon=True)
        self.site = site
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.1):
            self.site.send("pluginhost.tick", "default", expires=20)


@contextmanager
def nudging(site: Site) -> Iterator[None]:
    thread = Nudger(site)
    thread.start()
    try:
        yield
    finally:
        thread.over.set()
        thread.join()


def kill_drainers(site: Site, mongodb: str, events: int, kills: int) -> None:
    """Workers that empty the outbox are killed while events flow. All of them have to arrive, once."""
    killing.forget_all(mongodb)
    with (
        nudging(site),
        killing.killing(
            site.database,
            lambda: site.worker("--concurrency", "2"),
            events=events,
            kills=kills,
            workers=1 if kills < 10 else 2,
            killer=Killer,
        ) as traffic,
        site.worker("--concurrency", "2"),
    ):
        wait_until(lambda: nothing_waits(site.database), 120)
    killing.assert_all_arrived_once(site.database, mongodb, traffic)
