"""`logrelay token`: makes tokens for viewers, lists and revokes them.

Owns: the three commands, where the token file is, and what is printed. A new token's text is printed once, on stdout,
and kept nowhere. What a token is and how the file is changed is in `access`, which is loaded when a command is called.
Read `access/tokens` next.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from logrelay.cli.completion import complete_level
from logrelay.cli.output import ListedCommands, print_stderr
from logrelay.cli.place_options import SYSTEM_DIRECTORY, is_installed_relay, place_options
from logrelay.cli.setting_options import read_settings
from logrelay.config.loading import Effective
from logrelay.config.settings import Config
from logrelay.errors import ConfigError, RelayError, quoted

if TYPE_CHECKING:
    from logrelay.access.token_use import Use
    from logrelay.access.tokens import Token

_place_options = place_options("config", "journal", "tokens")
"""The settings that say where the token file is."""


def limit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command what limits a new token."""
    for option in (
        click.option("--app", "apps", multiple=True, metavar="GLOB", help="Bots it shows.  [default: every bot]"),
        click.option(
            "--min-level",
            metavar="LEVEL",
            help="Lowest level it shows.  [default: every level]",
            shell_complete=complete_level,
        ),
        click.option("--expires", metavar="TIME", help="How long it is good: 90d, 12h, 30m, 4w.  [default: for ever]"),
    ):
        command = option(command)
    return command


@click.group(cls=ListedCommands)
def token() -> None:
    """Make tokens for viewers, list and revoke them, while the relay runs."""


@token.command()
@click.argument("name")
@limit_options
@click.option("--source", "sources", multiple=True, metavar="GLOB", help="Loggers it shows; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of the token alone.")
@_place_options
def add(
    name: str,
    expires: str | None,
    min_level: str | None,
    apps: tuple[str, ...],
    sources: tuple[str, ...],
    as_json: bool,
    **places: str | None,
) -> None:
    """Make a token called NAME, and print it once.

    Only its hash is kept. The relay takes it at once. With the first token, every viewer needs one.
    """
    path, _ = _find_file(places)
    made, text, others = make_token(path, name, expires, min_level, apps, sources)
    if as_json:
        click.echo(json.dumps({**_shape(made, None, made.created_s), "token": text, "file": path}))
        return
    click.echo(text)
    print_stderr(f"this is the token {name}, shown this once; {path} holds its hash. It shows {_limits(made)}")
    if not others:
        print_stderr("from now on every viewer of this relay needs a token, on this machine too")


def make_token(
    path: str,
    name: str,
    expires: str | None,
    min_level: str | None,
    apps: tuple[str, ...],
    sources: tuple[str, ...],
) -> tuple[Token, str, int]:
    """Put a new token into the file at `path`; returns it, its text, and how many others there are.

    The text is kept nowhere. Raises ConfigError.
    """
    from logrelay.access import token_file, tokens  # noqa: PLC0415

    tokens.check_name(name)
    now_s = int(time.time())
    expires_s = None if expires is None else now_s + tokens.parse_lifetime(expires)
    limit = tokens.parse_limit(min_level, apps, sources)
    text = tokens.token_text(secrets.token_bytes(tokens.RANDOM_BYTES))
    made = tokens.Token(name, tokens.digest_of(text), secrets.token_hex(tokens.ID_BYTES), limit, now_s, expires_s)

    def with_it(there: tuple[Token, ...]) -> tuple[Token, ...]:
        if any(other.name == name for other in there):
            raise ConfigError(
                f"there is a token {name} already; choose another name, or revoke that one first: "
                f"logrelay token revoke {name}"
            )
        if len(there) >= tokens.MAX_TOKENS:
            raise ConfigError(f"{path} has {len(there)} tokens; at most {tokens.MAX_TOKENS} are allowed: revoke some")
        return (*there, made)

    return made, text, len(token_file.change_tokens(path, with_it)) - 1


