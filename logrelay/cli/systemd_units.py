"""`logrelay systemd`: prints unit files.

Owns: what is replaced in the packaged unit files: the paths of the commands and the trader's user. It must not know
what else the units contain: `units/` holds them. Read `systemd` next for the other half, what the relay tells systemd.
"""

from __future__ import annotations

import re
import sys
from importlib import resources
from pathlib import Path

import click

from logrelay.cli.output import print_stderr

UNIT_FILES = ("logrelay.service", "logrelay.socket", "robo-trader.service", "logrelay.sysusers")
"""What `systemd print` knows, in the order of `all`."""

PACKAGED_BIN = "/opt/logrelay/venv/bin/"
"""Directory of the commands in the packaged unit files; replaced by that of this installation."""

PACKAGED_CHECKOUT = "/opt/robo-trader"
"""Where the sample bot's unit says the checkout is; replaced by where it is when this is one."""

HIDDEN_FROM_SERVICES = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")  # noqa: S108  (nothing is put there)
"""The units hide these directories: a service cannot start an installation that lies in one."""

PACKAGED_TRADER = "robo-trader"
"""The trader's user in the unit files; replaced by `--trader-user`."""

USER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.@-]{0,30}")
"""What systemd takes as the name of a user without quotes, in a unit and in sysusers.d; 31 characters are the most."""


def _user_name(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if USER_NAME.fullmatch(value) is None:
        raise click.BadParameter(
            f"{value!r} is not a user name: a letter or _, then letters, digits and _ . @ -, at most 31 characters"
        )
    return value


@click.group()
def systemd() -> None:
    """Print unit files for systemd."""


@systemd.command("print")
@click.argument("unit", type=click.Choice((*UNIT_FILES, "all")))
@click.option(
    "--trader-user",
    default=PACKAGED_TRADER,
    metavar="NAME",
    show_default=True,
    callback=_user_name,
    help="User the trader runs as; one that exists is only added to the group logrelay.",
)
def print_units(unit: str, trader_user: str) -> None:
    """Print a unit file that starts the commands of this installation; all: every one, each under its path.

    docs/operations.md says where each goes.
    """
    bin_directory = Path(sys.executable).parent
    if bin_directory.as_posix().startswith(HIDDEN_FROM_SERVICES):
        print_stderr(f"services cannot read {bin_directory} (ProtectHome=, PrivateTmp=); install into /opt instead")
    checkout = _checkout()
    for name in UNIT_FILES if unit == "all" else (unit,):
        text = resources.files("logrelay").joinpath("units", name).read_text("utf-8")
        if checkout is not None:
            text = text.replace(f"{PACKAGED_CHECKOUT}/.venv/bin/", f"{bin_directory}/")
            text = text.replace(PACKAGED_CHECKOUT, str(checkout))
        text = text.replace(PACKAGED_BIN, f"{bin_directory}/")
        if trader_user != PACKAGED_TRADER:
            text = _for_user(text, name, trader_user)
        click.echo((f"# ---- {name}\n" if unit == "all" else "") + text, nl=unit == "all")


def _for_user(text: str, name: str, user: str) -> str:
    if name == "logrelay.sysusers":  # the user exists already: keep the membership, drop the creation
        text = "".join(f"{line}\n" for line in text.splitlines() if not line.startswith(f"u {PACKAGED_TRADER} "))
        return text.replace(f"m {PACKAGED_TRADER} ", f"m {user} ")
    return text.replace(f"User={PACKAGED_TRADER}\n", f"User={user}\n")


def _checkout() -> Path | None:
    """Return the checkout this runs from; None for an installation, which has no pyproject.toml beside the package."""
    root = Path(__file__).parents[2]
    return root if (root / "pyproject.toml").is_file() and (root / "robo_trader").is_dir() else None
