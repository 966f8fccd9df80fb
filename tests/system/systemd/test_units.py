"""The unit files: what systemd-analyze says, and what a real systemd does with them.

The box is a throw-away machine, see box.sh. It needs root, overlayfs and a writable cgroup2.
"""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from logrelay.installation import unit_files
from tests.system.systemd.boxes import LOGRELAY, SYSTEM_PYTHON, UNITS, new_box, run

MAX_EXPOSURE = 15
"""Tenths; an unprotected service has 96."""
MAX_ACTIVATED_EXPOSURE = 5
"""The same where systemd hands the relay its sockets."""


@pytest.mark.parametrize("unit", ["logrelay.service", "robo-trader.service"])
def test_a_unit_is_hardened(unit):
    """systemd's own score should not be worse than the documented one."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    done = run("systemd-analyze", "security", "--offline=true", f"--threshold={MAX_EXPOSURE}", str(UNITS / unit))

    assert done.returncode == 0, done.stdout[-300:] + done.stderr


@pytest.fixture(scope="module")
def box():
    with new_box('chroot "$1" systemd-sysusers /opt/logrelay/logrelay.sysusers') as box:
        for name in ("logrelay.service", "logrelay.socket", "robo-trader.service"):
            box.write(f"/etc/systemd/system/{name}", box(LOGRELAY, "systemd", "print", name))
        box("systemctl", "daemon-reload")
        yield box


@pytest.fixture
def clean(box):
    """The box with nothing of ours running."""

    def stop():
        box("systemctl", "stop", "robo-trader.service", "logrelay.socket", "logrelay.service", check=False)
        box("systemctl", "reset-failed", check=False)
        box("rm", "-rf", "/var/lib/logrelay", "/etc/logrelay")

    stop()
    yield box
    stop()


def test_a_relay_that_is_handed_its_sockets_has_no_network(tmp_path):
    """The service as `install` writes it beside the socket unit should score 0.5 at most."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    path = tmp_path / "logrelay.service"
    path.write_text(unit_files.service("/opt/logrelay/venv/bin", activated=True, systemd=252))
    done = run("systemd-analyze", "security", "--offline=true", f"--threshold={MAX_ACTIVATED_EXPOSURE}", str(path))

    assert done.returncode == 0, done.stdout[-300:] + done.stderr


