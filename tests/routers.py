from __future__ import annotations

from typing import Any


class Chosen:
    """Sends every model to the database that the fixture ``database`` chose."""

    alias: str | None = None

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return self.alias

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return self.alias

    def allow_relation(self, one: Any, other: Any, **hints: Any) -> bool:
        return True
