"""How the settings of one process are worked out: flags, environment, file, defaults, and the checks across settings.

Owns: `load`, which turns what was given into one frozen `Config`, the default places of socket and journal, and the
rule that beyond loopback a good token is needed. It touches nothing: the environment, the file reader and the tests for
files and directories are arguments. It must not know what any part does with a value. Read `config_file` next.

A flag beats the environment, the environment beats the file, the file beats the default.
An empty environment variable counts as not set.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from logrelay.config.alert_rules import UnknownKeyError
from logrelay.config.settings import (
    BY_NAME,
    ENV_PREFIX,
    MEMORY,
    OTHER_VARIABLES,
    SETTINGS,
    SUN_PATH_MAX_BYTES,
    Config,
    Setting,
    is_loopback,
)
from logrelay.config.weak_tokens import GOOD_TOKEN_CHARS, weakness
from logrelay.errors import ConfigError

OPEN_MODE_BITS = 0o037
"""What the mode of a config file with a secret should not have: nothing for others, and no writing for its group. A
group may read, as with the key of a certificate."""

SECRETS = {
    "token": "a token",
    "nats_password": "the password at the NATS servers",
    "nats_token": "the token at the NATS servers",
    "forward": "a secret in a NATS URL",
    "collect": "a secret in a NATS URL",
    "alert": "the URLs of alerts",
    "heartbeat": "the URL of the heartbeat",
}
"""What a config file is private for, in the words of the warning: every setting of which not all may be shown."""

SHOWN_CHARS = 60
"""How much of a wrong value an error repeats: enough to recognise it, not enough to flood a terminal."""

_config_of: Callable[..., Config] = Config
"""Config, called with values that are known by name only: each `ValueType` gives the type of its field, and a test
holds the table and the class together."""


@dataclass(frozen=True, slots=True)
class Effective:
    """What `load` found: the values, where each came from, and what looks like a setting but is none."""

    config: Config
    origins: Mapping[str, str]
    """By setting name: `--port`, `LOGRELAY_PORT`, `port in FILE`, or `default`."""
    unknown_variables: tuple[str, ...]
    """`LOGRELAY_*` variables nobody reads, most likely misspelt; `logrelay check` shows them."""
    warnings: tuple[str, ...] = ()
    """What is allowed, and most likely not meant: a sentence each, for stderr."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What `load` may look at. Values and functions, so that a test needs no machine of its own."""

    environ: Mapping[str, str]
    uid: int
    is_directory: Callable[[str], bool]
    read_file: Callable[[str], bytes]
    """Whole content of a file; may raise OSError."""
    is_file: Callable[[str], bool] = lambda _path: False
    """Tells whether something is there; asked about the token file."""
    file_mode: Callable[[str], int] = lambda _path: 0
    """Permission bits of a file; 0 where they are not known. Asked about the config file."""


