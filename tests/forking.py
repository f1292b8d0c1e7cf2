"""What children of ``multiprocessing`` run that begin without anything of their parent's."""

from __future__ import annotations


def begin() -> None:
    import django

    django.setup()


def track(number: int) -> str | None:
    """Within a batch of its own, which the child leaves; it then ends with ``os._exit``."""
    from pluginhost import host

    with host.batch():
        return host.track(None, f"child {number}")
