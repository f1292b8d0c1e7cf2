"""Ends the demo's processes if the demo itself was killed.

The runner holds the other end of our standard input, and writes ``+PID`` for each
process group that it starts and ``-PID`` for each that it has ended. When it
dies, by whatever signal, the input ends, and we end what is left.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

#: Seconds between asking and killing.
PATIENCE = 5.0


def main() -> None:
    groups: list[int] = []
    for line in sys.stdin:
        if line.startswith("+"):
            groups.append(int(line[1:]))
        else:
            groups.remove(int(line[1:]))
    groups = [group for group in groups if _send(group, signal.SIGTERM)]
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and any(_send(group, 0) for group in groups):
        time.sleep(0.1)
    for group in groups:
        _send(group, signal.SIGKILL)


def _send(group: int, number: int) -> bool:
    """Whether there still was such a group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
        return True
    return False


if __name__ == "__main__":
    main()