def load(flags: Mapping[str, str | None], around: Surroundings, *, serving: bool = True) -> Effective:
    """Work out every setting. `flags` maps setting names to what was typed; None or absent: not given.

    Without `serving` it is not asked whether the address needs a token.
    Raises ConfigError saying what was given, where, and what is allowed. Opens nothing but the config file.
    """
    found: dict[str, object] = {}
    origins: dict[str, str] = {}

    def take(setting: Setting, where: str, read: Callable[[Any], object], given: object) -> None:
        try:
            found[setting.name] = read(given)
        except UnknownKeyError as error:
            raise ConfigError(f"{where}: {error}{_table_hint(error.key)}") from None
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
        except ValueError:
            # A secret stays out of logs.
            shown = "not valid (its value is not shown)" if setting.public is not None else _short(given)
            raise ConfigError(f"{where} is {shown}; allowed: {setting.value_type.allowed}") from None
        origins[setting.name] = where

    for setting in SETTINGS:
        typed = flags.get(setting.name)
        variable = around.environ.get(setting.variable, "")
        if typed is not None:
            take(setting, setting.flag, setting.value_type.from_text, typed)
        elif variable:
            take(setting, setting.variable, setting.value_type.from_text, variable)
    path = found.get("config")
    warnings: list[str] = []
    if isinstance(path, str):
        values = _file_values(path, around)
        warnings += _warnings_of_file(path, values, around.file_mode(path))
        for name, value in values.items():
            setting = BY_NAME[name]
            if name not in found:
                take(setting, f"{name} in {path}", setting.value_type.from_toml, value)
    for setting in SETTINGS:
        origins.setdefault(setting.name, "default")
    found.setdefault("socket", default_socket(around.environ, around.uid, around.is_directory))
    found.setdefault("journal", default_journal(around.environ))
    for name in ("socket", "journal"):
        found[name] = _expand_home(str(found[name]), around.environ)
    found.setdefault("tokens", default_tokens(str(found["journal"])))
    if isinstance(found["tokens"], str):
        found["tokens"] = _expand_home(found["tokens"], around.environ)
    config = _config_of(**found)
    _check_socket_length(config.socket, origins["socket"])
    _check_nats(config)
    if serving:
        has_file = config.tokens is not None and around.is_file(config.tokens)
        require_token(config.host, config.token, origins["host"], has_file=has_file)
    known = {setting.variable for setting in SETTINGS} | set(OTHER_VARIABLES)
    unknown = tuple(sorted(n for n in around.environ if n.startswith(ENV_PREFIX) and n not in known))
    return Effective(config, origins, unknown, tuple(warnings))


def _file_values(path: str, around: Surroundings) -> dict[str, object]:
    try:
        values = tomllib.loads(around.read_file(path).decode())
    except OSError as error:
        raise ConfigError(f"config file {path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # of TOML, of UTF-8, or of a number with thousands of digits
        raise ConfigError(f"config file {path} is not valid TOML: {error}") from None
    except RecursionError:
        raise ConfigError(f"config file {path} is not valid TOML: its brackets are nested too deeply") from None
    allowed = [setting.name for setting in SETTINGS if setting.by_file]
    for key in values:
        if key not in allowed:
            near = get_close_matches(key.replace("-", "_"), allowed, n=1)
            hint = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(allowed)}"
            raise ConfigError(f"{_short(key)} in {path} is not a setting; {hint}")
    return values


def _table_hint(key: str) -> str:
    """Say what somebody may have meant by a key in the table of a rule that is none of its own."""
    near = get_close_matches(key.replace("-", "_"), [setting.name for setting in SETTINGS if setting.by_file], n=1)
    if not near:
        return ""
    what = f"{near[0]} is" if key == near[0] else f"if {near[0]} was meant, that is"
    return (
        f"; {what} a setting of the relay, and in TOML every line below [[alert]] belongs to that rule: "
        "put it above the first [[alert]]"
    )


def unknown_variable_hint(variable: str) -> str:
    """Say what somebody may have meant by a `LOGRELAY_` variable that nobody reads."""
    names = [setting.variable.removeprefix(ENV_PREFIX) for setting in SETTINGS]
    near = get_close_matches(variable.removeprefix(ENV_PREFIX), names, n=1)
    return f"did you mean {ENV_PREFIX}{near[0]}?" if near else "see logrelay serve --help"


def _warnings_of_file(path: str, values: Mapping[str, object], mode: int) -> list[str]:
    secrets = secrets_in(values)
    if not secrets or not mode & OPEN_MODE_BITS:
        return []
    token = ", and whoever knows the token can read the log" if "token" in values else ""
    warning = (
        f"the config file {path} has {' and '.join(secrets)} in it and mode {mode:04o}, so others can read or change "
        f"it{token}. Do: chmod 600 {path}"
    )
    return [warning]


def secrets_in(values: Mapping[str, object]) -> list[str]:
    """Return the kinds of secrets among values, by the names of their settings, in the words of a warning."""
    return list(dict.fromkeys(words for name, words in SECRETS.items() if _is_secret(name, values.get(name))))


