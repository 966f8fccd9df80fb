"""`logrelay alert`: tries the services, lists what is going on, and silences bots.

Owns: the commands, and what is printed. Whether a relay runs decides who writes a silence down: the relay's own
process, else this one, into the file. It must not decide what an alert is about. Read `cli/place_options` next.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from logrelay.cli.line_options import read_token
from logrelay.cli.output import ListedCommands, print_stderr
from logrelay.cli.place_options import journal_path, place_options
from logrelay.cli.setting_options import read_settings
from logrelay.config.alert_rules import seconds_of
from logrelay.config.settings import MEMORY, Config
from logrelay.errors import ConfigError, JournalError, NeedsLookError, NoRelayError
from logrelay.visible_text import visible

if TYPE_CHECKING:
    from logrelay.config.loading import Effective
    from logrelay.terminal.finding import Source
    from logrelay.terminal.relay import Address

DEFAULT_FOR = "1h"
"""How long a silence lasts unless it is said: a planned restart, and what comes with it."""

ACCESS_HINT = (
    "give one with --token-file PATH or as LOGRELAY_TOKEN. It needs a token without limits: logrelay token add"
)
"""What to do where the relay asks for a token."""

KNOWN_SINCE = "7d"
"""How far back bots are looked for whose name was given: a bot of last week may start again."""

SHOWN_BOTS = 10
"""Names of bots that a warning lists."""

_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
_places = place_options("config", "host", "port", "journal")
_token_file = click.option("--token-file", metavar="PATH", help="File that holds the token to show, and nothing else.")


def _of_unit(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that take the settings of a service."""
    command = click.option("--user", "for_user", is_flag=True, help="With --unit: a unit of one's own.")(command)
    return click.option("--unit", metavar="NAME", help="Take the settings of a service, as systemd starts it.")(command)


@click.group(cls=ListedCommands)
def alert() -> None:
    """Try the services that alerts go to, list what is going on, silence bots."""


