"""How envelopes travel from the request to the lanes, and what lanes do with them."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pluginhost.delivery.envelopes import Envelope


class Transport(Protocol):
    """Takes envelopes in the request."""

    uses_database: ClassVar[bool]
    """Whether ``put`` may touch the database, and so must not run in an event loop."""

    def put(self, envelopes: Sequence[Envelope], using: str) -> bool:
        """Take them, as part of the transaction on the database ``using`` if there is one.

        Returns False if they are lost. Never raises for a fault of a database or a plugin.
        """
        ...


@cache
def transport(name: str) -> Transport:
    """The transport of this name: a module of this package with ``put``."""
    module: Transport = import_module(f"pluginhost.delivery.{name}").transport
    return module