def _is_secret(name: str, value: object) -> bool:
    """Tell whether the value of one of `SECRETS`, as it stands in the file, is to be kept from others."""
    if name not in ("forward", "collect"):
        return bool(value)
    # What is no URL of a server is refused where it counts; here it may be overridden.
    value = value.replace(",", " ").split() if isinstance(value, str) else value  # of a variable
    return isinstance(value, list) and any("@" in url for url in value if isinstance(url, str))


def default_socket(environ: Mapping[str, str], uid: int, is_directory: Callable[[str], bool]) -> str:
    """Return where the socket is when it was not set: the order of docs/protocol.md, section 1.

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


def trader_places(environ: Mapping[str, str], uid: int) -> tuple[str, ...]:
    """Return where a trader with this environment looks for the relay, in order: it takes the first socket it finds.

    `default_socket` is always among them, also for traders of the same user whose environment lacks XDG_RUNTIME_DIR or
    TMPDIR, as under cron. The trader has this list too (docs/protocol.md, section 1); a test holds them together.
    """
    if environ.get("LOGRELAY_SOCKET"):
        return (environ["LOGRELAY_SOCKET"],)
    runtime = [environ["XDG_RUNTIME_DIR"]] if environ.get("XDG_RUNTIME_DIR") else []
    temporary = [environ["TMPDIR"]] if environ.get("TMPDIR") else []
    directories = [
        "/run/logrelay",
        *(f"{base}/logrelay" for base in (*runtime, f"/run/user/{uid}")),
        *(f"{base}/logrelay-{uid}" for base in (*temporary, "/tmp")),  # noqa: S108
    ]
    return tuple(dict.fromkeys(f"{directory}/ingest.sock" for directory in directories))


def default_journal(environ: Mapping[str, str]) -> str:
    """Return where the journal is when it was not set. `$STATE_DIRECTORY` may list several: the first."""
    if environ.get("STATE_DIRECTORY"):
        return environ["STATE_DIRECTORY"].split(":")[0] + "/journal.db"
    state = environ.get("XDG_STATE_HOME") or "~/.local/state"
    return state + "/logrelay/journal.db"


def default_tokens(journal: str) -> str | None:
    """Return where the token file is when it was not set: beside the journal; None for one in memory."""
    if journal == MEMORY:
        return None
    directory, slash, _ = journal.rpartition("/")
    return f"{directory}{slash}tokens.json"


def require_token(host: str, token: str | None, where: str, *, has_file: bool = False) -> None:
    """Raise ConfigError if `host`, an address about to be listened on, needs a token and there is none that is good.

    `where` tells who chose the address; `has_file`: there is a token file. Also for the address of an inherited socket,
    once that is known; without any token `viewers/access_policy` refuses every peer there that is not on loopback.
    """
    if is_loopback(host):
        return
    if token is None and not has_file:
        raise ConfigError(
            f"{where} is {_short(host)}, which is not loopback: whoever reaches it could read the log, so a "
            "token is needed. Make one with: logrelay token add NAME; or with: "
            "python3 -c 'import secrets; print(secrets.token_urlsafe(32))' "
            "and set it as LOGRELAY_TOKEN or as token in the config file; or listen on 127.0.0.1"
        )
    weak = None if token is None else weakness(token)
    if weak is not None:
        raise ConfigError(
            f"{where} is {_short(host)}, which is not loopback, and the token can be guessed: it {weak}. Allowed: "
            f"{GOOD_TOKEN_CHARS} random characters or more; make one with: logrelay token add NAME, or "
            "python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )


def _check_nats(config: Config) -> None:
    """Raise ConfigError where it is not clear who the relay is at the NATS servers."""
    given = [name for name in ("nats_creds", "nats_nkey", "nats_token", "nats_user") if getattr(config, name)]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} are set; allowed: one of them, each says who the relay is at NATS")
    for one, other in (("nats_user", "nats_password"), ("nats_tls_cert", "nats_tls_key")):
        if (getattr(config, one) is None) != (getattr(config, other) is None):
            raise ConfigError(f"{one} and {other} go together: only one of them is set")


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
