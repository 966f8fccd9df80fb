"""What the operator can set, in one table.

Owns: `SETTINGS` (the table behind the CLI options, the environment variables, the TOML keys and the page
docs/operations.md), `Config`, and `load`, which turns what was given into one frozen `Config`. It must not
know what any part does with a value, and it touches nothing: the environment, the file reader and the
directory test are arguments. `kinds` and `errors` lie below. Read `daemon` next to see the values used.

A flag beats the environment, the environment beats the file, the file beats the default.
An empty environment variable counts as not set.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from ipaddress import ip_address
from typing import Any

from logrelay.config.value_types import GIB, MIB, TIB, Kind, choice, number, several, size, text, whole
from logrelay.errors import ConfigError

ENV_PREFIX = "LOGRELAY_"
OTHER_VARIABLES = (
    "LOGRELAY_DISABLED",
    "LOGRELAY_LEVEL",
    "LOGRELAY_EXCLUDE",
    "LOGRELAY_REDACT_ALLOW",
    "LOGRELAY_REDACT_DENY",
    "LOGRELAY_REDACT_PERSONAL",
    "LOGRELAY_CI",
)
"""Variables of that prefix that are no settings of the relay: the trader's own, and CI's strictness."""

MEMORY = ":memory:"
"""The journal that keeps nothing beyond the life of the process."""

SUN_PATH_MAX_BYTES = 107
"""Linux: `sun_path` of an AF_UNIX address has 108 bytes, one of which is the closing NUL."""

SHOWN_CHARS = 60
"""How much of a wrong value an error repeats: enough to recognise it, not enough to flood a terminal."""

_PATH = text(r"[^\0\r\n]+", "a path without NUL or line break", "PATH")
_JOURNAL = text(r":memory:|(?!:)(?!.*://)[^\0\r\n]+", "a file path, or :memory:", "PATH|:memory:")
_HOST = text(r"[A-Za-z0-9._:%-]+", "an IP address or a host name", "ADDRESS")
_TOKEN = text(
    # These pass unchanged through a header, a URL and the name of a subprotocol.
    r"[A-Za-z0-9._~-]{1,256}",
    "1 to 256 of the characters A-Z a-z 0-9 . _ ~ -",
    "TOKEN",
)
_NAME = text(r"[A-Za-z0-9._-]+", "a host name without port", "NAME")
_ORIGIN = text(r"https?://[^/?#@\s,]+", "like http://localhost:8081, without a path", "ORIGIN")

GOOD_TOKEN_CHARS = 16
"""Some 90 random bits. A shorter token is taken, because it is better than none, but not in silence."""

MAX_ALLOWED = 16
"""Entries of an allow list: each is compared with every request, and nobody types more by hand."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table."""

    name: str
    kind: Kind
    default: object
    """None: there is none, or `load` works it out; `default_text` says which."""
    help: str
    """What it does, for `--help` and docs/operations.md."""
    reason: str
    """Why the default, or the bound, is what it is."""
    default_text: str = ""
    by_flag: bool = True
    by_file: bool = True

    @property
    def flag(self) -> str:
        """The CLI option."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return ENV_PREFIX + self.name.upper()

    @property
    def shown_default(self) -> str:
        """The default as a person writes it."""
        return self.default_text or self.kind.show(self.default)


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "config",
        _PATH,
        None,
        "TOML file to read settings from.",
        "No file is looked for: what runs is what was asked for.",
        default_text="none",
        by_file=False,
    ),
    Setting(
        "host",
        _HOST,
        "127.0.0.1",
        "Address the viewers' port listens on.",
        "Loopback until the operator decides otherwise; any other address needs a token.",
    ),
    Setting(
        "port",
        whole(0, 65535),
        8765,
        "Port for viewers, WebSocket and HTTP. 0 takes any free port.",
        "The port the mobile app connects to.",
    ),
    Setting(
        "socket",
        _PATH,
        None,
        "Unix socket where traders connect.",
        "The trader looks in the same places in the same order, so neither has to be told.",
        default_text="/run/logrelay/ingest.sock if /run/logrelay exists, "
        "else $XDG_RUNTIME_DIR/logrelay/ingest.sock, else ${TMPDIR:-/tmp}/logrelay-UID/ingest.sock",
    ),
    Setting(
        "journal",
        _JOURNAL,
        None,
        "SQLite file that keeps the lines. :memory: keeps nothing after the process ends.",
        "Where the service manager, else the desktop convention, puts state.",
        default_text="$STATE_DIRECTORY/journal.db, else $XDG_STATE_HOME/logrelay/journal.db, "
        "else ~/.local/state/logrelay/journal.db",
    ),
    Setting(
        "token",
        _TOKEN,
        None,
        "Secret that every viewer must show. There is no option for it: options are visible in ps.",
        "Needed as soon as host is not loopback; under 16 characters it can be guessed, "
        "and the relay says so at the start.",
        default_text="none",
        by_flag=False,
    ),
    Setting(
        "allow_hosts",
        several(_NAME, MAX_ALLOWED),
        (),
        "More names that may stand in the Host header while there is no token.",
        "A name in Host may be DNS rebinding; list the name that a reverse proxy here passes on.",
        default_text="none",
    ),
    Setting(
        "allow_origins",
        several(_ORIGIN, MAX_ALLOWED),
        (),
        "More web origins that may connect, besides the relay's own page.",
        "A page from elsewhere is refused; list the development server of a web build of the app.",
        default_text="none",
    ),
    Setting(
        "sync",
        choice("normal", "full"),
        "normal",
        "full: every commit waits for the disk.",
        "normal survives a crash of the relay; only a power cut can take back the last moments.",
    ),
    Setting(
        "keep_days",
        number(0.001, 36500, "days"),
        7.0,
        "Lines older than this many days are deleted. 0: no limit by age.",
        "A week covers the weekend after the trade that somebody asks about.",
    ),
    Setting(
        "keep_bytes",
        size(MIB, 64 * TIB),
        GIB,
        "The oldest lines are deleted when the journal is larger than this.",
        "Some millions of lines, and a small disk still has room; under 1MiB there is too little to replay.",
    ),
    Setting(
        "tail",
        whole(0, 100_000),
        500,
        "Lines a new viewer gets first, unless it asks for another number.",
        "What the mobile app can hold.",
    ),
    Setting(
        "max_lag",
        whole(1, 10**9),
        200_000,
        "Lines a viewer may be behind before it is skipped forward, with a gap notice.",
        "Minutes of a very busy trader: whoever is further behind had better read the history.",
    ),
    Setting(
        "quiet_after",
        number(0.1, 86400, "seconds"),
        60.0,
        "Seconds without a line after which a trader is called quiet. 0: never.",
        "Most bots say something at least once a minute.",
    ),
    Setting(
        "max_viewers",
        whole(1, 100_000),
        4096,
        "Viewers connected at once; more are refused.",
        "Each costs a file descriptor and some kernel memory.",
    ),
    Setting(
        "max_traders",
        whole(1, 4096),
        256,
        "Traders connected at once; more are refused.",
        "Each may hold a frame of up to a megabyte while it is read.",
    ),
    Setting(
        "compression",
        choice("auto", "on", "off"),
        "auto",
        "permessage-deflate for viewers. auto: for those that are not on loopback.",
        "On loopback bytes cost nothing, and compressing them does.",
    ),
    Setting(
        "log_level",
        choice("info", "warning", "error"),
        "warning",
        "Which of the relay's own notices are also said on stderr.",
        "They are in the stream anyway; info adds traders coming and going. Nothing is ever said per log line.",
    ),
)

BY_NAME: dict[str, Setting] = {setting.name: setting for setting in SETTINGS}


@dataclass(frozen=True, slots=True)
class Config:
    """Every setting, ready to use. The constructor only holds values; `load` is what checks them."""

    socket: str
    """Absolute or relative path, at most `SUN_PATH_MAX_BYTES` bytes."""
    journal: str
    """Path, or `MEMORY`."""
    config: str | None = None
    host: str = "127.0.0.1"
    port: int = 8765
    token: str | None = field(default=None, repr=False)
    allow_hosts: tuple[str, ...] = ()
    allow_origins: tuple[str, ...] = ()
    sync: str = "normal"
    keep_days: float = 7.0
    """Days; 0: no limit."""
    keep_bytes: int = GIB
    tail: int = 500
    max_lag: int = 200_000
    """Lines."""
    quiet_after: float = 60.0
    """Seconds; 0: never."""
    max_viewers: int = 4096
    max_traders: int = 256
    compression: str = "auto"
    log_level: str = "warning"


@dataclass(frozen=True, slots=True)
class Effective:
    """What `load` found: the values, where each came from, and what looks like a setting but is none."""

    config: Config
    origins: Mapping[str, str]
    """By setting name: `--port`, `LOGRELAY_PORT`, `port in FILE`, or `default`."""
    unknown_variables: tuple[str, ...]
    """`LOGRELAY_*` variables nobody reads, most likely misspelt; `logrelay check` shows them."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What `load` may look at. Plain values and two questions, so that a test can answer them."""

    environ: Mapping[str, str]
    uid: int
    is_directory: Callable[[str], bool]
    read_file: Callable[[str], bytes]
    """Whole content of a file; may raise OSError."""


