"""The command line: parse, call, print.

Owns: the commands and how an error looks. It must not decide anything: `config` reads the settings, `daemon`
runs the relay, `units/` holds the unit files. stdout is data, stderr is talk.
Read `config` next, then `daemon`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import click

from logrelay import __version__
from logrelay.config.settings import BY_NAME, SETTINGS, Effective, Setting, Surroundings, load
from logrelay.errors import RelayError

HELP_WIDTH = 100
"""Columns of the help page: the longest default fits in two lines."""

UNIT_FILES = ("logrelay.service", "logrelay.socket", "robo-trader.service", "logrelay.sysusers")
"""What `systemd print` knows, in the order of `all`."""

PACKAGED_BIN = "/opt/logrelay/venv/bin/"
"""Where the unit files say the commands are; replaced by where they are."""

PACKAGED_CHECKOUT = "/opt/robo-trader"
"""Where the sample bot's unit says the checkout is; replaced by where it is when this is one."""

HIDDEN_FROM_SERVICES = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")  # noqa: S108  (nothing is put there)
"""Where an installation cannot be started from: the units hide these directories."""

PACKAGED_TRADER = "robo-trader"
"""The trader's user in the unit files; replaced by `--trader-user`."""


class Commands(click.Group):
    """A group whose commands may raise RelayError: one line on stderr, and the exit code of the error."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except RelayError as error:
            click.echo(f"logrelay: {error}", err=True)
            ctx.exit(error.exit_code)


def setting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command one option per row of the table. Values stay text: `config` reads and checks them."""
    for setting in reversed(SETTINGS):
        if setting.by_flag:
            command = click.option(
                setting.flag, setting.name, metavar=setting.kind.metavar, help=_option_help(setting)
            )(command)
    return command


def _option_help(setting: Setting) -> str:
    return f"{setting.help}  [default: {setting.shown_default}]"


def read_settings(flags: dict[str, str | None]) -> Effective:
    """Work out the settings of this process. Raises ConfigError."""
    around = Surroundings(
        environ=os.environ,
        uid=os.getuid(),
        is_directory=lambda path: Path(path).is_dir(),
        read_file=lambda path: Path(path).read_bytes(),
    )
    return load(flags, around)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": HELP_WIDTH},
    epilog="Every option is also an environment variable (--keep-days: LOGRELAY_KEEP_DAYS) and, except --config"
    ", a key of the TOML file (keep_days). An option beats the environment, the environment beats the file. "
    "The token is set as LOGRELAY_TOKEN or in the file only.",
)
@click.version_option(__version__, prog_name="logrelay", message="%(prog)s %(version)s")
def main() -> None:
    """Put every log line of a trading bot on its owner's phone: live, in order, exactly once."""


@main.command()
@setting_options
def serve(**flags: str | None) -> None:
    """Run the relay until SIGTERM or SIGINT.

    Prints one line on stderr when it is ready. Exit codes: 0 stopped cleanly, 2 a setting is wrong, 3 an
    address cannot be listened on, 4 the journal cannot be used, 1 anything else.
    """
    config = read_settings(flags).config
    from logrelay import app  # noqa: PLC0415  (--help and check need no event loop)

    sys.exit(app.run(config))


@main.command()
@setting_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def check(as_json: bool, **flags: str | None) -> None:
    """Check the settings, and print each with where it came from. Opens nothing."""
    effective = read_settings(flags)
    rows = {setting.name: (_shown(setting, effective), effective.origins[setting.name]) for setting in SETTINGS}
    if as_json:
        settings = {name: {"value": value, "from": origin} for name, (value, origin) in rows.items()}
        click.echo(json.dumps({"settings": settings, "unknown_variables": effective.unknown_variables}, indent=2))
    else:
        name_width = max(map(len, rows))
        value_width = max(len(_text(name, value)) for name, (value, _) in rows.items())
        for name, (value, origin) in rows.items():
            click.echo(f"{name:<{name_width}}  {_text(name, value):<{value_width}}  {origin}")
    for variable in effective.unknown_variables:
        click.echo(f"logrelay: {variable} is set but is not a setting; see logrelay serve --help", err=True)


def _shown(setting: Setting, effective: Effective) -> object:
    value = getattr(effective.config, setting.name)
    return "(set)" if setting.name == "token" and value is not None else value


def _text(name: str, value: object) -> str:
    return "none" if value is None or value == () else BY_NAME[name].kind.show(value)


@main.group()
def systemd() -> None:
    """Print unit files for systemd."""


@systemd.command("print")
@click.argument("unit", type=click.Choice((*UNIT_FILES, "all")))
@click.option(
    "--trader-user",
    default=PACKAGED_TRADER,
    metavar="NAME",
    show_default=True,
    help="User the trader runs as; one that exists is only added to the group logrelay.",
)
def print_units(unit: str, trader_user: str) -> None:
    """Print a unit file that starts the commands of this installation; all: every one, each under its path.

    docs/operations.md says where each goes.
    """
    bin_directory = Path(sys.executable).parent
    if bin_directory.as_posix().startswith(HIDDEN_FROM_SERVICES):
        click.echo(
            f"logrelay: services cannot read {bin_directory} (ProtectHome=, PrivateTmp=); install into /opt instead",
            err=True,
        )
    checkout = _checkout()
    for name in UNIT_FILES if unit == "all" else (unit,):
        text = resources.files("logrelay").joinpath("units", name).read_text("utf-8")
        text = text.replace(PACKAGED_BIN, f"{bin_directory}/")
        if checkout is not None:
            text = text.replace(f"{PACKAGED_CHECKOUT}/.venv/bin/", f"{bin_directory}/")
            text = text.replace(PACKAGED_CHECKOUT, str(checkout))
        if trader_user != PACKAGED_TRADER:
            text = _for_user(text, name, trader_user)
        click.echo((f"# ---- {name}\n" if unit == "all" else "") + text, nl=unit == "all")


def _checkout() -> Path | None:
    """Return the checkout this runs from; None for an installation, which has no pyproject.toml beside the package."""
    root = Path(__file__).parents[2]
    return root if (root / "pyproject.toml").is_file() and (root / "robo_trader").is_dir() else None


def _for_user(text: str, name: str, user: str) -> str:
    if name == "logrelay.sysusers":  # the user exists already: keep the membership, drop the creation
        text = "".join(f"{line}\n" for line in text.splitlines() if not line.startswith(f"u {PACKAGED_TRADER} "))
        return text.replace(f"m {PACKAGED_TRADER} ", f"m {user} ")
    return text.replace(f"User={PACKAGED_TRADER}\n", f"User={user}\n")
