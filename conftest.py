"""One set of fixtures for the tests of the host and of the plugins, and a demand that none of their kinds is missed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest_plugins = ["tests.fixtures"]

#: Markers of which at least one test must have passed. CI sets it; at home a missing server only skips its tests.
DEMANDED = os.environ.get("PLUGINHOST_TEST_DEMANDS", "").split()
_passed: set[str] = set()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: pytest.TestReport = yield  # type: ignore[assignment]
    if report.when == "call" and report.passed:
        _passed.update(marker.name for marker in item.iter_markers())
    return report  # type: ignore[return-value]


def pytest_sessionfinish(session: pytest.Session) -> None:
    missed = sorted(set(DEMANDED) - _passed)
    if missed:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        assert reporter is not None
        reporter.write_line(f"\nNo test passed that is marked: {', '.join(missed)}", red=True)