def load(flags: Mapping[str, str | None], around: Surroundings) -> Effective:
    """Work out every setting. `flags` maps setting names to what was typed; None or absent: not given.

    Raises ConfigError saying what was given, where, and what is allowed. Opens nothing but the config file.
    """
    found: dict[str, object] = {}
    origins: dict[str, str] = {}

    def take(setting: Setting, where: str, read: Callable[[Any], object], given: object) -> None:
        try:
            found[setting.name] = read(given)
        except ValueError:
            shown = "hidden here" if setting is BY_NAME["token"] else _short(given)  # a secret stays out of logs
            raise ConfigError(f"{where} is {shown}; allowed: {setting.kind.allowed}") from None
        origins[setting.name] = where

    for setting in SETTINGS:
        typed = flags.get(setting.name)
        variable = around.environ.get(setting.variable, "")
        if typed is not None:
            take(setting, setting.flag, setting.kind.from_text, typed)
        elif variable:
            take(setting, setting.variable, setting.kind.from_text, variable)
    path = found.get("config")
    if isinstance(path, str):
        for name, value in _file_values(path, around).items():
            setting = BY_NAME[name]
            if name not in found:
                take(setting, f"{name} in {path}", setting.kind.from_toml, value)
    for setting in SETTINGS:
        origins.setdefault(setting.name, "default")
    found.setdefault("socket", default_socket(around.environ, around.uid, around.is_directory))
    found.setdefault("journal", default_journal(around.environ))
    for name in ("socket", "journal"):
        found[name] = _expand_home(str(found[name]), around.environ)
    # Each kind returns the type of its field; a test holds the table and the class together.
    config = Config(**found)  # type: ignore[arg-type]
    _check_socket_length(config.socket, origins["socket"])
    require_token(config.host, config.token, origins["host"])
    known = {setting.variable for setting in SETTINGS} | set(OTHER_VARIABLES)
    unknown = tuple(sorted(n for n in around.environ if n.startswith(ENV_PREFIX) and n not in known))
    return Effective(config, origins, unknown)


