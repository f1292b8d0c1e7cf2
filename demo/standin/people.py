"""Which ids are one person: aliases are never undone, and chains of them are one."""

from __future__ import annotations


class People:
    def __init__(self) -> None:
        self._groups: dict[str, set[str]] = {}

    def add(self, identity: str) -> None:
        self._groups.setdefault(identity, {identity})

    def merge(self, one: str, other: str) -> None:
        self.add(one)
        self.add(other)
        merged = self._groups[one] | self._groups[other]
        for identity in merged:
            self._groups[identity] = merged

    def person(self, identity: str) -> frozenset[str]:
        """All ids of the person that this one is of; none, if nobody is known by it."""
        return frozenset(self._groups.get(identity, ()))

    def all(self) -> list[frozenset[str]]:
        """Each person once, in the order in which they came to be known."""
        return list(dict.fromkeys(frozenset(group) for group in self._groups.values()))
