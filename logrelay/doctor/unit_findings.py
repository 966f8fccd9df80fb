"""What is wrong with the service: whether systemd starts it, keeps it running, and what it hides from it.

Owns: the questions about the unit. It must not ask systemd. Pure. Read `doctor/gathering` next.
"""

from __future__ import annotations

from collections.abc import Iterator

from logrelay.config.settings import BY_NAME
from logrelay.doctor.facts import Facts, UnitFacts
from logrelay.doctor.finding import Finding, problem, warning

MANY_RESTARTS = 3
"""One or two are a crash that was got over; systemd counts from the last start by hand."""

HIDDEN = {
    "ProtectHome": ("/home", "/root", "/run/user"),
    "PrivateTmp": ("/tmp", "/var/tmp"),  # noqa: S108  (nothing is put there)
}
"""Directories that a unit does not see with these switches."""

INHERITED = ("host", "port", "socket")
"""Settings that change nothing where systemd holds the sockets."""


def state(facts: Facts) -> Iterator[Finding]:
    """Whether it is there, enabled, and running."""
    unit = facts.unit
    if unit is None:
        return
    shown, name = unit.shown, unit.name
    if shown.get("LoadState") != "loaded":
        yield problem(
            "unit_missing",
            f"systemd has no unit {name} ({shown.get('LoadState', 'unknown')})",
            "logrelay systemd print, and docs/operations.md",
        )
        return
    restarts, again = int(shown.get("NRestarts") or 0), shown.get("SubState") == "auto-restart"
    status = shown.get("ExecMainStatus", "")
    if again or restarts > MANY_RESTARTS:
        yield problem(
            "unit_restarts",
            f"{name} was started again {restarts:,} times; the last exit code was {status}",
            f"journalctl -u {name} -n 50 says why (docs/operations.md, exit codes)",
        )
    elif shown.get("ActiveState") == "failed":
        yield problem(
            "unit_failed",
            f"{name} has failed ({shown.get('Result')}, exit code {status})",
            f"journalctl -u {name} -n 50 says why; then: {unit.systemctl} restart {name}",
        )
    elif shown.get("ActiveState") == "inactive":
        yield warning("unit_stopped", f"{name} is not running", f"{unit.systemctl} start {name}")
    if "enabled" not in (shown.get("UnitFileState"), unit.socket.get("UnitFileState")):
        yield warning(
            "unit_not_enabled",
            f"{name} is not enabled: after a reboot it does not start",
            f"{unit.systemctl} enable {name}, or its socket unit",
        )
    if shown.get("NeedDaemonReload") == "yes":
        yield warning(
            "unit_changed",
            f"the files of {name} have changed since systemd read them",
            f"{unit.systemctl} daemon-reload, then restart {name}",
        )


def sockets(facts: Facts) -> Iterator[Finding]:
    """Settings that a socket unit overrides."""
    unit = facts.unit
    if unit is None or not unit.listens:
        return
    for name in INHERITED:
        origin = facts.effective.origins[name]
        if origin != "default":
            yield warning(
                "overridden_by_socket",
                f"{origin} changes nothing: systemd holds the sockets ({', '.join(unit.listens)})",
                f"set ListenStream= of the socket unit ({unit.systemctl} edit {_socket_name(unit)}), or take "
                f"{BY_NAME[name].variable} out",
            )


def hidden(facts: Facts) -> Iterator[Finding]:
    """A journal where the unit cannot write."""
    unit, path = facts.unit, facts.effective.config.journal
    if unit is None or facts.journal is None:
        return
    for switch, places in HIDDEN.items():
        if unit.shown.get(switch) not in ("no", "", None) and any(path.startswith(f"{at}/") for at in places):
            yield problem(
                "journal_hidden",
                f"{unit.name} does not see {path} ({switch}=)",
                f"put the journal below /var/lib, or set {switch}=no in a drop-in",
            )
            return
    if unit.shown.get("ProtectSystem") == "strict" and not _is_writable(unit, path):
        yield problem(
            "journal_read_only",
            f"for {unit.name} all but its own directories is read-only (ProtectSystem=strict), and {path} is elsewhere",
            f"{unit.systemctl} edit {unit.name}: [Service] ReadWritePaths={path.rpartition('/')[0]}",
        )


def _is_writable(unit: UnitFacts, path: str) -> bool:
    places = unit.shown.get("ReadWritePaths", "").split()
    for key, base in (("StateDirectory", "/var/lib"), ("RuntimeDirectory", "/run")):
        places += [f"{base}/{name}" for name in unit.shown.get(key, "").split()]
    places += unit.environment.get("STATE_DIRECTORY", "").split(":")
    return any(place and f"{path}/".startswith(f"{place.lstrip('-+').rstrip('/')}/") for place in places)


def _socket_name(unit: UnitFacts) -> str:
    return unit.name.removesuffix(".service") + ".socket"


QUESTIONS = (state, sockets, hidden)
