"""The look at the machine: everything that is asked before anything is judged.

Owns: `gather`, which fills `Facts` from files, sockets, the running relay and the kernel. It changes nothing, and binds
a socket for an instant to see whether a port is free. It must not judge. Read `doctor/report` next.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import grp
import os
import pwd
import re
import resource
import socket
import sqlite3
import stat
import time
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from logrelay.access.token_file import read_tokens
from logrelay.alerts.task import missing_apprise
from logrelay.config.loading import Effective, Surroundings, load, require_token, secrets_in, trader_places
from logrelay.config.settings import MEMORY, Config, authority, connectable
from logrelay.config_file import read_config_file
from logrelay.doctor import processes
from logrelay.doctor.facts import Bot, Facts, JournalFile, LogSocket, Node, Package, Port, RunningRelay, UnitFacts, User
from logrelay.errors import ConfigError, JournalError, ListenError, NoRelayError
from logrelay.journal import journal_file, lone_file, opening_record
from logrelay.journal.disk_space import kept_free
from logrelay.journal.file_systems import LOCAL, MOUNTS, kind_of
from logrelay.journal.lock_holders import readers_of
from logrelay.journal.retention import log_share
from logrelay.listeners import allowed_peers, bind_tcp, group_id
from logrelay.model import Commit
from logrelay.terminal.answer import Answer, is_anothers, relay_facts
from logrelay.terminal.relay import Address, RelaySource
from logrelay.tls import tls_files

DISTRIBUTION = "logrelay-daemon"

TIME_ERROR = 5
"""adjtimex(2) returns it while nothing has set the clock."""

TIMEX_BYTES = 256
"""More than struct timex has on any machine."""

SQLITE_WAIT_S = 2.0

PROBE_BYTES = 1 << 16
"""How much of an answer is read: /healthz has far less, and what answers may be anything."""


def settings_of(flags: Mapping[str, str | None], unit: UnitFacts | None, user: User) -> Effective:
    """Work out the settings, of this process or of a unit. Raises ConfigError for a value that is not allowed.

    Whether the address needs a token is not asked: that is a finding.
    """
    environ: Mapping[str, str] = os.environ
    if unit is not None:
        home = "" if user.name.isdigit() else pwd.getpwnam(user.name).pw_dir
        environ = {"HOME": home} | dict(unit.environment)
        flags = {**unit.flags, **{name: value for name, value in flags.items() if value is not None}}
    around = Surroundings(
        environ=environ,
        uid=user.uid,
        is_directory=lambda path: Path(path).is_dir(),
        read_file=partial(read_config_file, regular_only=True),
        is_file=os.path.lexists,
    )
    return load(flags, around, serving=False)


def user_called(name: str) -> User:
    """Return a user by name or number. Raises ConfigError."""
    try:
        entry = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(
            f"there is no user {name!r} on this machine; choose one of `getent passwd`, or make it"
        ) from None
    return User(entry.pw_name, entry.pw_uid, frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid)))


def this_user() -> User:
    """Return who runs this."""
    with suppress(ConfigError):
        return user_called(str(os.geteuid()))
    return User(str(os.geteuid()), os.geteuid(), frozenset((os.getegid(), *os.getgroups())))


def user_of(unit: UnitFacts) -> User:
    """Return who a unit runs as. Raises ConfigError."""
    name = unit.shown.get("User") or ("root" if len(unit.manager) == 1 else str(os.getuid()))
    user = user_called(name)
    extra = [gid for group in unit.shown.get("SupplementaryGroups", "").split() if (gid := group_id(group)) is not None]
    return User(user.name, user.uid, user.gids | frozenset(extra))


def gather(effective: Effective, user: User, *, unit: UnitFacts | None, trader: str | None, now_s: float) -> Facts:
    """Look at everything. Raises ConfigError for a trader's user that there is not."""
    config = effective.config
    relay = _relay(config, unit)
    journal = None if config.journal == MEMORY else _journal(config, user)
    tls_error, tls_warning = _certificate(config, now_s)
    secret_files, secret_words = _secrets(config)
    places = trader_places(os.environ, os.getuid())
    return Facts(
        effective=effective,
        user=user,
        now_us=int(now_s * 1e6),
        port=_port(config, unit, relay_answers=relay is not None),
        socket=_log_socket(config.socket),
        journal=journal,
        relay=relay,
        unit=unit,
        alerts_error=_alerts_error(config),
        config_error=_config_error(effective),
        listen_error=_listen_error(config),
        tls_error=tls_error,
        tls_warning=tls_warning,
        tokens_error=_tokens_error(config, user),
        secret_files=secret_files,
        secret_words=secret_words,
        trader=None if trader is None else user_called(trader),
        group_members=_members(config, user),
        trader_places=[(place, _is_socket(place)) for place in places],
        clock_synchronised=_clock_synchronised(),
        packages=_packages(),
        descriptors=_descriptors(unit),
        memory=_limit(unit, "MemoryMax"),
    )


