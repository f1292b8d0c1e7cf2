"""The list of the admin as a worker knows it: read now and then, and never in a request."""

from __future__ import annotations

import logging
import threading
from time import monotonic
from typing import TYPE_CHECKING

from pluginhost.builtin.bots.matching import MAX_USER_AGENT, matcher

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("pluginhost.bots")

Rows = tuple[tuple[str, str], ...]


class AdminList:
    """The enabled rows of ``Robot``, at most ``refresh`` seconds old.

    While the table can't be read, the rows known before stay in use, or none: a
    robot that is counted does less harm than people who are not.
    """

    def __init__(self, alias: str, refresh: float) -> None:
        self._alias = alias
        self._refresh = refresh
        self._due = float("-inf")
        self._rows: Rows = ()
        self._matches: Callable[[str], bool] = matcher(())
        self._failing = False
        self._lock = threading.Lock()

    def has(self, user_agent: str) -> bool:
        if monotonic() >= self._due:
            self._read()
        return self._matches(user_agent[:MAX_USER_AGENT])

    def _read(self) -> None:
        with self._lock:
            if monotonic() < self._due:
                return  # another thread has just read it
            try:
                rows = _enabled_rows()
            except Exception:
                if not self._failing:
                    logger.warning(
                        "plugin %s: the admin's list of robots can't be read, so the one known before stays in use;"
                        " if its table is missing, run migrate",
                        self._alias,
                        exc_info=True,
                    )
                self._failing = True
            else:
                self._failing = False
                if rows != self._rows:
                    self._rows, self._matches = rows, matcher(rows)
            self._due = monotonic() + self._refresh


def _enabled_rows() -> Rows:
    from pluginhost.builtin.bots.models import Robot

    return tuple(Robot.objects.filter(enabled=True).order_by("pk").values_list("kind", "pattern"))
