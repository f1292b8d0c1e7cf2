"""``manage.py pluginhost send-test ALIAS``: one event through one plugin, and what the answer means."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError

from pluginhost.api import host
from pluginhost.conf import get_settings
from pluginhost.delivery.attempt import RAISED
from pluginhost.exceptions import (
    DeliveryError,
    PartialFailure,
    PermanentError,
    RetryableError,
    SkipEvent,
    UncertainError,
)
from pluginhost.options import did_you_mean, listing, redacted

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from django.core.management.base import BaseCommand

    from pluginhost.delivery.runner import Runner

HELP = "Delivers one test event through one plugin, at once, and explains the answer."

#: What an error means for an event on a live site.
MEANINGS: dict[type[Exception], str] = {
    SkipEvent: "The plugin skips it: such an event is not for it.",
    RetryableError: "It would wait in its lane and be tried again.",
    PermanentError: "It would become a dead letter: trying again would not help.",
    UncertainError: "It was sent, but no answer says whether it arrived.",
    DeliveryError: "It would be tried again. If that fails too, the events of its batch are tried apart.",
}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("alias", metavar="ALIAS", help="The plugin, by its alias.")


def handle(command: BaseCommand, **options: Any) -> None:
    runner = _runner(options["alias"])
    command.stdout.write(f"{runner.alias}: sending one event, past filters and outbox")
    begun = time.monotonic()
    try:
        answer = _answer(runner)
    except RAISED as error:
        raise CommandError(f"{runner.alias}: {_explained(runner, error)}") from None
    finally:
        runner.close()
    command.stdout.write(f"{runner.alias}: {answer} ({time.monotonic() - begun:.1f} s)")


def _answer(runner: Runner) -> str:
    """What the plugin says of its test event, without its secrets. Raises what the plugin raises."""
    try:
        answer = runner.send_test()
    except PartialFailure as error:
        if error.errors:
            raise
        answer = "The plugin took the event."  # a failure that names no event is none
    return redacted(str(answer), runner.plugin.options)


def _runner(alias: str) -> Runner:
    if not get_settings().ENABLED:
        raise CommandError("PLUGINHOST['ENABLED'] is False: nothing is delivered.")
    registry = host.registry
    if alias in registry.runners:
        return registry.runners[alias]
    if alias in registry.plugins:
        raise CommandError(f"{alias} has no lane: it delivers nothing. Lanes are: {listing(registry.runners)}.")
    hint = did_you_mean(alias, registry.plugins)
    raise CommandError(f"there is no alias {alias!r}. {hint}Enabled are: {listing(registry.plugins)}.")


def _explained(runner: Runner, error: BaseException) -> str:
    """What went wrong, in the plugin's words, and what it would mean for an event."""
    if isinstance(error, PartialFailure) and error.errors:
        return _explained(runner, next(iter(error.errors.values())))
    meaning = next(
        (text for kind, text in MEANINGS.items() if isinstance(error, kind)),
        "The plugin failed without saying what that means, so it would be tried again.",
    )
    if isinstance(error, UncertainError):
        again = "be sent again" if runner.judge.resends_uncertain else "become a dead letter"
        meaning = f"{meaning} It would {again}."
    verdict = "perhaps delivered" if isinstance(error, UncertainError) else "not delivered"
    return f"{verdict}. {meaning}\n{runner.judge.describe(error)}"