# --- settings ---------------------------------------------------------------------------------------------------------


def _config_error(effective: Effective) -> str:
    config = effective.config
    has_file = config.tokens is not None and os.path.lexists(config.tokens)
    try:
        require_token(config.host, config.token, effective.origins["host"], has_file=has_file)
    except ConfigError as error:
        return str(error)
    return ""


def _alerts_error(config: Config) -> str:
    return missing_apprise() if config.alert and find_spec("apprise") is None else ""


def _listen_error(config: Config) -> str:
    try:
        group_id(config.socket_group)
        allowed_peers(config)
    except ListenError as error:
        return str(error)
    return ""


def _certificate(config: Config, now_s: float) -> tuple[str, str]:
    try:
        files = tls_files(config.tls_cert, config.tls_key)
    except ConfigError as error:
        return str(error), ""
    return "", "" if files is None else files.warning(now_s) or ""


def _tokens_error(config: Config, user: User) -> str:
    path = config.tokens
    if path is None:
        return ""
    try:
        read_tokens(path)
    except ConfigError as error:
        # Somebody else than the relay's user may not read it, and should not.
        if os.geteuid() != user.uid and isinstance(error.__cause__, PermissionError):
            return ""
        return str(error)
    node = _node(path)
    if node is not None and not node.allows(user, 4):
        return f"the token file {path} belongs to another user (uid {node.uid}) than the relay's, which cannot read it"
    return ""


def _secrets(config: Config) -> tuple[list[Node], dict[str, Sequence[str]]]:
    """Return the config file if it holds secrets, and their kinds by its path."""
    node = None if config.config is None else _node(config.config)
    if node is None or config.config is None:
        return [], {}
    with suppress(OSError, ValueError, RecursionError):  # said when the settings are read
        words = secrets_in(tomllib.loads(read_config_file(config.config, regular_only=True).decode()))
        if words:
            return [node], {node.path: words}
    return [], {}


def _members(config: Config, user: User) -> int | None:
    """Count the users besides the relay's own in the group of the log socket, by their main group as well."""
    try:
        gid = group_id(config.socket_group)
        entry = grp.getgrgid(pwd.getpwuid(user.uid).pw_gid if gid is None else gid)
    except (KeyError, ListenError):
        return None
    own = {one.pw_name for one in pwd.getpwall() if one.pw_gid == entry.gr_gid}
    return len(({*entry.gr_mem} | own) - {user.name, "root"})


# --- sockets ----------------------------------------------------------------------------------------------------------


def _relay(config: Config, unit: UnitFacts | None) -> RunningRelay | None:
    """Ask whoever listens on the viewers' port whether it is a relay."""
    host, port = connectable(config.host), config.port
    for listened in () if unit is None else unit.listens:
        inherited, colon, number = listened.rpartition(":")
        if colon and number.isdigit():
            host, port = connectable(inherited.strip("[]") or "::"), int(number)
    address = Address(host, port, secure=config.tls_cert is not None, token=config.token, certificate=config.tls_cert)
    # A relay with other settings for TLS is one all the same. The token is not for whoever else it may be.
    stranger = replace(address, token=None, certificate=None)
    others = [replace(stranger, secure=True, any_certificate=True)]
    if address.secure:
        others.append(replace(stranger, secure=False))
    for one in (address, *others):
        source = RelaySource(one)
        try:
            answer = source.get("/healthz")
            body = answer.beginning(PROBE_BYTES, source.timeout_s)
        except NoRelayError as error:
            if isinstance(error.__cause__, ConnectionRefusedError | TimeoutError):
                break  # nobody is there, or nobody who answers
        except (ConfigError, OSError):
            pass  # the file of the certificate cannot be read, which is a finding of its own
        else:
            relay = _said(answer, body)
            if relay is not None:
                return replace(relay, tls=one.secure, other_certificate=address.secure and one.any_certificate)
            break
    return None


