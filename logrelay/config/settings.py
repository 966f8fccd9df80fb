"""What the operator can set, in one table.

Owns: `SETTINGS` (the table behind the CLI options, the environment variables, the TOML keys and the page
docs/operations.md), and `Config`, which holds one value of each. It must not know where values are given, nor what any
part does with them. Pure. Read `config/loading` next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address

from logrelay.config import nats_url
from logrelay.config.alert_rules import AlertRule, alerts_type
from logrelay.config.alert_rules import public as public_rules
from logrelay.config.trade_names import ENTRY, TRADE_NAMES
from logrelay.config.value_types import (
    GIB,
    MIB,
    TIB,
    ValueType,
    address,
    choice,
    network,
    number,
    several,
    size,
    text,
    whole,
)

ENV_PREFIX = "LOGRELAY_"
OTHER_VARIABLES = (
    "LOGRELAY_DISABLED",
    "LOGRELAY_LEVEL",
    "LOGRELAY_EXCLUDE",
    "LOGRELAY_APP",
    "LOGRELAY_SPOOL",
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

_PATH = text(r"[^\0\r\n]+", "a path without NUL or line break", "PATH")
_MODE = text(
    r"0?[67][0-7]0",
    "an octal mode like 0660, in quotes in the file: read and write for the owner, nothing for others",
    "MODE",
)
_GROUP = text(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?", "the name or the number of a group", "GROUP")
_USER = text(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?", "the name or the number of a user", "USER")
_JOURNAL = text(r":memory:|(?!:)(?!.*://)[^\0\r\n]+", "a file path, or :memory:", "PATH|:memory:")
_TOKEN = text(
    # These pass unchanged through a header, a URL and the name of a subprotocol.
    r"[A-Za-z0-9._~-]{1,256}",
    "1 to 256 of the characters A-Z a-z 0-9 . _ ~ -",
    "TOKEN",
)
_NAME = text(r"[A-Za-z0-9._-]+", "a host name without port", "NAME")
_ORIGIN = text(
    r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#@\s,]+",
    "like http://localhost:8081 or capacitor://localhost, without a path",
    "ORIGIN",
)
_SECRET = text(r"[^\0\r\n]{1,1024}", "1 to 1024 characters without NUL or line break", "SECRET")
_NATS_URL = text(nats_url.PATTERN, nats_url.ALLOWED, "URL")
_SUBJECT_TOKEN = text(r"[A-Za-z0-9_-]{1,64}", "1 to 64 of the characters A-Z a-z 0-9 _ -", "NAME")
_TRADE_NAME = text(
    ENTRY, f"like fill=order.filled|order.closed, where fill may be {', '.join(TRADE_NAMES)}", "KIND=NAME|..."
)

_PUBLIC_URL = text(r"https?://[^\s?#]{1,250}", "a URL like https://bots.example.net, without ? or #", "URL")
_HEARTBEAT_URL = text(r"https?://[^\s\0]{1,2000}", "a URL that begins with http:// or https://", "URL")
_APP_NAME = text(r"[^\s,*?\[\]\0]{1,256}", "the name of a bot", "APP")

MAX_ALLOWED = 16
"""Entries of an allow list: each is compared with every request, and nobody types more by hand."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table."""

    name: str
    value_type: ValueType
    default: object
    """None: there is none, or `load` works it out; `default_text` tells which."""
    help: str
    """What it does, for `--help` and docs/operations.md."""
    reason: str
    """Why the default, or the bound, is what it is."""
    default_text: str = ""
    """The default in words; empty: `default` as its type shows it."""
    by_flag: bool = True
    """It has a CLI option."""
    by_file: bool = True
    """It has a key in the TOML file."""
    public: Callable[[object], object] | None = None
    """Returns what anybody may see of a value; None: all of it. Others are in no output and no error."""

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
        return self.default_text or self.value_type.show(self.default)


