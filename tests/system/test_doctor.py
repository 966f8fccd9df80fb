"""`logrelay check` as a doctor: faults that are really planted are found with a remedy, and none where all is well."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from logrelay import __version__
from logrelay.journal.sqlite import SqliteJournal
from logrelay.model import Commit, Line, Run
from tests.support.certificates import Authority
from tests.support.chaos.relay import Relay
from tests.support.waiting import DEADLINE_S, wait_for
from tests.support.web_server import Greeting, web_server
from tests.unit.journal.test_sqlite_upkeep import reader

TOKEN = "V3sJm0t-Qz7w_1pLk9rXu8Yb2"
OF_THE_MACHINE = {"clock_not_synchronised", "disk_small", "few_descriptors"}
"""What may be true of the machine that runs the tests."""


class Patient:
    """An installation in a folder of its own, and what `check` says of it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith(("LOGRELAY_", "XDG_"))}
        self.environ.pop("STATE_DIRECTORY", None)
        self.environ |= {"HOME": str(home), "XDG_RUNTIME_DIR": str(home), "PYTHONPATH": os.getcwd()}
        self.environ |= {"LOGRELAY_PORT": "0", "LOGRELAY_JOURNAL": str(home / "j.db")}
        self.ends = contextlib.ExitStack()

    def check(self, *arguments: str, **more: str) -> dict:
        done = subprocess.run(
            [sys.executable, "-m", "logrelay", "check", "--json", *arguments],
            env=self.environ | more, cwd=self.home, capture_output=True, text=True, timeout=DEADLINE_S,
        )  # fmt: skip
        shown = json.loads(done.stdout)
        assert done.returncode == shown["exit"], done.stderr
        for one in shown["findings"]:
            assert one["remedy"]
            assert f"logrelay: {one['rank']}: {one['text']}; {one['remedy']}" in done.stderr.splitlines()
        assert TOKEN not in done.stdout + done.stderr
        return shown

    def text(self) -> str:
        """Return what a person reads on stdout."""
        return subprocess.run(
            [sys.executable, "-m", "logrelay", "check"], env=self.environ, cwd=self.home, capture_output=True,
            text=True, timeout=DEADLINE_S, check=True,
        ).stdout  # fmt: skip

    def found(self, *arguments: str, **more: str) -> tuple[set[str], int, str]:
        """Return the codes, the exit code, and everything that was said."""
        shown = self.check(*arguments, **more)
        codes = {one["code"] for one in shown["findings"]} - OF_THE_MACHINE
        return codes, shown["exit"], " ".join(one["text"] for one in shown["findings"])

    def journal(self, *runs: Run, time_us: int = 0) -> Path:
        """Make a journal with a line of the time that is given, and with these runs."""
        path = self.home / "j.db"
        journal = SqliteJournal(str(path), now_us=lambda: 1_769_162_400_000_000, random_epoch=lambda: "abc123")
        journal.open()
        body = b'{"type":"log","id":"abc123-1","level":"INFO","message":"m","context":{}}'
        journal.append(Commit([Line(1, time_us, 20, "a", 1, body, "m", {})], list(runs)))
        journal.close()
        return path


@pytest.fixture
def patient(tmp_path):
    """An installation without a fault, not started."""
    patient = Patient(tmp_path)
    with patient.ends:
        yield patient


@pytest.fixture
def relay(patient):
    """The same with a relay that runs, and a bot that has logged."""
    relay = Relay(patient.home, "--keep-bytes", "8MiB", journal=patient.home / "j.db")
    relay.socket = patient.home / "logrelay" / "ingest.sock"
    patient.ends.callback(relay.end)
    relay.start()
    patient.environ |= {"LOGRELAY_PORT": str(relay.port), "LOGRELAY_KEEP_BYTES": "8MiB"}
    return relay


def run(state: str, app: str = "scalper") -> Run:
    return Run(1, b"r" * 16, app, "box", 7, 0, 1, 1_769_162_400_000_000, state, 1_769_162_400_000_000)


