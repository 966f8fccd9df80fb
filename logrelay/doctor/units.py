"""A service as systemd sees it: its properties, its environment, its options.

Owns: asking `systemctl`, and reading what it answers. It must not judge anything. Read `doctor/gathering` next.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from logrelay.config.loading import secrets_in
from logrelay.config.settings import SETTINGS
from logrelay.doctor.facts import Node, UnitFacts
from logrelay.errors import ConfigError

ANSWER_S = 20.0
"""For an answer of systemctl: it takes milliseconds, on a busy machine seconds."""

PROPERTIES = (
    "Id", "LoadState", "ActiveState", "SubState", "Result", "NRestarts", "UnitFileState", "NeedDaemonReload", "MainPID",
    "ExecMainStatus", "User", "Group", "SupplementaryGroups", "Environment", "EnvironmentFiles", "ExecStart",
    "FragmentPath", "DropInPaths", "StateDirectory", "RuntimeDirectory", "LimitNOFILE", "MemoryMax", "ProtectHome",
    "PrivateTmp", "ProtectSystem", "ReadWritePaths", "TriggeredBy", "Listen",
)  # fmt: skip

Ask = Callable[[Sequence[str]], str]
"""Runs a command and returns what it prints. Raises OSError."""


def run(command: Sequence[str]) -> str:
    """Run a command of systemd. Raises OSError where it is not there, fails or does not answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{command[0]} does not answer") from error
    if done.returncode != 0:
        raise OSError(
            next(iter(done.stderr.strip().splitlines()), "").rstrip(".") or f"{command[0]} ended with {done.returncode}"
        )
    return done.stdout


def look(unit: str, *, for_user: bool, ask: Ask = run) -> UnitFacts:
    """Return what systemd says of a service. Raises ConfigError where it cannot be asked, or a file cannot be read."""
    manager = ("systemctl", "--user") if for_user else ("systemctl",)
    name = unit if unit.endswith(".service") else f"{unit}.service"
    show = (*manager, "show", "--no-pager", f"--property={','.join(PROPERTIES)}")
    try:
        shown = parse_show(ask((*show, name)))
        sockets = [one for one in shown.get("TriggeredBy", "").split() if one.endswith(".socket")]
        socket = parse_show(ask((*show, sockets[0]))) if sockets else {}
    except OSError as error:
        raise ConfigError(
            f"systemd cannot be asked about {name}: {error}; --unit is for a machine that systemd runs, --user for a "
            "unit of one's own"
        ) from error
    environment = dict(_assignments(shown.get("Environment", "")))
    secret_files, secret_words = [], {}
    for path, optional in environment_files(shown.get("EnvironmentFiles", "")):
        try:
            read = read_environment(Path(path).read_text("utf-8", "replace"))
        except FileNotFoundError:
            if not optional:
                raise ConfigError(f"{path} is not there, which {name} reads its settings from") from None
            continue
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}; run this as root") from error
        environment |= read
        words = secrets_in({s.name: read[s.variable] for s in SETTINGS if s.variable in read})
        if words:
            secret_words[path] = words
            status = os.stat(path)  # noqa: PTH116
            secret_files.append(Node(path, status.st_mode, status.st_uid, status.st_gid))
    base = os.environ.get("XDG_STATE_HOME", "~/.local/state") if for_user else "/var/lib"
    states = [f"{base}/{one}" for one in shown.get("StateDirectory", "").split()]
    if states:
        environment.setdefault("STATE_DIRECTORY", ":".join(states))
    return UnitFacts(
        name=name,
        manager=manager,
        shown=shown,
        socket=socket,
        listens=listens(socket),
        environment=environment,
        flags=flags(shown.get("ExecStart", "")),
        secret_files=secret_files,
        secret_words=secret_words,
    )


def parse_show(text: str) -> dict[str, str]:
    """Read what `systemctl show` prints; a property that comes several times has its values on lines of their own."""
    found: dict[str, str] = {}
    for row in text.splitlines():
        key, equals, value = row.partition("=")
        if equals:
            found[key] = f"{found[key]}\n{value}" if key in found else value
    return found


def listens(socket: Mapping[str, str]) -> list[str]:
    """Return the addresses of a socket unit that is active: `127.0.0.1:8765`, `/run/logrelay/ingest.sock`."""
    if socket.get("ActiveState") != "active":
        return []
    return [row.rpartition(" (")[0] for row in socket.get("Listen", "").splitlines() if row]


def environment_files(text: str) -> list[tuple[str, bool]]:
    """Return path, and whether it may be missing, of each `EnvironmentFile=`."""
    rows = [row.rpartition(" (") for row in text.splitlines() if row]
    return [(path, "ignore_errors=yes" in options) for path, _, options in rows]


def read_environment(text: str) -> dict[str, str]:
    """Read a file of settings as systemd does: comments, quotes, one assignment a line."""
    found = {}
    for row in text.replace("\\\n", "").splitlines():
        name, equals, value = row.strip().partition("=")
        if not equals or name.startswith(("#", ";")):
            continue
        try:
            parts = shlex.split(value, comments=False)
        except ValueError:
            parts = [value]
        found[name.strip()] = " ".join(parts) if value[:1] in "\"'" else value.strip()
    return found


def flags(exec_start: str) -> dict[str, str]:
    """Return the options of `logrelay serve` in a unit's command, by the name of the setting."""
    command = exec_start.partition("argv[]=")[2].partition(" ; ")[0].split()
    known = {setting.flag: setting.name for setting in SETTINGS if setting.by_flag}
    found: dict[str, str] = {}
    words = iter(command[command.index("serve") + 1 :] if "serve" in command else ())
    for word in words:
        option, equals, value = word.partition("=")
        if option in known:
            found[known[option]] = value if equals else next(words, "")
    return found


def _assignments(text: str) -> list[tuple[str, str]]:
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    return [(name, value) for name, equals, value in (word.partition("=") for word in words) if equals]