def _hidden(value: object) -> object:
    return None if value is None else "(set)"


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
        address(),
        "127.0.0.1",
        "Address the viewers' port listens on. 0.0.0.0: every one by IPv4; ::, every one by IPv6 and IPv4.",
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
        "socket_mode",
        _MODE,
        "0660",
        "Mode of that socket: whoever may write to it may send lines.",
        "The trader's user is in the socket's group. Rights for everybody are refused: name a group instead.",
    ),
    Setting(
        "socket_group",
        _GROUP,
        None,
        "Group of that socket, and of its directory where the relay makes it, by name or number.",
        "The relay's user has to be a member of it; a number also works for a group of a container.",
        default_text="that of the relay",
    ),
    Setting(
        "allow_uid",
        several(_USER, MAX_ALLOWED),
        (),
        "Users that may connect to that socket, by name or number, besides root and the relay's own.",
        "For a socket that more may open than are to log; the kernel says who connects, of a tunnel its end here.",
        default_text="whoever may open the socket",
    ),
    Setting(
        "allow_gid",
        several(_GROUP, MAX_ALLOWED),
        (),
        "Groups whose members may connect to it as well, by name or number.",
        "With any of both lists, everybody else is refused, told so and counted.",
        default_text="whoever may open the socket",
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
        "Secret that a viewer must show, without limits. There is no option for it: options are visible in ps.",
        "Once host is not loopback it is needed, or a token file is; one that can be guessed (under 16 characters, "
        "repeated, well-known) is taken on loopback only.",
        default_text="none",
        by_flag=False,
        public=_hidden,
    ),
    Setting(
        "tokens",
        _PATH,
        None,
        "File of the tokens that logrelay token makes. While there is one, every viewer must show a token.",
        "Where the relay's user may write: it notes there when each was used. With :memory: there is none by itself.",
        default_text="tokens.json beside the journal",
    ),
    Setting(
        "allow_hosts",
        several(_NAME, MAX_ALLOWED),
        (),
        "More names that may stand in the Host header while there is no token.",
        "A name in Host may be DNS rebinding; list one that this machine gives itself. A proxy needs a token instead.",
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
        "trusted_proxy",
        several(network(), MAX_ALLOWED),
        (),
        "Proxies whose Forwarded and X-Forwarded-For headers are believed, so that limits count the real client.",
        "Anybody can write these headers, so nobody's are believed unless it is listed. A proxy needs a token, too.",
        default_text="none",
    ),
    Setting(
        "tls_cert",
        _PATH,
        None,
        "PEM file with the certificate chain: the viewers' port speaks TLS, https:// and wss://.",
        "Without it the port is plain text, which is well on loopback. SIGHUP reads both files again.",
        default_text="none",
    ),
    Setting(
        "tls_key",
        _PATH,
        None,
        "PEM file with the certificate's key, without a passphrase; mode 0640 at most.",
        "Whoever reads the key can pose as the relay.",
        default_text="none",
    ),
    Setting(
        "sync",
        choice("normal", "full"),
        "normal",
        "full: every commit waits for the disk.",
        "normal survives a crash of the relay; only a power cut can take back the last 5 seconds.",
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
        "keep_free",
        size(MIB, 64 * TIB, zero=True),
        None,
        "The oldest lines are deleted when less of the file system than this is free. 0: they never are.",
        "A full disk stops the bot, too. Lines go for the room of others until a quarter of keep_bytes is left.",
        default_text="a twentieth of the file system, at most 256MiB",
    ),
    Setting(
        "text_index",
        choice("on", "off"),
        "on",
        "An index for texts and fields, made behind the head; without it they are looked for in every line.",
        "A search of ten million lines takes a fraction of a second instead of many; it takes a tenth of the journal.",
    ),
    Setting(
        "tail",
        whole(0, 100_000),
        100,
        "Lines a new viewer gets first, unless it asks for another number.",
        "The mobile app shows them in 0.3 s where 500 took 4.5 s; it keeps 500 rows, and follows new ones until it has "
        "that many (docs/benchmarks.md). The web viewer asks for its own number.",
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
        "device_window",
        number(1, 30 * 86400, "seconds"),
        600.0,
        "Seconds within which a viewer that names its device (?device=NAME) goes on where it was. 0: always anew.",
        "A tunnel, a lift, a night's update; who was away for longer wants the newest lines first.",
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
        "trades",
        several(_TRADE_NAME, len(TRADE_NAMES)),
        (),
        "Which messages and context fields of the bots are about trades, for the page's trades.",
        "The page guesses nothing. Kinds that are not named keep the paper trader's names; see GET /trade-names.",
        default_text="the names of the paper trader",
    ),
    Setting(
        "forward",
        several(_NATS_URL, MAX_ALLOWED),
        (),
        "NATS servers to whose JetStream every committed line goes; several of one cluster are tried in turn.",
        "For one view of many machines, see docs/machines.md. A password in it is better kept in nats_password.",
        default_text="none",
        public=nats_url.public,
    ),
    Setting(
        "collect",
        several(_NATS_URL, MAX_ALLOWED),
        (),
        "NATS servers from whose JetStream the lines of other machines come; several of one cluster are tried in turn.",
        "Makes this relay a hub relay: its viewers see the bots of all machines, see docs/machines.md.",
        default_text="none",
        public=nats_url.public,
    ),
    Setting(
        "edge_name",
        _SUBJECT_TOKEN,
        None,
        "Name of this machine among all that forward to the same stream; two with one name are refused in turn.",
        "A token of a NATS subject, which permissions can be given by.",
        default_text="the host name, with - for what may not stand in it",
    ),
    Setting(
        "nats_stream",
        _SUBJECT_TOKEN,
        "LOGRELAY",
        "JetStream stream that the lines go through. One that is missing is made, if the user may.",
        "One for all edges: a hub relay reads them all in one order.",
    ),
    Setting(
        "nats_replicas",
        whole(1, 5),
        1,
        "Servers of a cluster that keep the stream, where the relay makes it.",
        "1 is what a single server can do; 3 in a cluster of three, so that one may burn.",
    ),
    Setting(
        "nats_creds",
        _PATH,
        None,
        "Credentials file (JWT and seed) for NATS.",
        "One of nats_creds, nats_nkey, nats_token, and nats_user with nats_password says who the relay is there.",
        default_text="none",
    ),
    Setting(
        "nats_nkey",
        _PATH,
        None,
        "File with the nkey seed for NATS.",
        "The seed never leaves the machine: the server only sees signatures.",
        default_text="none",
    ),
    Setting(
        "nats_user",
        _SECRET,
        None,
        "User name at the NATS servers.",
        "Goes with nats_password; both may stand in the URL instead.",
        default_text="none",
        by_flag=False,
    ),
    Setting(
        "nats_password",
        _SECRET,
        None,
        "Password at the NATS servers. There is no option for it: options are visible in ps.",
        "Goes to the server as it is: use tls:// beyond loopback.",
        default_text="none",
        by_flag=False,
        public=_hidden,
    ),
    Setting(
        "nats_token",
        _SECRET,
        None,
        "Token at the NATS servers. There is no option for it: options are visible in ps.",
        "Goes to the server as it is: use tls:// beyond loopback.",
        default_text="none",
        by_flag=False,
        public=_hidden,
    ),
    Setting(
        "nats_tls_ca",
        _PATH,
        None,
        "PEM file with the authority that the NATS servers' certificates are held to; nothing goes without TLS then.",
        "For an authority of your own.",
        default_text="those of the system",
    ),
    Setting(
        "nats_tls_cert",
        _PATH,
        None,
        "PEM file with the certificate that the relay shows to the NATS servers.",
        "Where they ask for one (verify: true).",
        default_text="none",
    ),
    Setting(
        "nats_tls_key",
        _PATH,
        None,
        "PEM file with its key, without a passphrase.",
        "Whoever reads the key can pose as the relay.",
        default_text="none",
    ),
    Setting(
        "alert",
        alerts_type(),
        (),
        "Service that makes the owner's phone ring, as an Apprise URL; repeatable. In the file, rules of one's own.",
        "With a URL alone: crashes, bots that are gone or quiet, errors, gaps, trouble; see docs/alerts.md. A URL is "
        "mostly a secret, and options are visible in ps: the variable or the file is better.",
        default_text="none",
        public=public_rules,
    ),
    Setting(
        "public_url",
        _PUBLIC_URL,
        None,
        "URL of the page as the owner's phone reaches it, for the links in alerts.",
        "The address that the relay listens on is often not the one of a VPN or a proxy.",
        default_text="that of the page",
    ),
    Setting(
        "heartbeat",
        _HEARTBEAT_URL,
        None,
        "URL that gets a GET again and again while all is well, for a service that tells when none comes.",
        "A relay, or a machine, that is dead can tell nobody. The URL is a secret: the variable or the file is better.",
        default_text="none",
        public=_hidden,
    ),
    Setting(
        "heartbeat_every",
        number(10, 86400, "seconds"),
        60.0,
        "Seconds between two of them.",
        "The service waits for some of them before it rings; a minute is what most of them reckon with.",
    ),
    Setting(
        "expect",
        several(_APP_NAME, MAX_ALLOWED),
        (),
        "Bots that should always be connected: without them no heartbeat is sent, and alerts say that one is gone.",
        "A bot that ended in order is no trouble otherwise.",
        default_text="none",
    ),
    Setting(
        "log_level",
        choice("debug", "info", "warning", "error"),
        "warning",
        "Which of the relay's own notices are also said on stderr.",
        "They are in the stream anyway; info adds traders coming and going, and debug, which other programs have, is "
        "the same. Nothing is ever said per log line.",
    ),
)