def test_nothing_is_found_where_all_is_well(patient, relay):
    """A relay that runs with a bot; also before it has ever run, and after it has ended."""
    subprocess.run(
        [sys.executable, "-m", "logrelay", "send", "--socket", relay.socket, "--app", "scalper", "hello",
         f"--timeout={DEADLINE_S:g}"],
        check=True, cwd=os.getcwd(), timeout=2 * DEADLINE_S,
    )  # fmt: skip
    shown = patient.check()
    assert {one["code"] for one in shown["findings"]} <= OF_THE_MACHINE
    assert (shown["exit"], shown["relay"]["trouble"]) == (0, None)
    assert [bot["app"] for bot in shown["bots"]] == ["scalper"]
    assert shown["urls"]["page"] == f"http://127.0.0.1:{relay.port}/"
    relay.stop()
    assert patient.found() == (set(), 0, patient.found()[2])
    relay.start()  # its epoch is another one, which the file learns with the next line
    assert patient.found(LOGRELAY_PORT=str(relay.port))[:2] == (set(), 0)
    relay.stop()
    fresh = Patient(patient.home / "fresh")
    fresh.home.mkdir()
    assert fresh.found()[:2] == (set(), 0)
    assert list(fresh.home.iterdir()) == [], "it changes nothing"


@pytest.mark.parametrize("with_token", [True, False])
def test_a_relay_with_a_token_is_known_as_one(patient, with_token):
    """It may say nothing of itself; its port is not taken by another program."""
    relay = Relay(patient.home, journal=patient.home / "j.db")
    relay.environ = {"LOGRELAY_TOKEN": TOKEN}
    patient.ends.callback(relay.end)
    relay.start()
    more = {"LOGRELAY_PORT": str(relay.port), "LOGRELAY_SOCKET": str(relay.socket)}
    shown = patient.check(**more, **({"LOGRELAY_TOKEN": TOKEN} if with_token else {}))
    assert {one["code"] for one in shown["findings"]} - OF_THE_MACHINE <= {"no_bot_seen", "socket_not_looked_for"}
    assert (shown["relay"]["version"] is not None) == with_token


def test_settings_and_secrets(patient, tmp_path):
    """What is misspelt, what does not go together, and what others can read."""
    assert patient.found(LOGRELAY_PROT="1")[:2] == ({"unknown_variable"}, 0)
    codes, code, said = patient.found(LOGRELAY_HOST="0.0.0.0")
    assert (codes, code) == ({"settings", "plain_text"}, 2)
    assert "LOGRELAY_HOST is '0.0.0.0', which is not loopback" in said
    assert patient.found(LOGRELAY_HOST="0.0.0.0", LOGRELAY_TOKEN="hunter2")[:2] == ({"settings", "plain_text"}, 2)
    shown = patient.check(LOGRELAY_HOST="0.0.0.0", LOGRELAY_TOKEN=TOKEN)
    assert [one["code"] for one in shown["findings"] if one["code"] not in OF_THE_MACHINE] == ["plain_text"]
    assert shown["urls"]["page"] == "http://127.0.0.1:0/"
    assert patient.found("--socket-group", "nosuchgroup")[:2] == ({"no_such_user_or_group"}, 3)
    assert patient.found("--allow-uid", "nosuchuser")[:2] == ({"no_such_user_or_group"}, 3)

    config = tmp_path / "r.toml"
    config.write_text(f'token = "{TOKEN}"\n')
    config.chmod(0o644)
    codes, code, said = patient.found("--config", str(config))
    assert (codes, code) == ({"token_readable"}, 7)
    assert f"{config} holds a token and has mode 0644" in said
    config.write_text(
        'alert = ["json://example.org/x"]\nheartbeat = "https://example.org/y"\nforward = ["nats://ann:hunter2@box"]\n'
    )
    said = patient.found("--config", str(config))[2]
    kinds = "a secret in a NATS URL and the URLs of alerts and the URL of the heartbeat"
    assert f"{config} holds {kinds} and has mode 0644" in said
    config.write_text(f'token = "{TOKEN}"\n')
    config.chmod(0o600)
    assert patient.found("--config", str(config))[:2] == (set(), 0)

    tokens = tmp_path / "tokens.json"
    tokens.write_text('{"version":1,"tokens":[]}')
    tokens.chmod(0o644)
    assert patient.found()[:2] == ({"token_file"}, 2)
    tokens.write_text("nonsense")
    tokens.chmod(0o600)
    assert patient.found()[:2] == ({"token_file"}, 2)