def _said(answer: Answer, body: bytes) -> RunningRelay | None:
    """Return what a relay says of itself; None: it is none that answers."""
    said = relay_facts(body)
    if said is not None:
        trouble = (said.get("journal") or {}).get("trouble")
        head = str(said.get("head") or "").rpartition("-")[0]
        return RunningRelay(str(said["version"]), str(said["epoch"]), trouble and str(trouble), head or None)
    if answer.status in (401, 403, 429) and (b"token" in body or b"relay" in body):
        return RunningRelay()
    return RunningRelay() if answer.status == 200 and not is_anothers(answer.status, body) else None


def _port(config: Config, unit: UnitFacts | None, *, relay_answers: bool) -> Port:
    if unit is not None and unit.listens:
        return Port("relay" if relay_answers else "free")
    try:
        for sock in bind_tcp(config.host, config.port):
            sock.close()
    except ListenError as error:
        cause = error.__cause__
        if not isinstance(cause, OSError) or cause.errno != errno.EADDRINUSE:
            if isinstance(cause, PermissionError) and unit is not None:
                return Port("free")  # the unit may have a right that whoever asks has not
            return Port("unusable", error=str(error))
        holders = processes.listeners(config.port)
        return Port("other" if not relay_answers else "relay", holders)
    return Port("free")


def _log_socket(path: str) -> LogSocket:
    absolute = Path(os.path.abspath(path))  # noqa: PTH100  (links are not followed: traders name this path)
    way = _way(absolute.parent)
    node = _node(str(absolute), follow=False)
    listening: bool | None = None
    if node is not None and stat.S_ISSOCK(node.mode):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(str(absolute))
            except ConnectionRefusedError:
                listening = False
            except BlockingIOError:
                listening = True
            except OSError:
                listening = None
            else:
                listening = True
    return LogSocket(node, way, listening)


def _is_socket(path: str) -> bool:
    node = _node(path)
    return node is not None and stat.S_ISSOCK(node.mode)


# --- files ------------------------------------------------------------------------------------------------------------


def _node(path: str, *, follow: bool = True) -> Node | None:
    try:
        status = os.stat(path, follow_symlinks=follow)  # noqa: PTH116
    except OSError:
        return None
    return Node(path, status.st_mode, status.st_uid, status.st_gid)


def _way(directory: Path) -> list[Node]:
    """Return the directories that lead to one, from the top, as far as they are there."""
    nodes = [_node(str(step)) for step in (*reversed(directory.parents), directory)]
    return [node for node in nodes if node is not None]


def _journal(config: Config, user: User) -> JournalFile:
    path = os.path.abspath(config.journal)  # noqa: PTH100  (links are looked at as links)
    way = _way(Path(path).parent)
    node = _node(path)
    system = os.statvfs(way[-1].path) if way else None
    kind = kind_of(path, MOUNTS)
    total = 0 if system is None else system.f_blocks * system.f_frsize
    size = sum(_size(path + end) for end in ("", "-wal", "-shm", "-lone"))
    refusal, newest, epoch, bots, made = _irregular(path), None, None, None, None
    if node is not None and not refusal:
        refusal, newest, epoch, bots, made = _content(path)
    return JournalFile(
        node=node,
        way=way,
        directory_there=Path(path).parent.is_dir(),
        refusal=refusal or _unsafe(path, user),
        held_by=_lock_holder(path + ".lock"),
        file_system=kind,
        waits_for_others=bool(kind) and kind not in LOCAL,
        total=total or None,
        free=None if system is None else system.f_bavail * system.f_frsize,
        size=size,
        keep_free=kept_free(config.keep_free, total),
        log_bytes=_size(path + "-wal"),
        log_share=log_share(min(config.keep_bytes, total or config.keep_bytes)),
        readers=list(map(str, readers_of(path, besides=os.getpid()))),
        newest_us=newest,
        epoch=epoch,
        bots=bots,
        made_us=made,
    )


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def _beside(path: str) -> list[Node]:
    nodes = [_node(path + end, follow=False) for end in ("", "-wal", "-shm", "-lone", ".lock")]
    return [node for node in nodes if node is not None]


def _irregular(path: str) -> str:
    """Return why none of a journal's files may be opened: opening a pipe would wait for ever."""
    for node in _beside(path):
        if not stat.S_ISREG(node.mode):
            return f"{node.path} is no regular file; the relay does not use it"
    return ""