BY_NAME: dict[str, Setting] = {setting.name: setting for setting in SETTINGS}


@dataclass(frozen=True, slots=True)
class Config:
    """Every setting, ready to use. The constructor only holds values; `loading.load` checks them."""

    socket: str
    """Absolute or relative path, at most `SUN_PATH_MAX_BYTES` bytes."""
    journal: str
    """Path, or `MEMORY`."""
    socket_mode: str = "0660"
    """Octal digits."""
    socket_group: str | None = None
    """Name or number; None: the relay's own group."""
    allow_uid: tuple[str, ...] = ()
    """Names or numbers; with `allow_gid` empty as well: whoever may open the socket."""
    allow_gid: tuple[str, ...] = ()
    config: str | None = None
    host: str = "127.0.0.1"
    port: int = 8765
    token: str | None = field(default=None, repr=False)
    tokens: str | None = None
    """Path of the token file, which need not exist; None: there is none."""
    allow_hosts: tuple[str, ...] = ()
    allow_origins: tuple[str, ...] = ()
    trusted_proxy: tuple[str, ...] = ()
    tls_cert: str | None = None
    tls_key: str | None = None
    sync: str = "normal"
    keep_days: float = 7.0
    """Days; 0: no limit."""
    keep_bytes: int = GIB
    """Bytes."""
    keep_free: int | None = None
    """Bytes; 0: never, None: a share of the file system."""
    text_index: str = "on"
    tail: int = 100
    """Lines."""
    max_lag: int = 200_000
    """Lines."""
    quiet_after: float = 60.0
    """Seconds; 0: never."""
    device_window: float = 600.0
    """Seconds; 0: a device begins anew each time."""
    max_viewers: int = 4096
    max_traders: int = 256
    compression: str = "auto"
    trades: tuple[str, ...] = ()
    forward: tuple[str, ...] = field(default=(), repr=False)
    """URLs, perhaps with a password in them."""
    collect: tuple[str, ...] = field(default=(), repr=False)
    """The same."""
    edge_name: str | None = None
    """None: made of the host name."""
    nats_stream: str = "LOGRELAY"
    nats_replicas: int = 1
    nats_creds: str | None = None
    nats_nkey: str | None = None
    nats_user: str | None = None
    nats_password: str | None = field(default=None, repr=False)
    nats_token: str | None = field(default=None, repr=False)
    nats_tls_ca: str | None = None
    nats_tls_cert: str | None = None
    nats_tls_key: str | None = None
    alert: tuple[AlertRule, ...] = field(default=(), repr=False)
    public_url: str | None = None
    heartbeat: str | None = field(default=None, repr=False)
    heartbeat_every: float = 60.0
    """Seconds."""
    expect: tuple[str, ...] = ()
    log_level: str = "warning"


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


def authority(host: str, port: int) -> str:
    """Return host and port as they stand in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def connectable(host: str) -> str:
    """Return the address at which this machine reaches what listens on `host`: loopback where it listens on all."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"