def test_certificates(patient, tmp_path):
    """Of another key, over, and nearly over."""
    authority = Authority(tmp_path)
    pairs = {name: authority.issue(name, days) for name, days in (("good", 60), ("soon", 3), ("over", -1))}

    def found(cert: str, key: str) -> tuple[set[str], int, str]:
        return patient.found("--tls-cert", str(pairs[cert][0]), "--tls-key", str(pairs[key][1]))

    assert found("good", "good")[:2] == (set(), 0)
    assert found("good", "soon")[:2] == ({"certificate_unusable"}, 2)
    assert found("soon", "soon")[:2] == ({"certificate_time"}, 0)
    assert found("over", "over")[:2] == ({"certificate_time"}, 7)
    assert patient.found("--tls-cert", str(pairs["good"][0]))[:2] == ({"certificate_unusable"}, 2)


def test_whether_a_relay_runs(patient, relay):
    """One row in any case: its version and its process, or how it is started."""
    running = patient.check()["running"]
    assert running == (
        f"a relay runs at ws://127.0.0.1:{relay.port}: version {__version__}, process {relay.process.pid} (python) "
        "on 127.0.0.1"
    ).replace("(python)", f"({Path(f'/proc/{relay.process.pid}/comm').read_text().strip()})")
    assert running in patient.text().splitlines()
    relay.stop()
    stopped = patient.check()["running"]
    assert stopped.startswith(
        f"no relay runs with these settings: nobody answers as one at ws://127.0.0.1:{relay.port};"
    )
    assert "logrelay serve" in stopped
    assert stopped in patient.text().splitlines()


def test_a_relay_with_other_settings_for_tls(patient, tmp_path):
    """It is known as one, with what its settings are, and no token goes to a certificate that nobody trusts."""
    authority = Authority(tmp_path)
    (cert, key), (other, other_key), (over, over_key) = (authority.issue("a"), authority.issue("b"),
                                                         authority.issue("c", -1))  # fmt: skip
    relay = Relay(patient.home, "--tls-cert", str(cert), "--tls-key", str(key), journal=patient.home / "j.db")
    relay.socket = patient.home / "logrelay" / "ingest.sock"
    patient.ends.callback(relay.end)
    for token in ("", TOKEN):
        relay.environ = {"LOGRELAY_TOKEN": token} if token else {}
        relay.start()
        more = {"LOGRELAY_PORT": str(relay.port)} | ({"LOGRELAY_TOKEN": TOKEN} if token else {})
        codes, code, said = patient.found(**more)
        assert (codes, code) == ({"tls_differs", "no_bot_seen"}, 0)
        assert "speaks TLS, and these settings have no certificate" in said
        assert patient.check(**more)["running"].startswith(f"a relay runs at wss://127.0.0.1:{relay.port}: ")
        assert patient.found("--tls-cert", str(cert), "--tls-key", str(key), **more)[0] == {"no_bot_seen"}
        codes, code, said = patient.found("--tls-cert", str(other), "--tls-key", str(other_key), **more)
        assert (codes, code) == ({"tls_differs", "no_bot_seen"}, 0)
        assert f"shows another certificate than {other}" in said
        codes, code, said = patient.found("--tls-cert", str(over), "--tls-key", str(over_key), **more)
        assert (codes, code) == ({"certificate_time", "no_bot_seen"}, 7)
        relay.stop()
    relay.options, relay.environ = [], {}
    relay.start()
    codes, code, said = patient.found("--tls-cert", str(cert), "--tls-key", str(key), LOGRELAY_PORT=str(relay.port))
    assert (codes, code) == ({"tls_differs", "no_bot_seen"}, 0)
    assert "does not speak TLS" in said


def test_ports(patient, relay):
    """Taken by another program, which is named; not of this machine; and a relay with another journal."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        codes, code, said = patient.found(LOGRELAY_PORT=port, LOGRELAY_SOCKET=str(patient.home / "x"))
        assert ("port_taken" in codes, code) == (True, 3)
        assert f"process {os.getpid()} (" in said
    for kind in (SimpleHTTPRequestHandler, Greeting):  # 404, and 200
        with web_server(kind) as port:
            assert "port_taken" in patient.found(LOGRELAY_PORT=str(port), LOGRELAY_SOCKET=str(patient.home / "x"))[0]
    assert patient.found(LOGRELAY_HOST="192.0.2.1", LOGRELAY_TOKEN=TOKEN)[1] == 3
    assert "address_unusable" in patient.found(LOGRELAY_HOST="192.0.2.1", LOGRELAY_TOKEN=TOKEN)[0]
    wait_for(relay.journal.exists, "the journal")
    codes, code, _ = patient.found(LOGRELAY_JOURNAL=str(patient.home / "other.db"))
    assert ("another_relay" in codes, code) == (True, 3)
    codes, code, said = patient.found(LOGRELAY_PORT="0", LOGRELAY_SOCKET=str(patient.home / "x"))
    assert ("journal_in_use" in codes, code) == (True, 4)
    assert f"(process {relay.process.pid})" in said
    assert "socket_in_use" in patient.found(LOGRELAY_PORT="0", LOGRELAY_JOURNAL=":memory:")[0]


def test_pipes_are_never_waited_for(patient, tmp_path):
    """As the config file, as the journal, and as the file beside it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    done = subprocess.run(
        [sys.executable, "-m", "logrelay", "check", "--config", str(pipe)], env=patient.environ, cwd=patient.home,
        capture_output=True, text=True, timeout=DEADLINE_S,
    )  # fmt: skip
    assert (done.returncode, "it is no regular file" in done.stderr) == (2, True), done.stderr
    journal = patient.journal()
    lock = journal.with_name("j.db.lock")
    lock.unlink(missing_ok=True)
    os.mkfifo(lock)
    for one in (pipe, journal):
        codes, code, said = patient.found("--journal", str(one))
        assert (code, "is no regular file" in said) == (4, True), (codes, said)


