"""Runs ``manage.py pluginhost`` in this process, as its users do."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command


def command(*arguments: str) -> str:
    """What a subcommand prints."""
    out = io.StringIO()
    call_command("pluginhost", *arguments, stdout=out, stderr=io.StringIO(), no_color=True)
    return out.getvalue()


def as_json(*arguments: str) -> Any:
    """What a subcommand prints with ``--json``."""
    return json.loads(command(*arguments, "--json"))


def fails(*arguments: str) -> tuple[str, str]:
    """What a subcommand that ends with status 1 prints, and its error."""
    out = io.StringIO()
    with pytest.raises(CommandError) as failure:
        call_command("pluginhost", *arguments, stdout=out, stderr=io.StringIO(), no_color=True)
    assert failure.value.returncode == 1
    return out.getvalue(), str(failure.value)
