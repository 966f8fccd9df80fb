"""The guard of tests/support/leftovers.py: what a test leaves behind fails it, and a run ends with its summary."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.waiting import DEADLINE_S

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run_pytest(tmp_path):
    """Run pytest over a module of tests with short limits; return its exit code and what it printed."""

    def run(code, *options, deadline="0.5"):
        (tmp_path / "test_it.py").write_text(textwrap.dedent(code))
        (tmp_path / "pytest.ini").write_text("[pytest]\n")
        command = [sys.executable, "-m", "pytest", "-p", "tests.support.leftovers", "-p", "no:randomly", *options]
        environ = os.environ | {"PYTHONPATH": str(ROOT), "TEST_DEADLINE_S": deadline}
        done = subprocess.run(
            [*command, "test_it.py"], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=2 * DEADLINE_S
        )
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.mark.parametrize("daemon", [True, False])
def test_a_thread_that_is_left_fails_its_test_and_no_other(run_pytest, daemon):
    """The message should say where the thread stands, and the run should end although a thread does not."""
    code, said = run_pytest(f"""
        import threading

        def test_first():
            threading.Thread(target=threading.Event().wait, name="forgotten", daemon={daemon}).start()

        def test_second():
            pass
        """)

    assert code == 1
    assert "ERROR test_it.py::test_first" in said
    assert "forgotten" in said
    assert "2 passed, 1 error" in said


@pytest.mark.parametrize("session", ["", ", start_new_session=True"])
def test_a_process_that_is_left_fails_its_test_and_is_ended(run_pytest, tmp_path, session):
    """Nothing of it should run afterwards, its own children included."""
    code, said = run_pytest(f"""
        import subprocess

        def test_first():
            subprocess.Popen(["sh", "-c", "sleep 3600 & echo $! >part && mv part child; wait"]{session}).returncode = 0
            while not __import__("pathlib").Path("child").exists():
                pass

        def test_second():
            pass
        """)

    assert code == 1
    assert "ERROR test_it.py::test_first" in said
    assert "sleep 3600" in said
    assert "2 passed, 1 error" in said
    stat = Path("/proc") / (tmp_path / "child").read_text().strip() / "stat"
    # With so short a deadline it may be killed so late that this process is left with what remains of it.
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] in "ZX"


def test_what_ends_by_itself_in_time_is_no_leftover(run_pytest):
    """A thread whose owner was closed should have time to end."""
    code, said = run_pytest(
        """
        import subprocess, threading

        def test_it():
            threading.Timer(0.3, lambda: None).start()
            subprocess.Popen(["sleep", "0.3"]).returncode = 0
        """,
        deadline=str(DEADLINE_S),
    )

    assert code == 0, said


def test_a_fixture_that_hangs_behind_a_failed_test_is_interrupted(run_pytest):
    """The failed test's own limit is over by then."""
    code, said = run_pytest(
        """
        import pytest, threading

        @pytest.fixture
        def hangs():
            yield
            threading.Event().wait()

        def test_first(hangs):
            assert False

        def test_second():
            pass
        """,
        "--timeout=5",
    )

    assert code == 1
    assert "1 failed, 1 passed, 1 error" in said


def test_a_main_thread_that_no_signal_reaches_ends_the_run_with_its_summary(run_pytest):
    """Blocked signals stand in for a call that does not come back from C."""
    code, said = run_pytest(
        """
        import signal, threading

        def test_first():
            assert False

        def test_second():
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
            threading.Event().wait()
        """,
        "--timeout=5",
    )

    assert code == 1
    assert "FAILED test_it.py::test_first" in said
    assert "FAILED test_it.py::test_second" in said
    assert "1 failed" in said


def test_an_end_that_hangs_is_cut_short(run_pytest):
    """A handler of atexit that never returns should not keep the run from ending, with the summary before it."""
    code, said = run_pytest("""
        import atexit, threading

        def test_it():
            atexit.register(threading.Event().wait)
        """)

    assert code != 0
    assert "1 passed" in said