def test_log_sockets(patient, tmp_path):
    """What may lie in its place, and who can reach it."""
    place = tmp_path / "logrelay" / "ingest.sock"
    place.parent.mkdir(mode=0o750)
    place.write_text("no socket")
    assert patient.found()[:2] == ({"not_a_socket"}, 3)
    place.unlink()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place))
    assert patient.found()[:2] == ({"stale_socket"}, 0)
    place.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(place))
        other.listen()
        assert patient.found()[:2] == ({"socket_in_use"}, 3)
        place.parent.chmod(0o777)
        assert patient.found()[0] == {"socket_in_use", "socket_directory"}
        place.parent.chmod(0o750)
        assert patient.found("--socket", str(tmp_path / "s"))[0] == {"socket_not_looked_for"}
        own = f"{tmp_path}/logrelay-{os.getuid()}/ingest.sock"
        assert patient.found("--socket", own, TMPDIR=str(tmp_path))[0] == {"socket_shadowed"}
        if os.geteuid() == 0:
            codes, _, said = patient.found("--trader-user", "nobody")
            assert "socket_unreachable" in codes
            assert "the trader's user nobody may not pass" in said


def test_journals(patient, tmp_path):
    """Not ours, newer, a link, in use, ahead of the clock; without a bot, and with one that is missing."""
    path = patient.journal(time_us=1_769_162_400_000_000)
    assert patient.found()[0] == {"no_bot_seen"}
    assert "no bot has been seen since 2026-01-23 10:00 UTC" in patient.found()[2]
    with path.open("r+b") as file:
        file.seek(60)
        file.write((99).to_bytes(4, "big"))
    codes, code, said = patient.found()
    assert (codes, code, "a newer logrelay (schema version 99" in said) == ({"journal_refused"}, 4, True)
    path.unlink()
    (tmp_path / "elsewhere").write_text("x")
    path.symlink_to(tmp_path / "elsewhere")
    assert patient.found()[:2] == ({"journal_refused"}, 4)
    path.unlink()
    Path(f"{path}.lock").unlink()
    path.write_text("dear diary " * 1000)
    assert patient.found()[:2] == ({"journal_refused"}, 4)
    path.unlink()

    for state, codes in (("closed", set()), ("crashed", {"bot_missing"}), ("lost", {"bot_missing"})):
        patient.journal(run(state), time_us=1_769_162_400_000_000)
        assert patient.found()[:2] == (codes, 0)
        path.unlink()
    patient.journal(run("closed"), time_us=4_000_000_000_000_000)
    assert patient.found()[:2] == ({"clock_behind"}, 7)
    with Path(f"{path}.lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert patient.found()[:2] == ({"clock_behind", "journal_in_use"}, 4)


def test_room(patient, tmp_path):
    """More to keep than there is, a reader that holds the log, a disk that is full."""
    codes = {one["code"] for one in patient.check("--keep-bytes", "64TiB")["findings"]}
    assert "disk_small" in codes
    journal = SqliteJournal(
        str(patient.home / "j.db"), now_us=lambda: 0, random_epoch=lambda: "abc123", max_bytes=8 << 20
    )
    patient.ends.callback(journal.close)
    journal.open()
    body = b'{"type":"log","id":"abc123-1","level":"INFO","message":"m","context":{}}' + b" " * 2000
    journal.append(Commit([], [run("closed")]))
    process = reader(journal.path)
    patient.ends.callback(process.communicate)
    for first in range(1, 2000, 500):
        journal.append(Commit([Line(seq, 0, 20, "a", 1, body, "m", {}) for seq in range(first, first + 500)]))
    codes, _, said = patient.found("--keep-bytes", "8MiB")
    assert "log_pinned" in codes
    assert f"process {process.pid} (" in said

    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "chaos", disk], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    patient.ends.callback(subprocess.run, ["umount", "--lazy", disk], check=True)
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(65536))
    assert patient.found("--journal", str(disk / "j.db"))[:2] == ({"disk_low"}, 7)
    network = tmp_path / "network"
    network.mkdir()
    if subprocess.run(["mount", "-t", "ramfs", "chaos", network], check=False).returncode == 0:
        patient.ends.callback(subprocess.run, ["umount", "--lazy", network], check=True)
        assert "journal_on_network" in patient.found("--journal", str(network / "j.db"))[0]


