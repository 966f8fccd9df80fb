"""What has to be done so that the relay is installed as a service, or is not any more.

Owns: the places of an installation, the steps, and their order. It must not look at the machine or change it: what is
there is given (`Found`), and what is to be done is returned. Pure. Read `installation/unit_files` next.

A step is there only where something differs, so a second installation has none. The order is the one in which nothing
is half there: users before the files that name them, files before systemd reads them, and a socket that systemd is to
hold is let go by the relay first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from logrelay.config.settings import is_loopback
from logrelay.errors import ConfigError
from logrelay.installation import unit_files

SERVICE, SOCKET = "logrelay.service", "logrelay.socket"
VIEWERS_PORT = 8765
"""Of the packaged socket unit."""

MAX_PORT = 0xFFFF

ENV_TEXT = """\
# Settings of the relay, one LOGRELAY_<OPTION>=value per line; `logrelay serve --help` names them. Whoever can read a
# token here can read the log: keep this file at mode 0600. What changes here needs: systemctl {user}restart logrelay
"""


@dataclass(frozen=True, slots=True)
class Places:
    """Where an installation has its parts; for the system, or for one user."""

    units: str
    settings: str
    """The file of the settings; its directory is the installation's own."""
    state: str
    """Directory of the journal and the tokens."""
    runtime: str
    """Directory of the log socket."""
    sysusers: str | None
    """The file for systemd-sysusers; None: the installation of a user makes no users."""
    systemctl: tuple[str, ...]

    @property
    def for_user(self) -> bool:
        """True for the installation of one user."""
        return self.sysusers is None

    @property
    def service(self) -> str:
        """Path of the service."""
        return f"{self.units}/{SERVICE}"

    @property
    def socket(self) -> str:
        """Path of the socket unit."""
        return f"{self.units}/{SOCKET}"

    @property
    def listen(self) -> str:
        """Path of the drop-in that says where viewers connect."""
        return f"{self.units}/{SOCKET}.d/listen.conf"

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that an installation writes."""
        found = (self.sysusers, self.settings, self.service, self.socket, self.listen)
        return tuple(path for path in found if path is not None)

    @property
    def ingest(self) -> str:
        """The log socket as unit files name it."""
        return unit_files.USER_INGEST_SOCKET if self.for_user else unit_files.INGEST_SOCKET


SYSTEM = Places(
    units="/etc/systemd/system",
    settings="/etc/logrelay/logrelay.env",
    state="/var/lib/logrelay",
    runtime="/run/logrelay",
    sysusers="/etc/sysusers.d/logrelay.conf",
    systemctl=("systemctl",),
)


def user_places(environ: Mapping[str, str], uid: int) -> Places:
    """Return the places of a user's installation."""
    home = environ.get("HOME", "")
    config = environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
    state = environ.get("XDG_STATE_HOME") or f"{home}/.local/state"
    return Places(
        units=f"{config}/systemd/user",
        settings=f"{config}/logrelay/logrelay.env",
        state=f"{state}/logrelay",
        runtime=f"{environ.get('XDG_RUNTIME_DIR') or f'/run/user/{uid}'}/logrelay",
        sysusers=None,
        systemctl=("systemctl", "--user"),
    )


@dataclass(frozen=True, slots=True)
class File:
    """A file that is there."""

    text: str
    mode: int
    """Permission bits."""


@dataclass(frozen=True, slots=True)
class Unit:
    """What systemd says of a unit."""

    active: bool = False
    enabled: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """What is on the machine."""

    files: Mapping[str, File]
    """By path; those of `Places.files` that are there."""
    directories: frozenset[str]
    """Directories that are there, of those that an installation makes."""
    service: Unit
    socket: Unit
    users: frozenset[str]
    """Users that are there, of the relay's and the traders'."""
    members: frozenset[str]
    """Users in the group logrelay, which is there if `logrelay` is among the users."""
    systemd: int
    """Its version."""
    is_outdated: bool = False
    """The relay that runs was started before the program was installed."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for."""

    bin_directory: str
    activated: bool | None
    """True: systemd holds the sockets; False: the relay opens them; None: as it is, and by systemd where it is new."""
    trader: str | None = None
    listen: str | None = None
    """Where viewers connect, as it was typed; None: as it is."""


