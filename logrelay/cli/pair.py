"""`logrelay pair`: lets a phone in, without typing.

Owns: the command, and what is printed for whom. What a token is is in `access`, at which addresses this machine is
reached in `terminal/addresses`. Read `cli/token` next.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import quote, urlencode

import click

from logrelay.cli.output import print_stderr
from logrelay.cli.place_options import place_options
from logrelay.cli.setting_options import read_settings
from logrelay.cli.token import limit_options, make_token, token_path
from logrelay.config.settings import authority, is_loopback
from logrelay.errors import ConfigError, quoted

DEFAULT_DEVICE = "phone"

_HOST_NAME = re.compile(r"[\w-]{1,63}(?:\.[\w-]{1,63})*")

QUIET_ZONE = 2
"""Modules of white around the code: four are the standard, and two are enough for every camera in front of a screen."""


@click.command()
@click.option("--device", default=DEFAULT_DEVICE, show_default=True, metavar="NAME", help="Name of device and token.")
@limit_options
@click.option(
    "--address",
    "named",
    multiple=True,
    metavar="NAME",
    help="Name or address to print; repeatable.  [default: all found]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@place_options("config", "journal", "tokens", "host", "port")
def pair(
    device: str,
    expires: str | None,
    min_level: str | None,
    apps: tuple[str, ...],
    named: tuple[str, ...],
    as_json: bool,
    **places: str | None,
) -> None:
    """Make a token for a device, and print what opens the log on it: a QR code and links for each address.

    The token is shown this once; logrelay token revoke NAME takes it back. Whoever sees the code can read the log.
    """
    from logrelay.terminal.addresses import answers, own_addresses  # noqa: PLC0415

    effective = read_settings(places, serving=False)
    config = effective.config
    for name, address in (("--host", config.host), *(("--address", one) for one in named)):
        _check_address(name, address)
    path = token_path(effective)
    made, text, others = make_token(path, device, expires, min_level, apps, ())
    host, port, secure = config.host, config.port, config.tls_cert is not None
    reachable = list(named) or (own_addresses() if _is_wildcard(host) or is_loopback(host) else [host])
    links = [_links(address, port, text, device, secure=secure) for address in reachable]
    on_loopback = is_loopback(host)
    open_now = [address for address in reachable if answers(address, port)]
    if as_json:
        found = {"device": device, "token": text, "file": path, "loopback_only": on_loopback and not open_now}
        click.echo(json.dumps({**found, "addresses": links}, indent=2))
        return
    if links and sys.stdout.isatty():
        click.echo(_code(links[0]["page"]))
    for address, link in zip(reachable, links, strict=True):
        click.echo(f"{address}" + ("" if address in open_now else "  (nobody answers there now)"))
        click.echo(f"  browser   {link['page']}")
        click.echo(f"  app       {link['app']}")
        click.echo(f"  terminal  {link['wscat']}")
    print_stderr(f"this is the token {made.name}, shown this once; {path} holds its hash")
    if not others:
        print_stderr("from now on every viewer of this relay needs a token, on this machine too")
    if not links:
        print_stderr("this machine has no address but loopback; name one with --address")
    if on_loopback and not open_now:
        print_stderr(
            f"the relay listens on {host} only, so no phone reaches it: start it with --host 0.0.0.0, or set "
            "LOGRELAY_HOST=0.0.0.0 where its settings are, and restart it"
        )
    if links and not secure:
        print_stderr("ws:// and http:// are not encrypted: use them in a network that you trust, or --tls-cert")


def _check_address(option: str, given: str) -> None:
    """Raise ConfigError for what no link can be made of."""
    try:
        ip_address(given)
    except ValueError:
        # A name whose last part is a number would be read as an IPv4 address, and is none.
        if not _HOST_NAME.fullmatch(given) or given.rpartition(".")[2].isdigit():
            raise ConfigError(
                f"{option} {quoted(given)} is neither a name nor an IP address; allowed: box.example.org, 192.168.1.20 "
                "or fd00::20, without http:// and without a port (--port names it)"
            ) from None


def _is_wildcard(host: str) -> bool:
    return host in ("0.0.0.0", "::")  # noqa: S104  (compared, not bound)


def _links(host: str, port: int, token: str, device: str, *, secure: bool) -> dict[str, str]:
    """Return what each program takes. The page's token is behind `#`, which browsers send nowhere."""
    s, address = "s" if secure else "", authority(host, port)
    return {
        "address": host,
        "page": f"http{s}://{address}/#token={quote(token)}",
        "app": f"ws{s}://{address}?{urlencode({'token': token, 'device': device})}",
        "wscat": f"npx wscat -c ws{s}://{address} -H 'Authorization: Bearer {token}'",
    }


def _code(link: str) -> str:
    """Return a QR code in characters of half a height, black on white whatever the terminal's colours are."""
    import segno  # noqa: PLC0415

    modules = [list(row) for row in segno.make(link, error="l", micro=False).matrix_iter(border=QUIET_ZONE)]
    if len(modules[0]) > shutil.get_terminal_size().columns:
        return f"(the terminal has {shutil.get_terminal_size().columns} columns; the code needs {len(modules[0])})"
    return "\n".join(
        _row(modules[y], modules[y + 1] if y + 1 < len(modules) else None) for y in range(0, len(modules), 2)
    )


def _row(upper: Sequence[int], lower: Sequence[int] | None) -> str:
    below = [0] * len(upper) if lower is None else lower
    return (
        "\x1b[30;107m" + "".join(" ▀▄█"[bool(u) + 2 * bool(v)] for u, v in zip(upper, below, strict=True)) + "\x1b[0m"
    )
