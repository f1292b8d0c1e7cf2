"""One set of fixtures for the tests of the host and of the plugins, what their names may not have, and a demand that
none of their kinds is missed.
"""

from __future__ import annotations

import os
import re

import pytest

pytest_plugins = ["tests.fixtures"]

#: Markers of which at least one test must have passed. CI sets it; at home a missing server only skips its tests.
DEMANDED = os.environ.get("PLUGINHOST_TEST_DEMANDS", "").split()
_passed: set[str] = set()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each process of a run collects the tests, and all must find the same names."""
    if named := [item.nodeid for item in items if re.search(r" at 0x[0-9a-f]", item.nodeid)]:
        raise pytest.UsageError(f"an address in the name of a test is another one in each process: {named[0]}")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Also called for what other processes have run, if there are several."""
    if report.when == "call" and report.passed:
        _passed.update(report.keywords)


def pytest_sessionfinish(session: pytest.Session) -> None:
    missed = sorted(set(DEMANDED) - _passed)
    if missed and not hasattr(session.config, "workerinput"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        assert reporter is not None
        reporter.write_line(f"\nNo test passed that is marked: {', '.join(missed)}", red=True)