def _unsafe(path: str, user: User) -> str:
    for node in _beside(path):
        if node.uid not in (user.uid, 0):
            return f"{node.path} belongs to uid {node.uid}, and the relay runs as {user.name} ({user.uid})"
        if node.mode & stat.S_IWOTH:
            return f"everybody may write to {node.path} (mode {node.rights})"
    return ""


def _lock_holder(path: str) -> int | None:
    """Return the process that holds the lock of a journal, 0 for one that is not known; None: nobody, or not seen."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        rows = os.pread(lock, 200, 0).decode("ascii", "replace").splitlines()
        return int(rows[1]) if len(rows) > 1 and rows[1].isdigit() else 0
    except OSError:
        return None
    finally:
        os.close(lock)
    return None


def _content(path: str) -> tuple[str, int | None, str | None, list[Bot] | None, int | None]:
    """Return why the file is refused, the time of its newest line, its epoch, its bots, and when it was made."""
    try:
        version = journal_file.version_of(path)
    except JournalError as error:
        return str(error), None, None, None, None
    if version is None:
        return "", None, None, None, None
    try:
        with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, timeout=SQLITE_WAIT_S)) as db:
            newest = db.execute("SELECT max_us FROM marks ORDER BY first DESC LIMIT 1").fetchone()
            last = db.execute("SELECT max(last) FROM marks").fetchone()
            meta = dict(db.execute("SELECT key, value FROM meta"))
            rows = db.execute("SELECT app, state, last_us, seen_us FROM runs ORDER BY seen_us").fetchall()
    except sqlite3.Error:
        return "", None, None, None, None  # damage and locks are told elsewhere: `check --verify-journal`
    epochs = opening_record.read(meta)
    bots = {str(app): Bot(str(app), str(state), last_us or None) for app, state, last_us, _ in rows}
    newest_us = newest[0] if newest else None
    for commit in _lone(path, str(meta.get("epoch")), last[0] or 0):
        newest_us = max([newest_us or 0, *(line.time_us for line in commit.lines)])
        bots |= {run.app: Bot(run.app, run.state, run.last_us or None) for run in commit.runs}
    epoch = epochs[-1].name if epochs else meta.get("epoch")
    made = int(meta["created_us"]) if str(meta.get("created_us", "")).isdigit() else None
    return "", newest_us, epoch and str(epoch), list(bots.values()), made


def _lone(path: str, epoch: str, head: int) -> list[Commit]:
    """Return what the relay has not handed over to SQLite yet; nothing where it cannot be read."""
    try:
        return lone_file.following(lone_file.read(path, checked=False), epoch, head)
    except (JournalError, OSError):
        return []


# --- machine ----------------------------------------------------------------------------------------------------------


def _clock_synchronised() -> bool | None:
    """Ask the kernel whether something keeps the clock; None where it does not say."""
    try:
        answer = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))
    except (OSError, AttributeError):
        return None
    return None if answer < 0 else bool(answer != TIME_ERROR)


def _packages() -> list[Package]:
    try:
        wanted = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    found = []
    for row in wanted:
        match = re.match(r"([A-Za-z0-9._-]+)>=([0-9.]+)(.*)", row.replace(" ", ""))
        if match is None or "extra==" in match[3]:
            continue
        try:
            version: str | None = metadata.version(match[1])
        except metadata.PackageNotFoundError:
            version = None
            if "uvloop" in row:
                continue  # everything works without it, only slower
        found.append(Package(match[1], version, match[2]))
    return found


def _descriptors(unit: UnitFacts | None) -> int | None:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1] if unit is None else _limit(unit, "LimitNOFILE")


def _limit(unit: UnitFacts | None, name: str) -> int | None:
    text = "" if unit is None else unit.shown.get(name, "")
    return int(text) if text.isdigit() and int(text) < 1 << 62 else None


def addresses(config: Config, listens: Sequence[str] = ()) -> tuple[str, str]:
    """Return the WebSocket URL and the page's, as they can be opened on this machine."""
    host, port = connectable(config.host), config.port
    for address in listens:
        inherited, colon, number = address.rpartition(":")
        if colon and number.isdigit():
            host, port = connectable(inherited.strip("[]") or "::"), int(number)
            break
    secure = "s" if config.tls_cert is not None else ""
    where = authority(host, port)
    return f"ws{secure}://{where}", f"http{secure}://{where}/"


def now_s() -> float:
    """Return the wall clock, in seconds since 1970."""
    return time.time()