def _file_values(path: str, around: Surroundings) -> dict[str, object]:
    try:
        values = tomllib.loads(around.read_file(path).decode())
    except OSError as error:
        raise ConfigError(f"config file {path} cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {path} is not valid TOML: {error}") from None
    allowed = [setting.name for setting in SETTINGS if setting.by_file]
    for key in values:
        if key not in allowed:
            near = get_close_matches(key.replace("-", "_"), allowed, n=1)
            hint = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(allowed)}"
            raise ConfigError(f"{_short(key)} in {path} is not a setting; {hint}")
    return values


def default_socket(environ: Mapping[str, str], uid: int, is_directory: Callable[[str], bool]) -> str:
    """Return where the socket is when nobody said: the order of docs/protocol.md, section 1.

    `$LOGRELAY_SOCKET` is the first of that order, so this is the trader's answer too.
    """
    if environ.get("LOGRELAY_SOCKET"):
        return environ["LOGRELAY_SOCKET"]
    if is_directory("/run/logrelay"):
        return "/run/logrelay/ingest.sock"
    if environ.get("XDG_RUNTIME_DIR"):
        return environ["XDG_RUNTIME_DIR"] + "/logrelay/ingest.sock"
    # In a directory of its own, which its maker gives the mode 0700.
    return f"{environ.get('TMPDIR') or '/tmp'}/logrelay-{uid}/ingest.sock"  # noqa: S108


def default_journal(environ: Mapping[str, str]) -> str:
    """Return where the journal is when nobody said. `$STATE_DIRECTORY` may list several: the first."""
    if environ.get("STATE_DIRECTORY"):
        return environ["STATE_DIRECTORY"].split(":")[0] + "/journal.db"
    state = environ.get("XDG_STATE_HOME") or "~/.local/state"
    return state + "/logrelay/journal.db"


def is_loopback(host: str) -> bool:
    """Tell whether an address can only be reached from this machine. No name but localhost counts."""
    if host.lower() == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def require_token(host: str, token: str | None, where: str) -> None:
    """Raise ConfigError if `host`, an address about to be listened on, needs a token and there is none.

    `where` says who chose the address. Also to be asked about every inherited TCP socket.
    """
    if token is None and not is_loopback(host):
        raise ConfigError(
            f"{where} is {_short(host)}, which is not loopback: whoever reaches it could read the log, so a "
            "token is needed. Make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(32))' "
            "and set it as LOGRELAY_TOKEN or as token in the config file; or listen on 127.0.0.1"
        )


def _check_socket_length(path: str, where: str) -> None:
    length = len(path.encode("utf-8", "surrogateescape"))
    if length > SUN_PATH_MAX_BYTES:
        raise ConfigError(
            f"socket path {_short(path)} ({where}) has {length} bytes; "
            f"allowed: at most {SUN_PATH_MAX_BYTES}. "
            "Choose a shorter one with --socket"
        )


def _expand_home(path: str, environ: Mapping[str, str]) -> str:
    if not path.startswith("~/"):
        return path
    if not environ.get("HOME"):
        raise ConfigError(f"{path} cannot be resolved: HOME is not set. Give a full path with --journal and --socket")
    return environ["HOME"] + path[1:]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 3] + "..."