def test_the_units_are_without_fault(box):
    """systemd-analyze should have nothing to say about them, with the commands where they say."""
    files = [f"/etc/systemd/system/{n}" for n in ("logrelay.service", "logrelay.socket", "robo-trader.service")]
    said = box("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *files)

    assert said == ""


def test_the_relay_is_active_only_when_it_is_ready(clean):
    """`systemctl start` should return when port and socket are open, and the status should show where."""
    clean("systemctl", "start", "logrelay")

    assert clean.get("/healthz")
    assert "ws://127.0.0.1:8765" in clean.show("logrelay", "StatusText")
    assert clean.show("logrelay", "User") == "logrelay"
    with socket.socket(socket.AF_UNIX) as trader:
        trader.connect(clean.path("/run/logrelay/ingest.sock"))


def test_a_relay_that_cannot_start_never_becomes_active(clean):
    """A wrong setting should fail the start, say so in the journal, and not be tried again."""
    Path(clean.path("/etc/logrelay")).mkdir()
    Path(clean.path("/etc/logrelay/logrelay.env")).write_text("LOGRELAY_PORT=99999\n")
    clean("systemctl", "start", "logrelay", check=False)

    assert clean.show("logrelay", "ActiveState") == "failed"
    assert clean.show("logrelay", "ExecMainStatus") == "2"
    assert clean.show("logrelay", "NRestarts") == "0"
    clean.until("the relay's words", lambda: "LOGRELAY_PORT is '99999'; allowed:" in clean.journal())


def test_the_trader_s_lines_arrive(clean):
    """The trader, another user, should be allowed to write to the relay's socket, and to start before it."""
    clean("systemctl", "start", "--no-block", "robo-trader", "logrelay")
    lines = clean.until("a line of the trader", clean.traded)

    assert lines[0]["source"].startswith("robo_trader")
    assert clean.show("robo-trader", "User") == "robo-trader"
    mode, owner = clean("stat", "-c", "%a %U:%G", "/run/logrelay/ingest.sock").split()
    assert (mode, owner) == ("660", "logrelay:logrelay")
    assert clean("stat", "-c", "%a %U", "/var/lib/logrelay").split() == ["700", "logrelay"]


def test_other_users_cannot_write_to_the_socket_or_read_the_journal(clean):
    """Only the group may speak to the relay, and only the relay may read what it keeps."""
    clean("systemctl", "start", "logrelay")
    connect = "import socket; socket.socket(socket.AF_UNIX).connect('/run/logrelay/ingest.sock')"
    for user, may in (("nobody", False), ("robo-trader", True)):
        as_user = (
            "setpriv",
            f"--reuid={user}",
            "--init-groups",
            "--regid=nogroup" if user == "nobody" else f"--regid={user}",
        )
        done = clean(*as_user, SYSTEM_PYTHON, "-c", f"{connect}; print('in')", check=False)
        assert (done.strip() == "in") == may, user
        assert clean(*as_user, "cat", "/var/lib/logrelay/journal.db", check=False) == ""


def test_a_killed_relay_comes_back_and_no_line_is_missing(clean):
    """After kill -9 another process should serve, the trader should not notice, and seqs should have no hole."""
    clean("systemctl", "start", "logrelay", "robo-trader")
    clean.until("a line of the trader", clean.traded)
    trader = clean.show("robo-trader", "MainPID")
    first = clean.show("logrelay", "MainPID")
    clean("systemctl", "kill", "--signal=KILL", "--kill-whom=main", "logrelay")
    clean.until("another relay", lambda: clean.show("logrelay", "MainPID") not in (first, "0")
                and clean.show("logrelay", "ActiveState") == "active")  # fmt: skip
    before = clean.lines("limit=1")[-1]["id"]
    clean.until("new lines", lambda: clean.traded(f"after={before}"))
    ids = [int(line["id"].rpartition("-")[2]) for line in clean.lines("limit=10000")]

    assert clean.show("logrelay", "NRestarts") == "1"
    assert clean.show("robo-trader", "MainPID") == trader
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert not [line for line in clean.lines("limit=10000") if line["context"].get("notice") == "gap"]


def test_stopping_is_clean_and_leaves_the_trader_running(clean):
    """SIGTERM should end the relay with 0 and without a kill; the trader should run on and find it again."""
    clean("systemctl", "start", "logrelay", "robo-trader")
    clean.until("a line of the trader", clean.traded)
    clean("systemctl", "stop", "logrelay")

    assert clean.show("logrelay", "Result") == "success"
    assert clean.show("logrelay", "ExecMainStatus") == "0"
    assert clean.show("robo-trader", "ActiveState") == "active"
    clean("test", "-d", "/run/logrelay")
    clean("systemctl", "start", "logrelay")
    head = clean.lines("limit=1")[-1]["id"]
    clean.until("the trader again", lambda: clean.traded(f"after={head}"))


def test_a_relay_that_hangs_is_restarted_by_the_watchdog(clean):
    """A relay that is stopped in its tracks should be killed and started again."""
    drop_in = Path(clean.path("/run/systemd/system/logrelay.service.d"))
    drop_in.mkdir(parents=True, exist_ok=True)
    (drop_in / "fast.conf").write_text("[Service]\nWatchdogSec=1s\nWatchdogSignal=SIGKILL\n")
    try:
        clean("systemctl", "daemon-reload")
        clean("systemctl", "start", "logrelay")
        first = clean.show("logrelay", "MainPID")
        # On a machine that stands still the watchdog may come before the signal.
        clean("systemctl", "kill", "--signal=STOP", "--kill-whom=main", "logrelay", check=False)
        clean.until("another relay", lambda: clean.show("logrelay", "MainPID") not in (first, "0")
                    and clean.show("logrelay", "ActiveState") == "active")  # fmt: skip
        assert int(clean.show("logrelay", "NRestarts")) >= 1
    finally:
        (drop_in / "fast.conf").unlink()
        clean("systemctl", "daemon-reload")


def test_with_the_socket_unit_no_connection_is_refused_across_a_restart(clean):
    """systemd should keep port and socket open: who connects while the relay is away is served by the next one."""
    clean("systemctl", "start", "logrelay.socket")
    assert clean.show("logrelay", "ActiveState") == "inactive"
    assert clean.get("/healthz"), "the first connection should start the relay"
    # The relay may answer a moment before it has told systemd that it is ready.
    clean.until("an active relay", lambda: clean.show("logrelay", "ActiveState") == "active")
    clean("systemctl", "start", "robo-trader")
    clean.until("a line of the trader", clean.traded)
    for _ in range(3):
        clean("systemctl", "restart", "--no-block", "logrelay")
        assert clean.get("/healthz"), clean.journal()
    clean("systemctl", "stop", "logrelay.socket", "logrelay.service")
    assert clean.show("logrelay", "Result") == "success"
