"""What a test leaves behind: a guard that fails it, so that no later test pays for it, and an end that always comes.

A plugin of pytest, registered by tests/conftest.py. Owns: the guard around each test (threads and child processes), a
time limit for what follows a test that failed or hung, the watchdog for a main thread that no signal reaches, and the
way out when a thread is left at the very end. It must not know the packages under test.

Where the limits come from: `DEADLINE_S` is for one wait; pytest's `timeout` for one test, with several waits;
`HARD_LIMIT_S` behind that for what `timeout` cannot interrupt.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Collection

import pytest

from tests.support.threads import outlive, where
from tests.support.waiting import DEADLINE_S, LOOK_S

HARD_LIMIT_S = 2 * DEADLINE_S
"""So long behind pytest's own limit the main thread is taken to be stuck where no signal handler of Python runs."""

END_S = HARD_LIMIT_S
"""How long the interpreter may take to end after the summary: handlers of atexit, threads that are joined. A machine
that stands still for as long as one wait may last must not make a failure of a run in which every test has passed."""

PR_SET_CHILD_SUBREAPER = 36


# --- processes ----------------------------------------------------------------------------------------------------


def adopt_orphans() -> None:
    """Have orphans of processes that this one started become its children, where the guard sees them (Linux)."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children() -> dict[int, str]:
    """Return the state letter of each child process by its pid; Z is one that has ended and was not waited for."""
    found, me = {}, os.getpid()
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            state, parent = file.read().rpartition(b")")[2].split()[:2]
            if int(parent) == me:
                found[int(name)] = state.decode()
    return found


def command_of(pid: int) -> str:
    """Return the command line of a process, for messages."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read().replace(b"\0", b" ").decode(errors="replace")[:300]
    return "?"


def living(besides: Collection[int] = ()) -> list[int]:
    """Return the children that run, and are not among `besides`."""
    return [pid for pid, state in children().items() if pid not in besides and state not in "ZX"]


def end_processes(besides: Collection[int] = ()) -> None:
    """SIGKILL every child that is not among `besides`, and its group where it leads one, until none runs."""
    end = time.monotonic() + DEADLINE_S
    while (pids := living(besides)) and time.monotonic() < end:  # an orphan of one that was killed comes to us
        for pid in pids:
            with contextlib.suppress(OSError):
                if os.getpgid(pid) == pid:
                    os.killpg(pid, signal.SIGKILL)
                os.kill(pid, signal.SIGKILL)
        time.sleep(LOOK_S)


def reap(pids: Collection[int]) -> None:
    """Take the exit codes of children that nobody waits for any more."""
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


# --- the guard ------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _nothing_left_behind():
    """Fail a test that leaves a thread or a process behind, and end the process.

    What has an owner that was closed (the sender's, the journal's and a pool's threads, a process that was told to
    end) gets the deadline of every wait to be gone.
    """
    threads, processes = set(threading.enumerate()), set(children())
    yield
    left = outlive(set(threading.enumerate()) - threads, DEADLINE_S)
    told = f"threads:\n{where(left)}" if left else ""
    end = time.monotonic() + DEADLINE_S
    while (alive := living(processes)) and time.monotonic() < end:
        time.sleep(LOOK_S)
    if alive:
        told += "processes:\n" + "".join(f"{pid} {command_of(pid)}\n" for pid in alive)
        end_processes(processes)
    reap(set(children()) - processes)
    assert not told, f"this test left behind, {DEADLINE_S:g} s after its end, {told}"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item):
    """Give the teardown a time limit of its own, again and again.

    pytest-timeout sets one alarm for a test and takes it back when the test fails: without this a fixture that hangs
    behind a failed test would hang for ever.
    """
    limit = _limit_of(item)
    if limit and threading.current_thread() is threading.main_thread():
        item.config.hook.pytest_timeout_set_timer(item=item, settings=_settings_of(item))
        if signal.getitimer(signal.ITIMER_REAL)[0]:
            signal.setitimer(signal.ITIMER_REAL, limit, limit)
    return (yield)


def _settings_of(item):
    import pytest_timeout  # noqa: PLC0415 (the plugin's own reading of its marker, the option and the ini file)

    return pytest_timeout._get_item_settings(item)


def _limit_of(item) -> float:
    return (_settings_of(item).timeout or 0.0) if item.config.pluginmanager.hasplugin("timeout") else 0.0


# --- the end --------------------------------------------------------------------------------------------------------


class Watchdog:
    """Ends the run with a summary when one test does not end although its time is up."""

    def __init__(self, config) -> None:
        self._config = config
        self._due = float("inf")
        self._nodeid = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item):
        """Watch a test with everything around it; test and teardown have a limit each."""
        limit = _limit_of(item)
        self._nodeid = item.nodeid
        self._due = time.monotonic() + 2 * limit + HARD_LIMIT_S if limit else float("inf")
        try:
            return (yield)
        finally:
            self._due = float("inf")

    def stop(self) -> None:
        """Watch no longer."""
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(1.0):
            if time.monotonic() > self._due:
                self._give_up()

    def _give_up(self) -> None:
        """Say where everything stands, print the summary that is usual at the end, and end the process."""
        with contextlib.suppress(BaseException):
            capture = self._config.pluginmanager.getplugin("capturemanager")
            if capture is not None:
                capture.suspend(in_=True)
        with contextlib.suppress(BaseException):
            faulthandler.dump_traceback(sys.__stderr__)
        with contextlib.suppress(BaseException):
            reporter = self._config.pluginmanager.getplugin("terminalreporter")
            reporter.write_line("")
            reporter.write_line(f"FAILED {self._nodeid} - it hangs where no signal reaches it; the run ends here")
            reporter.short_test_summary()
            reporter.summary_stats()
            reporter.flush()
        end_processes()
        os._exit(int(pytest.ExitCode.TESTS_FAILED))


def pytest_configure(config):
    adopt_orphans()
    config.pluginmanager.register(Watchdog(config), "watchdog")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    session.config.stash[_status] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    """See to it that the process ends now that the summary is printed."""
    config.pluginmanager.getplugin("watchdog").stop()
    left = [t for t in threading.enumerate() if t is not threading.current_thread() and not t.daemon]
    end_processes()
    if left:
        # The interpreter would join them; every one has failed the test that left it.
        sys.__stderr__.write(f"threads that do not end:\n{where(left)}")
        sys.__stdout__.flush()
        sys.__stderr__.flush()
        os._exit(config.stash.get(_status, 0) or int(pytest.ExitCode.TESTS_FAILED))
    if not hasattr(config, "workerinput"):  # a worker of pytest-xdist waits for the others, and is ended with them
        faulthandler.dump_traceback_later(END_S, exit=True, file=sys.__stderr__)


_status = pytest.StashKey[int]()