def test_packages_that_are_too_old(patient, tmp_path):
    """As after an upgrade of another program in the same environment."""
    info = tmp_path / "old" / "click-7.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: click\nVersion: 7.0\n")
    codes, code, said = patient.found(PYTHONPATH=f"{info.parent}:{os.getcwd()}")
    assert (codes, code) == ({"package_old"}, 7)
    assert "click 7.0 is installed, 8.1 is the oldest that works" in said


def test_the_text_names_what_is_effective(patient):
    """No `none`, an address that can be opened, and one row for a person when nothing is wrong."""
    done = subprocess.run(
        [sys.executable, "-m", "logrelay", "check", "--host", "0.0.0.0", "--port", "1"],
        env=patient.environ | {"LOGRELAY_TOKEN": TOKEN}, capture_output=True, text=True, timeout=DEADLINE_S,
    )  # fmt: skip
    rows = done.stdout.splitlines()
    assert [row for row in rows if "none" in row.split()] == []
    assert "viewers connect to ws://127.0.0.1:1, browsers open http://127.0.0.1:1/" in rows
    assert any(row.split()[:3] == ["tls_cert", "not", "set"] for row in rows)
    assert any(row.startswith("keep_free ") and "a twentieth of the file system" in row for row in rows)
    assert TOKEN not in done.stdout


SHOW = """\
Id=logrelay.service
LoadState={load}
ActiveState={active}
SubState=running
Result=success
NRestarts={restarts}
UnitFileState={enabled}
NeedDaemonReload=no
User={user}
Environment=LOGRELAY_JOURNAL={journal} LOGRELAY_SOCKET={home}/logrelay/ingest.sock LOGRELAY_PORT=0
EnvironmentFiles={home}/logrelay.env (ignore_errors=yes)
ExecStart={{ path=/x/logrelay ; argv[]=/x/logrelay serve --tail 7 ; ignore_errors=no ; }}
DropInPaths=/etc/systemd/system/logrelay.service.d/x.conf
LimitNOFILE={files}
MemoryMax={memory}
ProtectHome={hides}
ProtectSystem={strict}
ReadWritePaths=
TriggeredBy={socket}
"""
WELL = {
    "load": "loaded", "active": "active", "restarts": 0, "enabled": "enabled", "files": 16384, "memory": 671088640,
    "hides": "no", "strict": "no", "socket": "",
}  # fmt: skip


@pytest.fixture
def service(patient, tmp_path):
    """Return what `check --unit logrelay` finds where systemctl answers with these properties.

    systemctl is played by a program that prints what a real one has printed; the rest is real: user, files, modes.
    """
    (tmp_path / "bin").mkdir()
    (tmp_path / "logrelay").mkdir()
    script = tmp_path / "bin" / "systemctl"
    script.write_text(f"#!/bin/sh\nfor last; do :; done\ncat {tmp_path}/show-$last\n")
    script.chmod(0o755)
    (tmp_path / "show-logrelay.socket").write_text(
        "Listen=/run/logrelay/ingest.sock (Stream)\nListen=127.0.0.1:1 (Stream)\nActiveState=active\n"
    )

    def found(*arguments: str, **changes: object) -> tuple[set[str], dict]:
        values = {"user": pwd.getpwuid(os.geteuid()).pw_name, "home": tmp_path, "journal": patient.home / "j.db"}
        (tmp_path / "show-logrelay.service").write_text(SHOW.format(**(values | WELL | changes)))
        path = f"{script.parent}:{os.environ['PATH']}"
        shown = patient.check("--unit", "logrelay", *arguments, PATH=path, LOGRELAY_TAIL="9")
        return {one["code"] for one in shown["findings"]} - OF_THE_MACHINE - {"socket_for_nobody"}, shown

    return found


