"""One set of fixtures for the tests of the host and of the plugins, and a demand that none of their kinds is missed."""

from __future__ import annotations

import os

import pytest

pytest_plugins = ["tests.fixtures"]

#: Markers of which at least one test must have passed. CI sets it; at home a missing server only skips its tests.
DEMANDED = os.environ.get("PLUGINHOST_TEST_DEMANDS", "").split()
_passed: set[str] = set()


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