@dataclass(frozen=True, slots=True)
class MakeDirectory:
    """Make a directory, and those above it."""

    path: str
    mode: int

    def __str__(self) -> str:
        return f"make the directory {self.path}"


@dataclass(frozen=True, slots=True)
class Write:
    """Write a file whole, with a mode; what an operator had changed in it is kept beside it."""

    path: str
    text: str
    mode: int
    keep: bool = False
    """Keep what is there as `<path>.before-install`."""
    why: str = ""

    def __str__(self) -> str:
        kept = f"; it had been edited, and is kept as {self.path}.before-install" if self.keep else ""
        return f"write {self.path} (mode {self.mode:04o}){self.why}{kept}"


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove a file, or with `tree` a directory and what is in it, or with `empty` a directory that is empty."""

    path: str
    tree: bool = False
    empty: bool = False

    def __str__(self) -> str:
        if self.empty:
            return f"remove {self.path} if nothing else is in it"
        return f"remove {self.path}{' with everything in it' if self.tree else ''}"


@dataclass(frozen=True, slots=True)
class SetMode:
    """Change the permission bits of a file."""

    path: str
    mode: int
    was: int

    def __str__(self) -> str:
        return f"change the mode of {self.path} from {self.was:04o} to {self.mode:04o}: a token may stand in it"


@dataclass(frozen=True, slots=True)
class Run:
    """Run a command."""

    argv: tuple[str, ...]
    why: str = ""
    may_fail: bool = False
    """Its failure is told and changes nothing else."""

    def __str__(self) -> str:
        return f"run: {' '.join(self.argv)}" + (f"  ({self.why})" if self.why else "")


@dataclass(frozen=True, slots=True)
class DeleteUser:
    """Delete a user that an installation made, and its group. A user in use stays, and that is told."""

    name: str

    def __str__(self) -> str:
        return f"delete the user {self.name} and its group"


Step = MakeDirectory | Write | Remove | SetMode | Run | DeleteUser


def install(wish: Wish, places: Places, found: Found) -> list[Step]:
    """Return the steps to an installation as wished; none where it is there. Raises ConfigError."""
    activated = is_activated(wish, places, found)
    steps: list[Step] = []
    if places.sysusers is not None:
        steps += _user_steps(wish, places.sysusers, found)
    elif wish.trader is not None:
        raise ConfigError("--trader-user is for the system's relay: with --user the bot runs as the same user")
    steps += _settings_steps(places, found)
    if not activated and (found.socket.active or found.socket.enabled):
        why = "the relay opens its sockets itself from now on"
        steps.append(Run((*places.systemctl, "disable", "--now", SOCKET), why))
        steps += [Run((*places.systemctl, "stop", SERVICE))] if found.service.active else []
    unit_steps = [
        step
        for path, text in _unit_texts(wish, places, found, activated=activated).items()
        for step in _file_steps(path, text, found)
    ]
    steps += dict.fromkeys(unit_steps)  # two units lie in one directory
    changed = {step.path for step in unit_steps if isinstance(step, Write | Remove)}
    if changed:
        steps.append(Run((*places.systemctl, "daemon-reload")))
    return steps + _start_steps(places, found, changed, activated=activated)


def is_activated(wish: Wish, places: Places, found: Found) -> bool:
    """Tell whether systemd is to hold the sockets. Raises ConfigError where an address has no socket unit to go to."""
    activated = wish.activated
    if activated is None:
        activated = places.service not in found.files or places.socket in found.files
    if wish.listen is not None and not activated:
        raise ConfigError(
            "--listen is for a socket that systemd holds: give --socket-activation as well, or set LOGRELAY_HOST and "
            f"LOGRELAY_PORT in {places.settings}"
        )
    return activated


def _user_steps(wish: Wish, path: str, found: Found) -> list[Step]:
    there = found.files.get(path)
    traders = unit_files.read_traders(there.text) if there is not None else {}
    if wish.trader is not None:
        traders.setdefault(wish.trader, wish.trader not in found.users)
    text = unit_files.users(traders)
    steps: list[Step] = []
    if there is None or unit_files.read_traders(there.text) != traders or not unit_files.is_ours(there.text):
        directory = path.rpartition("/")[0]
        if directory not in found.directories:
            steps.append(MakeDirectory(directory, 0o755))
        keep = there is not None and not unit_files.is_ours(there.text)
        steps.append(Write(path, unit_files.marked(text), 0o644, keep=keep))
    missing = {"logrelay", *traders} - found.users
    if steps or missing or set(traders) - found.members:
        who = " and ".join(["the user logrelay", *(f"{name} in its group" for name in sorted(traders))])
        steps.append(Run(("systemd-sysusers", path), who))
    return steps


def _settings_steps(places: Places, found: Found) -> list[Step]:
    there = found.files.get(places.settings)
    directory = places.settings.rpartition("/")[0]
    steps: list[Step] = []
    if directory not in found.directories:
        steps.append(MakeDirectory(directory, 0o700 if places.for_user else 0o755))
    if there is None:
        text = ENV_TEXT.format(user="--user " if places.for_user else "")
        steps.append(Write(places.settings, text, 0o600, why=", for settings; none is set in it"))
    elif there.mode & 0o077:
        steps.append(SetMode(places.settings, 0o600, there.mode))
    return steps


def _unit_texts(wish: Wish, places: Places, found: Found, *, activated: bool) -> dict[str, str | None]:
    """Return what each unit file is to hold; None: it is not to be there."""
    make = unit_files.user_service if places.for_user else unit_files.service
    name = "logrelay.user.socket" if places.for_user else SOCKET
    texts: dict[str, str | None] = {
        places.service: make(wish.bin_directory, activated=activated, systemd=found.systemd),
        places.socket: unit_files.packaged(name) if activated else None,
    }
    address = wish.listen or (_address_of_settings(places, found) if activated else None)
    if not activated:
        texts[places.listen] = None
    elif address is not None:
        texts[places.listen] = _drop_in(address, places)
    return texts


def _drop_in(typed: str, places: Places) -> str | None:
    host, port = read_address(typed)
    if (host, port) == ("127.0.0.1", VIEWERS_PORT):
        return None  # as in the unit itself
    address = ip_address(host)
    shown = f"[{host}]:{port}" if address.version == 6 else f"{host}:{port}"
    everywhere = address.is_loopback or address.is_unspecified
    return unit_files.listen_drop_in(shown, ingest=places.ingest, everywhere=everywhere)


def _address_of_settings(places: Places, found: Found) -> str | None:
    """Return where a relay that opened its own sockets listened, if its settings say so: it is to stay there."""
    if places.socket in found.files or places.settings not in found.files:
        return None
    values = read_settings(found.files[places.settings].text)
    host, port = values.get("LOGRELAY_HOST"), values.get("LOGRELAY_PORT")
    if not host and not port:
        return None
    host = "127.0.0.1" if host in (None, "", "localhost") else host
    return f"[{host}]:{port or VIEWERS_PORT}" if ":" in host else f"{host}:{port or VIEWERS_PORT}"


def read_settings(text: str) -> dict[str, str]:
    """Return the variables of a file of settings (systemd.exec(5), EnvironmentFile=), quotes taken off."""
    found = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith(("#", ";")):
            value = value.strip()
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
            found[name.strip()] = value[1:-1] if quoted else value
    return found


def read_address(typed: str) -> tuple[str, int]:
    """Return host and port of what was given to --listen. Raises ConfigError."""
    host, colon, port = typed.rpartition(":")
    if not colon and typed.isascii() and typed.isdigit():
        host, port = "127.0.0.1", typed
    elif not colon or typed.endswith("]") or (":" in host and not host.startswith("[")):
        host, port = typed, str(VIEWERS_PORT)
    host = host.removeprefix("[").removesuffix("]")
    host = "127.0.0.1" if host == "localhost" else host
    number = int(port) if port.isascii() and port.isdigit() else 0
    if not _is_address(host) or not 0 < number <= MAX_PORT:
        raise ConfigError(
            f"--listen is {typed!r}; allowed: an IP address, a port, or both, like 0.0.0.0, 9000, 192.168.1.2:8765 or "
            "[::]:8765"
        )
    return host, number


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return "%" not in host  # an address of one interface


def listens_on(places: Places, found: Found) -> tuple[str, int]:
    """Return where viewers connect, by what is installed."""
    drop_in = found.files.get(places.listen)
    if places.socket in found.files:
        text = found.files[places.socket].text + (drop_in.text if drop_in is not None else "")
        lines = [line.partition("=")[2] for line in text.splitlines() if line.startswith("ListenStream=")]
        addresses = [line for line in lines if line and "/" not in line]
        return read_address(addresses[-1]) if addresses else ("127.0.0.1", VIEWERS_PORT)
    settings = found.files.get(places.settings)
    values = read_settings(settings.text) if settings is not None else {}
    port = values.get("LOGRELAY_PORT") or ""
    return values.get("LOGRELAY_HOST") or "127.0.0.1", int(port) if port.isdigit() else VIEWERS_PORT


def _file_steps(path: str, text: str | None, found: Found) -> list[Step]:
    there = found.files.get(path)
    if text is None:
        return [] if there is None else [Remove(path)]
    if there is not None and there.text == unit_files.marked(text):
        return []
    directory = path.rpartition("/")[0]
    steps: list[Step] = [] if directory in found.directories else [MakeDirectory(directory, 0o755)]
    keep = there is not None and not unit_files.is_ours(there.text)
    return [*steps, Write(path, unit_files.marked(text), 0o644, keep=keep)]


def _start_steps(places: Places, found: Found, changed: set[str], *, activated: bool) -> list[Step]:
    """Return the commands that have systemd run what the files say, in the order that refuses fewest connections."""
    ctl = places.systemctl
    steps: list[Step] = []
    service_runs = found.service.active
    if activated:
        is_new_socket = not found.socket.active or {places.socket, places.listen} & changed
        if is_new_socket and (service_runs or found.socket.active):
            steps.append(Run((*ctl, "stop", SOCKET, SERVICE), "systemd takes no socket whose service holds it"))
            service_runs = False
        if is_new_socket or not found.socket.enabled:
            steps.append(Run((*ctl, "enable", "--now", SOCKET)))
    elif found.socket.active:
        service_runs = False  # stopped before the socket's unit was removed
    if not found.service.enabled:
        steps.append(Run((*ctl, "enable", SERVICE)))
    if not service_runs:
        steps.append(Run((*ctl, "start", SERVICE)))
    elif places.service in changed or found.is_outdated:
        why = "" if places.service in changed else "it runs from before the program was installed"
        steps.append(Run((*ctl, "restart", SERVICE), why))
    return steps


def uninstall(places: Places, found: Found, *, purge: bool, others: Mapping[str, tuple[str, ...]]) -> list[Step]:
    """Return the steps after which nothing of an installation runs; with `purge` nothing of it is there.

    `others` names what else is there: `drop-ins` (directories), `kept` (what `Write` has kept), `data` (directories of
    settings, state and the socket).
    """
    ctl = places.systemctl
    steps: list[Step] = []
    units = [name for name, path in ((SOCKET, places.socket), (SERVICE, places.service)) if path in found.files]
    running = found.service.active or found.socket.active or found.service.enabled or found.socket.enabled
    if units or running:
        steps.append(Run((*ctl, "disable", "--now", *(units or (SOCKET, SERVICE)))))
        steps.append(Run((*ctl, "reset-failed", *(units or (SOCKET, SERVICE))), may_fail=True))
    steps += [Remove(path) for path in (places.socket, places.service, places.listen) if path in found.files]
    if places.listen in found.files and not purge:
        steps.append(Remove(places.listen.rpartition("/")[0], empty=True))
    if purge:
        steps += [Remove(path, tree=True) for path in others.get("drop-ins", ())]
        steps += [Remove(path) for path in others.get("kept", ())]
    if units or running:
        steps.append(Run((*ctl, "daemon-reload")))
    data = others.get("data", ())
    if places.runtime in data:
        steps.append(Remove(places.runtime, tree=True))
    if purge:
        steps += [Remove(path, tree=True) for path in data if path != places.runtime]
        steps += _users_removed(places, found)
    return steps


def _users_removed(places: Places, found: Found) -> list[Step]:
    if places.sysusers is None:
        return []
    steps: list[Step] = []
    there = found.files.get(places.sysusers)
    traders = unit_files.read_traders(there.text) if there is not None else {}
    if there is not None:
        steps += [Remove(places.sysusers), Remove(places.sysusers.rpartition("/")[0], empty=True)]
    gone = [name for name, is_made in sorted(traders.items()) if is_made and name in found.users]
    return [*steps, *(DeleteUser(name) for name in [*gone, *sorted({"logrelay"} & found.users)])]


def is_public(host: str) -> bool:
    """Tell whether other machines may reach this address."""
    return not is_loopback(host)
