"""Keeps apart what happened in the same second.

KISSmetrics drops an event that has the person, the name and the second of another
one ("Duplicates" in its API documentation). That makes a repeat harmless, and two
things that did happen one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from pluginhost_kissmetrics.identity import plain

#: Calls that one process remembers: some hundred bytes each.
SIZE = 4096

Slot = tuple[int, int]
"""What stands for a person and a name, and a second."""


class Seconds:
    """A bounded memory of which message took which second. Threads may share it."""

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._by_message: OrderedDict[str, Slot] = OrderedDict()
        self._taken: dict[Slot, int] = {}
        """What is taken, and from which second on it may be free. So none of a crowd counts through all before it."""

    def take(self, message_id: str, person: str, name: str, second: int) -> int:
        """The second for this message: its own, or the next that no other message of this person and name has.

        The same message gets the same second again, as long as it is remembered.
        """
        # The receiver does not tell "Paid" and "paid" apart, nor "a:b" and "a b".
        # A hash will do: where two are the same, one event is a second off; and nobody can be read from it.
        who_and_what = hash((plain(person), plain(name).lower()))
        with self._lock:
            if message_id in self._by_message:
                self._by_message.move_to_end(message_id)
                return self._by_message[message_id][1]
            asked = slot = (who_and_what, second)
            while slot in self._taken:
                slot = (who_and_what, self._taken[slot])
            second = slot[1]
            if slot != asked:
                self._taken[asked] = second + 1
            self._by_message[message_id] = slot
            self._taken[slot] = second + 1
            if len(self._by_message) > self._size:
                del self._taken[self._by_message.popitem(last=False)[1]]
            return second
