"""`logrelay systemd install` on a machine that has never seen it, beside what may be there, and gone again.

One box for all: each test leaves it as it was, which is the promise of `uninstall --purge` as well.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from tests.support.waiting import DEADLINE_S
from tests.system.systemd.boxes import HERE, LOGRELAY, SYSTEM_PYTHON, new_box

FULL = os.environ.get("CHAOS") == "full"
ROUNDS = 6 if FULL else 1
"""Restarts, and kills as well, under load."""

USERS = """
rm -f "$1"/etc/*.lock  # a lock of this machine is none of the box
chroot "$1" useradd --system --no-create-home alice
mkdir -p "$1/root/venv" "$1/opt/bot"
"""

SNAPSHOT = """
find / /usr /run -maxdepth 1 -printf '%p %y %m %u %g\\n'
find /etc /var/lib /home /srv -xdev -path /var/lib/systemd -prune -o \
  ! -path '/etc/*-' ! -name .pwd.lock -printf '%p %y %m %u %g\\n'
find /etc -xdev -type f ! -name '*-' ! -name .pwd.lock -exec sha256sum {} +
getent passwd; getent group
systemctl list-unit-files --no-legend 'logrelay*' || true
"""
"""Everything where programs put things, with owners and modes; the contents of /etc, without the copies that tools for
users keep; users and groups."""

TRADER = """
import logging, signal, sys, threading, time
sys.path.insert(0, "/opt/robo-trader")
from robo_trader.log_relay import LogRelayHandler
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
handler = LogRelayHandler(app="load", exit_timeout=60)
logger = logging.getLogger("load")
logger.setLevel("INFO")
logger.addHandler(handler)
n, begin = 0, time.monotonic()
while not stop.is_set():
    while n < (time.monotonic() - begin) * 1000:
        n += 1
        logger.info("line", extra={"n": n})
    stop.wait(0.005)
handler.close()
print(n, flush=True)
"""

REQUESTS = """
import http.client, subprocess, sys, threading
asked, failed, stop = [], [], []
def ask():
    link = http.client.HTTPConnection("127.0.0.1", 8765, timeout=60)
    try:
        link.request("GET", "/healthz")
        answer = link.getresponse()
        answer.read()
        asked.append(answer.status)
    except OSError as error:
        failed.append(repr(error))
    except http.client.HTTPException as error:
        failed.append(repr(error))
    finally:
        link.close()
for command in sys.argv[1:]:
    kind, _, words = command.partition(":")
    if kind == "during":  # requests go on all the time while the command runs
        done = threading.Event()
        def run():
            subprocess.run(words.split(), check=True)
            done.set()
        thread = threading.Thread(target=run)
        thread.start()
        while not done.is_set():
            ask()
        thread.join()
    else:  # a request in flight dies with the process; the next one has to be served
        subprocess.run(words.split(), check=True)
    for _ in range(5):
        ask()
print(len(asked), failed)
"""


@pytest.fixture(scope="module")
def fresh():
    with new_box(USERS) as box:
        box.write("/opt/bot/trader.py", TRADER)
        box.write("/opt/bot/requests.py", REQUESTS)
        yield box


@pytest.fixture
def machine(fresh):
    """The box, which has to be after the test what it was before, once everything is purged."""
    before = fresh("sh", "-c", SNAPSHOT).splitlines()
    yield fresh
    fresh(LOGRELAY, "systemd", "uninstall", "--purge", "--yes")
    after = fresh("sh", "-c", SNAPSHOT).splitlines()
    assert [line for line in after if line not in before] == []
    gone = [line for line in before if line not in after]
    assert [line for line in gone if not line.startswith("/run/user ")] == []  # logind's: it goes with the last user


def install(box, *options):
    return box.done(LOGRELAY, "systemd", "install", *options)


def start(box, name, *command, user="root"):
    """Run a command in the box until `test-NAME` is stopped; its output goes to /tmp/NAME there."""
    output = ("-p", f"StandardOutput=truncate:/tmp/{name}", "-p", f"StandardError=truncate:/tmp/{name}.err")
    box("systemd-run", "--quiet", "--collect", f"--unit=test-{name}", f"--uid={user}", *output, "--", *command)


def numbers(box):
    """What the viewer has shown of the bot's lines, in order."""
    whole, _, _ = Path(box.path("/tmp/viewer")).read_text().rpartition("\n")
    return [json.loads(line)["context"]["n"] for line in whole.splitlines()]


def test_one_command_installs_and_restarts_and_kills_go_unnoticed(machine):
    """A bot's lines should be on a viewer, each once, and every request be answered, whatever becomes of the relay."""
    done = install(machine, "--socket-activation", "--trader-user", "bot")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The relay runs. Open http://127.0.0.1:8765/" in done.stdout
    assert "bot can reach the log socket" in done.stdout
    assert machine("stat", "-c", "%a %U", "/etc/logrelay/logrelay.env").split() == ["600", "root"]
    again = install(machine)
    assert "nothing to do" in again.stdout
    assert again.returncode == 0

    tail = (LOGRELAY, "tail", "--json", "-n", "100000", "--app", "load", "--notices", "no")
    start(machine, "viewer", *tail)
    start(machine, "bot", "/opt/logrelay/venv/bin/python", "/opt/bot/trader.py", user="bot")
    try:
        machine.until("lines on the viewer", lambda: len(numbers(machine)) > 100)
        commands = [
            "during:systemctl restart logrelay",
            "then:systemctl kill --signal=KILL --kill-whom=main logrelay",
        ] * ROUNDS
        asked = machine(SYSTEM_PYTHON, "/opt/bot/requests.py", *commands)
        machine("systemctl", "stop", "test-bot")
        logged = int(Path(machine.path("/tmp/bot")).read_text())
        machine.until("every line on the viewer", lambda: len(numbers(machine)) >= logged)
        seen = numbers(machine)
    finally:
        machine("systemctl", "stop", "test-bot", "test-viewer", check=False)

    assert asked.strip().endswith(" []"), asked
    assert seen == list(range(1, logged + 1))
    # systemd's count begins anew with each `systemctl restart`; the last command was a kill. What its journal has of
    # the kills is no evidence: lines are dropped there when the machine is busy. More: the watchdog of a stalled one.
    assert int(machine.show("logrelay", "NRestarts")) >= 1


def test_a_dry_run_does_nothing(machine):
    """It should list the steps and leave the machine alone."""
    before = machine("sh", "-c", SNAPSHOT)
    said = machine(LOGRELAY, "systemd", "install", "--dry-run")

    assert "would write /etc/systemd/system/logrelay.socket" in said
    assert machine("sh", "-c", SNAPSHOT) == before
    assert "nothing to do" in machine(LOGRELAY, "systemd", "uninstall")


@pytest.mark.parametrize("edited", [False, True])
def test_units_of_the_version_before_are_brought_up_to_date(machine, edited):
    """A relay installed from printed units should go on with its journal, under systemd's socket if that is asked."""
    for name, place in (
        ("logrelay.sysusers", "/etc/sysusers.d/logrelay.conf"),
        ("logrelay.service", "/etc/systemd/system/logrelay.service"),
    ):
        machine.write(place, (HERE / "before" / name).read_text() + ("# mine\n" if edited else ""))
    machine("systemd-sysusers")
    machine("systemctl", "daemon-reload")
    machine("systemctl", "enable", "--now", "logrelay")
    machine(LOGRELAY, "send", "--app", "old", "kept")
    done = install(machine, "--socket-activation", "--trader-user", "alice")

    assert done.returncode == 0, done.stdout + done.stderr
    assert ("had been edited" in done.stdout) == edited
    assert "alice can reach the log socket" in done.stdout
    assert "robo-trader can reach the log socket" in done.stdout
    assert machine.show("logrelay.socket", "ActiveState") == "active"
    assert machine.show("logrelay", "Restart") == "always"
    assert [line["message"] for line in machine.lines("app=old&notices=no")] == ["kept"]
    kept = Path(machine.path("/etc/systemd/system/logrelay.service.before-install"))
    assert kept.exists() == edited
    back = install(machine, "--no-socket-activation")
    assert back.returncode == 0, back.stdout + back.stderr
    assert machine("systemctl", "is-enabled", "logrelay.socket", check=False).strip() != "enabled"
    assert machine.get("/healthz")


def test_an_address_is_changed_and_said(machine):
    """`--listen` should move the viewers, also from where the settings named; a bad one changes nothing."""
    machine.write("/etc/logrelay/logrelay.env", "LOGRELAY_PORT=9001\n", 0o644)
    assert install(machine, "--no-socket-activation").returncode == 0
    assert machine.get("/healthz", port=9001)
    assert machine("stat", "-c", "%a", "/etc/logrelay/logrelay.env").strip() == "600"
    done = install(machine, "--socket-activation")
    assert done.returncode == 0, done.stdout + done.stderr
    assert machine.get("/healthz", port=9001), "where the settings said"
    assert "LOGRELAY_PORT in /etc/logrelay/logrelay.env changes nothing" in done.stderr

    done = install(machine, "--listen", "0.0.0.0:9002")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "logrelay token add" in done.stdout
    assert machine.get("/healthz", port=9002)
    said = "the relay says that its settings change nothing, and what does"
    machine.until(said, lambda: "--listen 127.0.0.1" in machine.journal())
    bad = install(machine, "--listen", "somewhere")
    assert bad.returncode == 2
    assert "allowed: an IP address" in bad.stderr
    assert machine.get("/healthz", port=9002)


def test_what_is_in_the_way_is_said_before_anything_is_done(machine):
    """A port that is taken, or a program that no service can read, should change nothing and name the remedy."""
    before = machine("sh", "-c", SNAPSHOT)
    code = "import socket; s = socket.create_server(('127.0.0.1', 8765)); print(1, flush=True); input()"
    holder = machine.popen(SYSTEM_PYTHON, "-c", code)
    try:
        assert holder.stdout.readline() == "1\n"
        done = install(machine)
    finally:
        holder.communicate("\n", timeout=DEADLINE_S)
    assert done.returncode == 1
    assert "127.0.0.1:8765 cannot be listened on" in done.stderr
    assert "nothing was done" in done.stderr

    machine("cp", "-a", "/opt/logrelay/venv", "/root/v")
    done = machine.done("/root/v/bin/python", "-m", "logrelay", "systemd", "install")
    assert done.returncode == 1
    assert "/root lies in a directory that the service may not see" in done.stderr
    assert "python3 -m venv /opt/logrelay/venv" in done.stderr
    machine("chmod", "o-rx", "/opt/logrelay/venv/lib")
    done = install(machine)
    machine("chmod", "o+rx", "/opt/logrelay/venv/lib")
    assert "/opt/logrelay/venv/lib has mode" in done.stderr
    done = machine.done("setpriv", "--reuid=alice", "--clear-groups", LOGRELAY, "systemd", "install")
    assert "sudo /opt/logrelay/venv/bin/logrelay systemd install" in done.stderr
    assert machine("sh", "-c", SNAPSHOT) == before


def test_a_step_that_fails_is_told_with_what_is_left(machine):
    """What was done and what was not should be said, and the same command should go on from there."""
    machine.write("/etc/logrelay", "in the way")
    done = install(machine)
    assert done.returncode == 1
    assert "could not make the directory /etc/logrelay: File exists" in done.stderr
    assert "Done before: 3 of 11 steps. Not done: write /etc/logrelay/logrelay.env" in done.stderr
    machine("rm", "/etc/logrelay")
    assert install(machine).returncode == 0

    machine.write("/etc/logrelay/logrelay.env", "LOGRELAY_KEEP_DAYS=soon\n", 0o600)
    machine("systemctl", "stop", "logrelay.service")
    done = install(machine)
    assert done.returncode == 1
    assert "LOGRELAY_KEEP_DAYS is 'soon'; allowed:" in done.stderr, "the relay's own words"


def drop_ins():
    """The drop-ins of docs/operations.md, in their order: a journal elsewhere, NATS, HTTPS."""
    text = (HERE.parents[2] / "docs" / "operations.md").read_text()
    return re.findall(
        r"```ini\n(.*?)```", text.partition("**Drop-ins.**")[2].partition("**Without root**")[0], re.DOTALL
    )


def edit(box, text):
    """`systemctl edit logrelay` with this text."""
    box.write("/etc/systemd/system/logrelay.service.d/override.conf", text)
    box("systemctl", "daemon-reload")
    return box.done("systemctl", "restart", "logrelay")


def test_a_reload_changes_settings_and_a_part_that_hangs_is_restarted(machine):
    """`systemctl reload` should read the file again, in the same process; a frozen relay should not stay."""
    machine.write("/etc/logrelay/logrelay.env", "LOGRELAY_CONFIG=/etc/logrelay/logrelay.toml\n", 0o600)
    machine.write("/etc/logrelay/logrelay.toml", "keep_days = 1\n")
    assert install(machine).returncode == 0
    pid = machine.show("logrelay", "MainPID")
    machine.write("/etc/logrelay/logrelay.toml", "keep_days = 2\n")
    machine("systemctl", "reload", "logrelay")
    machine.until("the reload", lambda: "changed: keep_days" in machine.journal())
    machine.until("active again", lambda: machine.show("logrelay", "ActiveState") == "active")
    assert machine.show("logrelay", "MainPID") == pid
    assert "ready on ws://" in machine.show("logrelay", "StatusText")

    assert edit(machine, "[Service]\nWatchdogSec=2s\nWatchdogSignal=SIGKILL\n").returncode == 0
    pid = machine.show("logrelay", "MainPID")
    # On a machine that stands still the watchdog may come before the signal, and to the next relay as well.
    machine("systemctl", "kill", "--signal=STOP", "--kill-whom=main", "logrelay", check=False)
    machine.until("another relay", lambda: machine.show("logrelay", "MainPID") not in (pid, "0"))
    machine.until("an answer", lambda: machine.get("/healthz"))


def test_the_drop_ins_of_the_documentation_do_what_they_are_for(machine):
    """Each is tried without and with: a journal elsewhere, a connection to NATS, one to anywhere, a local address."""
    elsewhere, nats, anywhere = drop_ins()
    machine.write("/etc/logrelay/logrelay.env", "LOGRELAY_JOURNAL=/srv/logrelay/journal.db\n", 0o600)
    done = install(machine)
    assert done.returncode == 1
    assert "install -d -o logrelay -g logrelay -m 0700 /srv/logrelay" in done.stderr
    assert "ReadWritePaths=/srv/logrelay" in done.stderr
    assert machine.show("logrelay", "ExecMainStatus") == "2", "it is not tried again"
    machine("install", "-d", "-o", "logrelay", "-g", "logrelay", "-m", "0700", "/srv/logrelay")
    assert edit(machine, elsewhere).returncode == 0
    assert machine("ls", "/srv/logrelay/journal.db")
    assert install(machine).returncode == 0
    machine("systemctl", "stop", "logrelay")
    machine("rm", "-r", "/srv/logrelay", "/etc/systemd/system/logrelay.service.d")
    machine.write("/etc/logrelay/logrelay.env", "", 0o600)

    for address in ("10.0.0.5/32", "10.0.0.6/32"):
        machine("ip", "address", "add", address, "dev", "lo")
    code = (
        "import socket, threading\n"
        "s = socket.create_server(('0.0.0.0', 4222)); print(1, flush=True)\n"
        "while True: s.accept()\n"
    )
    start(machine, "server", SYSTEM_PYTHON, "-c", code)
    machine.until("the server", lambda: "1" in machine("cat", "/tmp/server", check=False))
    probe = (
        '[Service]\nExecStartPre=/usr/bin/python3 -c "import socket; '
        "socket.create_connection(('{}', 4222), 3).close()\"\n"
    )
    try:
        for drop_in, reached in (("", ""), (nats, "10.0.0.5"), (anywhere, "10.0.0.5 10.0.0.6")):
            for address in ("10.0.0.5", "10.0.0.6"):
                done = edit(machine, drop_in + probe.format(address))
                assert (done.returncode == 0) == (address in reached), f"{drop_in}{address}: {machine.journal()}"
    finally:
        machine("systemctl", "stop", "test-server", check=False)
    assert edit(machine, "").returncode == 0

    machine(LOGRELAY, "token", "add", "phone", check=False)
    assert install(machine, "--listen", "10.0.0.6").returncode == 0
    code = "import socket; socket.create_connection(('10.0.0.6', 8765), 60).close(); print('in')"
    assert machine(SYSTEM_PYTHON, "-c", code) == "in\n"
    assert install(machine, "--listen", "10.0.0.7").returncode == 1, "an address that is not there yet is nobody's"
    machine("ip", "address", "add", "10.0.0.7/32", "dev", "lo")
    assert install(machine).returncode == 0
    for address in ("10.0.0.5/32", "10.0.0.6/32", "10.0.0.7/32"):
        machine("ip", "address", "del", address, "dev", "lo")


AS_CAROL = """
export HOME=/home/carol USER=carol XDG_RUNTIME_DIR=/run/user/$(id -u carol) PATH=/usr/bin:/bin
exec setpriv --reuid=carol --regid=carol --init-groups "$@"
"""


def test_a_user_installs_a_relay_without_root(machine):
    """With a manager of its own, and beside a directory that a relay of the system has left behind."""
    machine("useradd", "--create-home", "carol")
    before = machine("find", "/home/carol")
    runtime = f"/run/user/{machine('id', '-u', 'carol').strip()}"
    machine("install", "-d", "-o", "carol", "-m", "0700", runtime)
    machine("mkdir", "/run/logrelay")
    manager = ("/lib/systemd/systemd", "--user")
    more = ("-p", "Delegate=yes", f"--setenv=XDG_RUNTIME_DIR={runtime}")
    machine("systemd-run", "--quiet", "--collect", "--unit=test-manager", "--uid=carol", *more, "--", *manager)

    def carol(*command):
        return machine.done("sh", "-c", AS_CAROL, "sh", *command)

    try:
        machine.until("the manager", lambda: carol("systemctl", "--user", "show").returncode == 0)
        done = carol(LOGRELAY, "systemd", "install", "--user")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "nothing to do" in carol(LOGRELAY, "systemd", "install", "--user").stdout
        assert carol(LOGRELAY, "send", "--app", "desktop", "arrived").returncode == 0
        assert [line["message"] for line in machine.lines("app=desktop&notices=no")] == ["arrived"]
        assert carol("systemctl", "--user", "kill", "--signal=KILL", "logrelay").returncode == 0
        assert machine.get("/healthz")
        verify = ("systemd-analyze", "--user", "verify", "--man=no", "--recursive-errors=no", "logrelay.service")
        said = carol(*verify)
        assert (said.returncode, said.stdout) == (0, ""), said.stderr
        assert carol(LOGRELAY, "systemd", "uninstall", "--user", "--purge").returncode == 0
        left = set(machine("find", "/home/carol").split()) - set(before.split())
        assert {path for path in left if "logrelay" in path} == set()
    finally:
        machine("systemctl", "stop", "test-manager", check=False)
        machine("rm", "-rf", "/run/logrelay", runtime)
        machine("rmdir", "/run/user", check=False)
        machine("userdel", "--remove", "carol", check=False)


def test_every_option_that_a_unit_gives_exists(machine):
    """`logrelay serve` should understand the command line of each unit that is written or printed."""
    assert install(machine).returncode == 0
    for unit in ("logrelay.service", "logrelay.user.service"):
        text = (HERE.parents[2] / "logrelay" / "units" / unit).read_text()
        (start,) = (line.partition("=")[2] for line in text.splitlines() if line.startswith("ExecStart="))
        # An option that there is not is refused before the help is shown.
        assert machine.done(*start.split(), "--no-such-option", "--help").returncode == 2
        assert machine.done(*start.split(), "--help").returncode == 0
    assert machine("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", "logrelay.service") == ""
    machine("systemd-analyze", "security", "--threshold=5", "logrelay.service")