@token.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@_place_options
def list_tokens(as_json: bool, **places: str | None) -> None:
    """List the tokens: what each shows, until when, and where it was used last. Never the tokens themselves."""
    from logrelay.access import token_file, token_use, tokens  # noqa: PLC0415

    path, config = _find_file(places)
    token_set = tokens.make_token_set(config.token, token_file.read_tokens(path) or ())
    uses, now_s = token_use.read_uses(path), int(time.time())
    shapes = [_shape(one, uses.get(one.id), now_s) for one in token_set.tokens]
    if as_json:
        click.echo(json.dumps({"file": path, "tokens": shapes}, indent=2))
        return
    if not shapes:
        print_stderr(f"there are no tokens in {path}; make one with: logrelay token add NAME")
    for one, shape in zip(token_set.tokens, shapes, strict=True):
        end = (
            "never expires" if one.expires_s is None else f"expire{'d' if shape['expired'] else 's'} {shape['expires']}"
        )
        used = f"used {shape['last_used']} from {shape['last_address']}" if shape["last_used"] else "never used"
        created = f"made {shape['created']}" if shape["created"] else "of the settings"
        click.echo(f"{one.name}  {created}, {end}, {used}; shows {_limits(one)}")


def _complete_name(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Give the names of the tokens there are."""
    from logrelay.access import token_file  # noqa: PLC0415

    try:
        path, _ = _find_file({name: context.params.get(name) for name in ("config", "journal", "tokens")})
        there = token_file.read_tokens(path) or ()
    except (RelayError, OSError):
        return []
    return [CompletionItem(one.name) for one in there if one.name.startswith(incomplete)]


@token.command()
@click.argument("name", shell_complete=_complete_name)
@_place_options
def revoke(name: str, **places: str | None) -> None:
    """Revoke the token NAME: whoever is connected with it is cut off within a second."""
    from logrelay.access import token_file, tokens  # noqa: PLC0415

    path, _ = _find_file(places)
    if name == tokens.SETTING_NAME:
        raise ConfigError(f"{name} is a setting: take it out of the environment or the file, and restart the relay")

    def without_it(there: tuple[Token, ...]) -> tuple[Token, ...]:
        rest = tuple(other for other in there if other.name != name)
        if len(rest) == len(there):
            names = ", ".join(sorted(other.name for other in there))
            known = f"there is: {names}" if names else "there is none at all"
            raise ConfigError(f"there is no token {quoted(name)} in {path}; {known}")
        return rest

    rest = token_file.change_tokens(path, without_it)
    print_stderr(f"the token {name} is revoked")
    if not rest:
        print_stderr(
            f"no token is left, so nobody gets in by one; for a relay without tokens remove {path} and restart"
        )


def _find_file(places: dict[str, str | None]) -> tuple[str, Config]:
    """Return the path of the token file, and the settings. Raises ConfigError."""
    # Whether a token is needed is the question of who starts a relay, not of who is about to make one.
    effective = read_settings(places, serving=False)
    return token_path(effective), effective.config


def token_path(effective: Effective) -> str:
    """Return the path of the token file that is meant. Raises ConfigError."""
    if is_installed_relay(effective, "tokens", "journal"):
        return f"{SYSTEM_DIRECTORY}/tokens.json"
    if effective.config.tokens is None:
        raise ConfigError("a journal in memory has no token file beside it; say where it is to be with --tokens PATH")
    return effective.config.tokens


def _shape(one: Token, use: Use | None, now_s: int) -> dict[str, object]:
    return {
        "name": one.name,
        "created": _rfc3339(one.created_s) if one.created_s else None,
        "expires": None if one.expires_s is None else _rfc3339(one.expires_s),
        "expired": one.has_expired(now_s),
        "min_level": _level(one),
        "app": list(one.limit.apps),
        "source": list(one.limit.sources),
        "last_used": None if use is None else _rfc3339(use.time_s),
        "last_address": None if use is None else use.address,
    }


def _level(one: Token) -> str:
    from logrelay.model import RANKS  # noqa: PLC0415

    return next(name.upper() for name, rank in RANKS.items() if rank == one.limit.level)


def _limits(one: Token) -> str:
    """Say in words what a token shows."""
    if one.limit.nothing:
        return "everything"
    words = [f"{_level(one)} and above"]
    for what, globs in (("bots", one.limit.apps), ("loggers", one.limit.sources)):
        if globs:
            words.append(f"{what} {', '.join(globs)}")
    return "; ".join(words)


def _rfc3339(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
