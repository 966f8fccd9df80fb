"""What every test shares: the guard against what a test leaves behind, and CI turns a skip into a failure.

Nothing here imports the packages under test, so that a broken module breaks its own tests only.
"""

from __future__ import annotations

import logging
import os
import signal

import hypothesis
import pytest

pytest_plugins = ["tests.support.leftovers"]

STRICT = os.environ.get("LOGRELAY_CI") == "1"
"""In CI every part a test needs is installed first: a skip there is a test that silently does not run."""

INCURABLE = ("root may write everywhere",)
"""Reasons for a skip that installing something cannot take away: CI is root."""


# A machine with other work is slow without anything being wrong, so no example has to end in a time; and what is seen
# once, in CI, has to be seen again: the report of a failure has what makes the same example.
hypothesis.settings.register_profile(
    "everywhere", deadline=None, print_blob=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("everywhere")


def pytest_configure(config):
    # A run in the background of a script, or under nohup, inherits ignored signals, which a child shell cannot undo
    # (POSIX, trap): Ctrl-C would then end nothing that a test starts.
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    if STRICT:  # a module that is skipped as a whole fails, and must not keep the others from running
        config.option.continue_on_collection_errors = True


@pytest.fixture(autouse=True)
def _logging_as_it_was():
    """Give the logging module back as it was: `dictConfig` sets the root's level and disables every logger there is."""
    root = logging.root
    level, made = root.level, root.manager.loggerDict
    before = {name for name, logger in made.items() if getattr(logger, "disabled", False)}
    yield
    if root.level != level:
        root.setLevel(level)
    for name, logger in list(made.items()):
        if name not in before and isinstance(logger, logging.Logger):
            logger.disabled = False


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    return _as_failure(report) if STRICT and report.skipped and not hasattr(report, "wasxfail") else report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    return _as_failure(report) if STRICT and report.skipped else report


def _as_failure(report):
    """Turn the report of a skip into one of a failure; the closing line of pytest counts it as such."""
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if reason.removeprefix("Skipped: ") in INCURABLE:
        return report
    report.outcome = "failed"
    report.longrepr = f"skipped, which LOGRELAY_CI=1 does not allow: {reason}"
    return report