@alert.command()
@click.argument("names", nargs=-1)
@place_options("config", "alert")
@_of_unit
@_json
def test(names: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Send a message by the rules NAMES, or by all of them, and say which service took it.

    The rules are those of --config, LOGRELAY_ALERT or --alert, with --unit those of the service: its environment, the
    files that it reads, its options. Exit codes: 0 every service took it, 7 one did not, 2
    there are no such rules, or Apprise is not installed.
    """
    rules = _settings(given).config.alert
    known = [rule.name for rule in rules]
    unknown = [name for name in names if name not in known]
    if not rules or unknown:
        what = f"there is no alert rule {unknown[0]!r}" if unknown else "there are no alert rules"
        there = (
            f"; there is: {', '.join(known)}"
            if known
            else ": name a file with --config, set LOGRELAY_ALERT, or name the service with --unit logrelay"
        )
        raise ConfigError(what + there)
    from logrelay.alerts.delivery import deliver  # noqa: PLC0415  (costly to import)
    from logrelay.alerts.task import require_apprise  # noqa: PLC0415
    from logrelay.alerts.text import trial  # noqa: PLC0415

    require_apprise()
    found = []
    for rule in rules:
        if names and rule.name not in names:
            continue
        result = deliver(rule.url, trial(rule.name))
        found.append({"rule": rule.name, "service": rule.service, "sent": result.sent, "error": result.error})
        if not as_json:
            click.echo(f"{rule.name}  {rule.service}  {'sent' if result.sent else result.error}")
    if as_json:
        click.echo(json.dumps({"services": found}, indent=2))
    failed = [str(one["rule"]) for one in found if not one["sent"]]
    if failed:
        raise NeedsLookError(
            f"not sent: {', '.join(failed)}; see whether the URL is right, and its service can be reached from here"
        )


@alert.command("list")
@_places
@_of_unit
@_token_file
@_json
def list_alerts(token_file: str | None, as_json: bool, **given: Any) -> None:
    """List what is going on: matters, silences, and how the services do. It asks the running relay."""
    from logrelay.terminal.finding import with_remedy  # noqa: PLC0415
    from logrelay.terminal.relay import RelaySource  # noqa: PLC0415

    source = RelaySource(_address(_settings(given).config, token_file))
    try:
        source.require_relay(*source.health())
    except NoRelayError as error:
        raise with_remedy(error) from error.__cause__
    answer = source.get("/alerts")
    answer.check(ACCESS_HINT)
    shown = json.loads(b"".join(answer.chunks))
    if as_json:
        click.echo(json.dumps(shown, indent=2))
        return
    if not shown["enabled"]:
        print_stderr("no alerts are set up; --alert URL does that, see docs/alerts.md")
        return
    for text in _texts(shown):
        click.echo(visible(text))


@alert.command()
@click.argument("app")
@click.option("--for", "for_text", metavar="TIME", default=DEFAULT_FOR, show_default=True, help="90s, 15m, 2h, 7d.")
@_places
@_of_unit
@_token_file
@_json
def silence(app: str, for_text: str, token_file: str | None, as_json: bool, **given: Any) -> None:
    """Send no alerts about the bot APP, a name or a glob such as 'scalper*', for some time; the relay need not run."""
    try:
        for_s = seconds_of(for_text)
    except ValueError:
        raise ConfigError(f"--for {for_text} is not a time; allowed: like 90s, 15m, 2h, 7d, at most 30d") from None
    _change(app, for_s, token_file, as_json=as_json, given=given)


@alert.command()
@click.argument("app")
@_places
@_of_unit
@_token_file
@_json
def unsilence(app: str, token_file: str | None, as_json: bool, **given: Any) -> None:
    """End the silence of APP, which is written as it was silenced."""
    _change(app, 0.0, token_file, as_json=as_json, given=given)


def _change(app: str, for_s: float, token_file: str | None, *, as_json: bool, given: dict[str, Any]) -> None:
    """Silence a bot, or end that, and say so. Raises RelayError."""
    if not app:
        raise ConfigError("APP is empty; allowed: the name of a bot, or a glob such as 'scalper*'")
    effective = _settings(given)
    from logrelay.terminal.answer import NotLetInError  # noqa: PLC0415
    from logrelay.terminal.journal_facts import FileSource  # noqa: PLC0415
    from logrelay.terminal.relay import RelaySource, ask  # noqa: PLC0415

    request = {"type": "silence", "app": app, "for_s": for_s} if for_s else {"type": "unsilence", "app": app}
    address, journal = _address(effective.config, token_file), journal_path(effective)
    source: Source = RelaySource(address)
    try:
        silences = {one["app"]: one["until"] for one in ask(address, request, ACCESS_HINT)["silences"]}
    except NotLetInError:
        raise
    except NoRelayError as error:
        if journal == MEMORY:
            raise
        silences = {name: _rfc3339(until) for name, until in _write(journal, app, for_s, error).items()}
        source = FileSource(journal)
    if for_s:
        _warn_of_unknown(app, source, effective.config.expect)
    if as_json:
        click.echo(json.dumps({"silences": silences}, indent=2))
    elif for_s:
        click.echo(f"no alerts about {visible(app)} until {silences[app]}")
    else:
        click.echo(f"alerts about {visible(app)} are sent again")


def _warn_of_unknown(app: str, source: Source, expected: Iterable[str]) -> None:
    """Say it where no bot has the name that was silenced: most often it is misspelt. Never raises."""
    from logrelay.fanout.filters import name_matches  # noqa: PLC0415

    with suppress(NoRelayError, JournalError, ConfigError, ValueError, KeyError):
        answer = source.get(f"/summary?since={KNOWN_SINCE}")
        answer.check()
        found = json.loads(b"".join(answer.chunks))
        known = sorted({str(one["app"]) for one in found["apps"]} | set(expected))
        if any(name_matches((app,), name) for name in known):
            return
        names = ", ".join(map(visible, known[:SHOWN_BOTS])) + (", ..." if len(known) > SHOWN_BOTS else "")
        print_stderr(
            f"no bot is called {visible(app)} so far; known in the last {KNOWN_SINCE}: {names or 'none'}. "
            "It is silenced all the same"
        )


def _write(journal: str, app: str, for_s: float, no_relay: NoRelayError) -> dict[str, float]:
    """Write a silence into the file beside a journal that no relay has open. Raises RelayError."""
    import sqlite3  # noqa: PLC0415
    from pathlib import Path  # noqa: PLC0415

    from logrelay.alerts.store import OWNER_BYTE, Locks, open_store  # noqa: PLC0415
    from logrelay.alerts.task import STORE_SUFFIX  # noqa: PLC0415

    path = str(Path(journal).expanduser().resolve()) + STORE_SUFFIX
    if not Path(path).is_file():
        raise NoRelayError(f"{no_relay}, and there are no alerts at {path}: start the relay once with --alert")
    now = time.time()
    try:
        if not Locks(path).take(OWNER_BYTE):
            raise NoRelayError(f"{no_relay}, but {path} is in use: name its relay with --host and --port")
        with closing(open_store(path)) as store:
            _, kept = store.load()
            silences = {name: float(until) for name, until in kept.get("silences", {}).items() if until > now}
            if for_s:
                silences[app] = now + for_s
            elif silences.pop(app, None) is None:
                raise ConfigError(f"{app} is not silenced")
            store.commit("", {"silences": silences}, [], now)
    except (sqlite3.Error, OSError) as error:
        raise NoRelayError(
            f"{no_relay}, and {path} cannot be written: {error}; run this as the relay's user"
        ) from error
    return silences


def _settings(given: dict[str, Any]) -> Effective:
    """Return the settings of this process, or of the service that is named. Raises ConfigError."""
    unit, for_user = given.pop("unit"), given.pop("for_user")
    if unit is None:
        if for_user:
            raise ConfigError("--user goes with --unit NAME: it says whose unit is meant")
        return read_settings(given, serving=False)
    from logrelay.doctor import gathering  # noqa: PLC0415
    from logrelay.doctor.units import look  # noqa: PLC0415

    found = look(unit, for_user=for_user)
    return gathering.settings_of(given, found, gathering.user_of(found))


def _address(config: Config, token_file: str | None) -> Address:
    from logrelay.terminal.finding import address_of  # noqa: PLC0415

    return address_of(config, config.token if token_file is None else read_token(token_file))


def _texts(shown: Mapping[str, Any]) -> list[str]:
    """Return what a person reads."""
    lines = []
    for one in shown["active"]:
        what = f"{one['kind']} {one['app']}".rstrip()
        how = "lasts since" if one["active"] else "seen since" if one["count"] > 1 else "seen"
        often = f", {one['count']:,} {'lines' if one['kind'] == 'gap' else 'times'}" if one["count"] > 1 else ""
        told = ("told" if one["told"] else "not told") + (", silenced" if one["silenced"] else "")
        text = one["message"] + (f": {one['reason']}" if one["reason"] else "")
        lines.append(f"{one['rule']}  {what}  {how} {one['since']}{often}, {told}  {text}")
    lines += [f"silenced: {one['app']} until {one['until']}" for one in shown["silences"]]
    for one in shown["services"]:
        waiting = f"{one['waiting']} waiting since {one['oldest']}" if one["waiting"] else "nothing waits"
        lines.append(
            f"service: {one['rule']}  {one['service']}  {waiting}" + (f"; {one['error']}" if one["error"] else "")
        )
    heartbeat = shown["heartbeat"]
    if heartbeat is not None:
        lines.append(f"heartbeat: {_heartbeat_text(heartbeat)}")
    return lines


def _heartbeat_text(shown: Mapping[str, Any]) -> str:
    last = f"the last was taken at {shown['sent']}" if shown.get("sent") else "none was taken yet"
    if shown["withheld"]:
        return f"withheld: {shown['withheld']}; {last}"
    return f"fails: {shown['error']}; {last}" if shown.get("error") else last


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
