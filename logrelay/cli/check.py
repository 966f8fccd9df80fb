"""`logrelay check`: prints the settings, or verifies the journal.

Owns: how settings are shown, and that the token never is. It must not decide what a value is: `config/loading` does.
Read `cli/setting_options` next.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import click

from logrelay.cli.output import print_stderr
from logrelay.cli.setting_options import read_settings, setting_options
from logrelay.cli.verify import shape, text, verify_journal
from logrelay.config.loading import Effective, trader_places
from logrelay.config.settings import BY_NAME, ENV_PREFIX, SETTINGS, Setting, authority
from logrelay.errors import JournalError
from logrelay.listeners import allowed_peers, group_id
from logrelay.tls import tls_files


@click.command()
@setting_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.option(
    "--verify-journal",
    "verify",
    is_flag=True,
    help="Verify the journal's file instead, in use or not; exit code 4 when it is damaged.",
)
def check(as_json: bool, verify: bool, **flags: str | None) -> None:
    """Check the settings, and print each with where it came from; then where traders look for the relay.

    Opens nothing, unless it is asked to verify the journal, which it opens for reading.
    """
    effective = read_settings(flags)
    if verify:
        _verify(effective.config.journal, as_json=as_json)
        return
    config = effective.config
    secure = "" if tls_files(config.tls_cert, config.tls_key) is None else "s"
    address = authority(config.host, config.port)
    urls = {"websocket": f"ws{secure}://{address}", "page": f"http{secure}://{address}/"}
    places = trader_places(os.environ, os.getuid())
    found = [_is_socket(place) for place in places]
    rows = {setting.name: (_shown(setting, effective), effective.origins[setting.name]) for setting in SETTINGS}
    if as_json:
        settings = {name: {"value": value, "from": origin} for name, (value, origin) in rows.items()}
        looked = [{"path": path, "socket": there} for path, there in zip(places, found, strict=True)]
        shown = {
            "settings": settings,
            "unknown_variables": effective.unknown_variables,
            "trader_places": looked,
            "urls": urls,
        }
        click.echo(json.dumps(shown, indent=2))
    else:
        name_width = max(map(len, rows))
        value_width = max(len(_text(name, value)) for name, (value, _) in rows.items())
        for name, (value, origin) in rows.items():
            click.echo(f"{name:<{name_width}}  {_text(name, value):<{value_width}}  {origin}")
        click.echo(f"\nviewers connect to {urls['websocket']}, browsers open {urls['page']}")
        click.echo("\na trader with this environment takes the first of these sockets that is there:")
        for path, there in zip(places, found, strict=True):
            click.echo(f"  {path}  {'there' if there else 'not there'}")
    _warn_of_other_places(effective.config.socket, places, found)
    for variable in effective.unknown_variables:
        names = [setting.variable.removeprefix(ENV_PREFIX) for setting in SETTINGS]
        near = get_close_matches(variable.removeprefix(ENV_PREFIX), names, n=1)
        hint = f"did you mean {ENV_PREFIX}{near[0]}?" if near else "see logrelay serve --help"
        print_stderr(f"{variable} is set but is not a setting; {hint}")
    group_id(effective.config.socket_group)  # raises what serve would end with
    allowed_peers(effective.config)


def _verify(path: str, *, as_json: bool) -> None:
    found = verify_journal(path)
    click.echo(json.dumps(shape(path, found), indent=2) if as_json else text(path, found))
    if not found.sound:
        sys.exit(JournalError.exit_code)


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(Path(path).stat().st_mode)
    except OSError:
        return False


def _warn_of_other_places(path: str, places: Sequence[str], found: Sequence[bool]) -> None:
    """Say it when traders would not look where the relay listens, or would find another socket before its own."""
    if path not in places:
        print_stderr(f"no trader looks for {path} by itself: set LOGRELAY_SOCKET={path} for each of them")
        return
    for place, there in zip(places[: places.index(path)], found, strict=False):
        if there:
            print_stderr(
                f"a socket at {place} is found before {path}: remove it, or set LOGRELAY_SOCKET for the traders"
            )


def _shown(setting: Setting, effective: Effective) -> object:
    value = getattr(effective.config, setting.name)
    return value if setting.public is None else setting.public(value)


def _text(name: str, value: object) -> str:
    return "none" if value is None or value == () else BY_NAME[name].value_type.show(value)
