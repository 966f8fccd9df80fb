"""`logrelay systemd`: the group, and the command that prints unit files.

Owns: what is printed in place of the paths of the commands and of the trader's user. It must not know what else the
units contain: `units/` holds them. Read `cli/systemd_install` next.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from logrelay.cli.output import ListedCommands, print_stderr
from logrelay.cli.systemd_install import install, uninstall, user_name
from logrelay.installation.reachable import is_hidden
from logrelay.installation.unit_files import PACKAGED_BIN, PACKAGED_TRADER, packaged

UNIT_FILES = ("logrelay.service", "logrelay.socket", "robo-trader.service", "logrelay.sysusers")
"""What `systemd print` knows, in the order of `all`."""

PACKAGED_CHECKOUT = "/opt/robo-trader"
"""Where the sample bot's unit says the checkout is; replaced by where it is when this is one."""


@click.group(cls=ListedCommands)
def systemd() -> None:
    """Install the relay as a service of systemd, or print the unit files."""


systemd.add_command(install)
systemd.add_command(uninstall)


@systemd.command("print")
@click.argument("unit", type=click.Choice((*UNIT_FILES, "all")))
@click.option(
    "--trader-user",
    default=PACKAGED_TRADER,
    metavar="NAME",
    show_default=True,
    callback=user_name,
    help="User the trader runs as; one that exists is only added to the group logrelay.",
)
def print_units(unit: str, trader_user: str) -> None:
    """Print a unit file that starts the commands of this installation; all: every one, each under its path.

    docs/operations.md says where each goes.
    """
    bin_directory = Path(sys.executable).parent
    if is_hidden(str(bin_directory)):
        print_stderr(f"services cannot read {bin_directory} (ProtectHome=, PrivateTmp=); install into /opt instead")
    checkout = _checkout()
    for name in UNIT_FILES if unit == "all" else (unit,):
        text = packaged(name)
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