def test_a_service_is_seen_as_systemd_starts_it(service, tmp_path):
    """Its variables, its file, its options; not those of whoever asks. Nothing is found where all is well."""
    (tmp_path / "logrelay.env").write_text("LOGRELAY_KEEP_DAYS=3\n")
    codes, shown = service()
    assert codes == set(), shown["findings"]
    settings = {name: (row["value"], row["from"]) for name, row in shown["settings"].items()}
    assert settings["keep_days"] == (3, "LOGRELAY_KEEP_DAYS")
    assert settings["tail"] == (7, "--tail")
    assert settings["journal"] == (str(tmp_path / "j.db"), "LOGRELAY_JOURNAL")
    assert shown["unit"]["DropInPaths"] == "/etc/systemd/system/logrelay.service.d/x.conf"


def test_faults_of_a_service(service, tmp_path):
    """Not there, not enabled, in a loop, too little of something, a socket unit, a token that others can read."""
    assert service(load="not-found")[0] == {"unit_missing"}
    assert service(enabled="disabled")[0] == {"unit_not_enabled"}
    assert service(restarts=17)[0] == {"unit_restarts"}
    assert service(active="failed")[0] == {"unit_failed"}
    assert service(active="inactive")[0] == {"unit_stopped"}
    assert service(files=64)[1]["findings"] != []
    assert "few_descriptors" in {one["code"] for one in service(files=64)[1]["findings"]}
    assert service(memory=1 << 25)[0] == {"little_memory"}
    codes, shown = service(socket="logrelay.socket")
    assert codes == {"overridden_by_socket"}
    assert shown["urls"]["page"] == "http://127.0.0.1:1/"
    assert service(strict="strict")[0] == {"journal_read_only"}
    assert service(hides="yes", journal="/home/x/j.db")[0] >= {"journal_hidden"}
    (tmp_path / "logrelay.env").write_text(f"LOGRELAY_TOKEN={TOKEN}\n")
    (tmp_path / "logrelay.env").chmod(0o644)
    assert service()[0] == {"token_readable"}
    (tmp_path / "logrelay.env").write_text("LOGRELAY_HEARTBEAT=https://example.org/y\n")
    codes, shown = service()
    assert codes == {"token_readable"}
    assert "holds the URL of the heartbeat and has mode 0644" in str(shown["findings"])


def test_what_the_user_of_a_service_may_not_do(service, patient, tmp_path):
    """Whoever asks is root, and the relay is not."""
    if os.geteuid() != 0:
        pytest.skip("another user's eyes need root")
    place = Path(tempfile.mkdtemp(prefix="lr-doctor"))
    patient.ends.callback(shutil.rmtree, place)
    place.chmod(0o755)
    assert "journal_directory" in service(user="nobody", journal=place / "j.db")[0]
    assert "journal_directory" in service(user="nobody", journal=place / "new" / "j.db")[0]
    place.chmod(0o700)
    assert "journal_unreachable" in service(user="nobody", journal=place / "j.db")[0]
    place.chmod(0o755)
    shutil.copy(patient.journal(), place / "j.db")
    place.chmod(0o777)
    assert "journal_not_writable" in service(user="nobody", journal=place / "j.db")[0]
    shutil.chown(place / "j.db", 1)
    assert "journal_refused" in service(user="nobody", journal=place / "j.db")[0]


def test_a_unit_where_there_is_no_systemd_is_said(patient):
    """With the other ways to ask; and --user alone means nothing."""
    for arguments, said in ((("--unit", "x"), "systemd cannot be asked about x.service"), (("--user",), "--unit NAME")):
        done = subprocess.run(
            [sys.executable, "-m", "logrelay", "check", *arguments], env=patient.environ | {"PATH": "/nowhere"},
            capture_output=True, text=True, timeout=DEADLINE_S,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr


def test_serve_says_what_it_does_not_read(patient):
    """A setting that is misspelt would else be a setting that is not made."""
    relay = Relay(patient.home, journal=":memory:")
    relay.environ = {"LOGRELAY_KEEP_DAY": "3"}
    patient.ends.callback(relay.end)
    relay.start()
    assert "LOGRELAY_KEEP_DAY is set but is not a setting; did you mean LOGRELAY_KEEP_DAYS?" in relay.said[0]
