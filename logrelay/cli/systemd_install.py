"""`logrelay systemd install` and `uninstall`: the relay as a service, in one command, and gone again.

Owns: the options, what is refused before anything is done, and what is printed. What has to be done is decided in
`installation/plan` and done by `installation/machine`. Read `systemd` next for the other half, what the relay tells
systemd.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import click

from logrelay.cli.output import print_stderr
from logrelay.config.settings import authority, connectable
from logrelay.errors import ConfigError
from logrelay.installation import plan, self_check
from logrelay.installation.machine import InstallError, carry_out, in_use, is_answered, leftovers, look, output
from logrelay.installation.reachable import obstacle
from logrelay.installation.unit_files import read_traders

USER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.@-]{0,30}")
"""What systemd takes as the name of a user without quotes, in a unit and in sysusers.d; 31 characters are the most."""

BOOTED = "/run/systemd/system"
"""There while systemd is process 1 (sd_booted(3))."""


def user_name(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """Check the name of a user, as a callback of an option."""
    if value is not None and USER_NAME.fullmatch(value) is None:
        raise click.BadParameter(
            f"{value!r} is not a user name: a letter or _, then letters, digits and _ . @ -, at most 31 characters"
        )
    return value


_user_option = click.option(
    "--user", "for_user", is_flag=True, help="The relay of the user who calls this, without root."
)
_dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")


@click.command()
@_user_option
@click.option(
    "--socket-activation/--no-socket-activation",
    "activated",
    default=None,
    help="systemd holds the sockets, so that no connection is refused while the relay restarts; or the relay does."
    "  [default: as it is installed; a new installation: systemd]",
)
@click.option(
    "--trader-user",
    "trader",
    metavar="NAME",
    callback=user_name,
    help="User of a bot, who is to be in the group logrelay; made if there is none. Once for each.",
)
@click.option(
    "--listen",
    metavar="ADDRESS",
    help="Where viewers connect: an IP address, a port, or both, like 0.0.0.0:8765.  [default: as it is, or "
    "127.0.0.1:8765]",
)
@_dry_run_option
def install(for_user: bool, activated: bool | None, trader: str | None, listen: str | None, dry_run: bool) -> None:
    """Install the relay as a service of systemd, or bring an installation up to date.

    Says what it does, does it, and looks whether the relay works. Given again it does what is missing, or nothing.
    """
    if listen is not None:
        plan.read_address(listen)  # what was typed is looked at before the machine
    places = _places(for_user)
    _check_machine(places, for_user=for_user, dry_run=dry_run)
    bin_directory = str(Path(sys.executable).parent)
    _check_installation(bin_directory, for_user=for_user)
    wish = plan.Wish(bin_directory, activated, trader, listen)
    found = look(places, traders=[trader] if trader is not None else [])
    steps = plan.install(wish, places, found)
    _check_nobody_listens(wish, places, found)
    if dry_run:
        _list(steps)
        return
    carry_out(steps, lambda text: click.echo(f"  {text}"))
    if not steps:
        click.echo("nothing to do: it is installed as wished")
    _report(places, listen=listen)


def _places(for_user: bool) -> plan.Places:
    if not for_user:
        return plan.SYSTEM
    if not os.environ.get("HOME"):
        raise ConfigError("HOME is not set, so it is not known where the units of this user are")
    if not os.environ.get("XDG_RUNTIME_DIR") and Path(f"/run/user/{os.getuid()}").is_dir():
        os.environ["XDG_RUNTIME_DIR"] = f"/run/user/{os.getuid()}"  # systemctl finds the manager by it
    return plan.user_places(os.environ, os.getuid())


def _check_machine(places: plan.Places, *, for_user: bool, dry_run: bool) -> None:
    """Raise InstallError before anything is done where it cannot be."""
    command = shlex.join([str(Path(sys.executable).parent / "logrelay"), *sys.argv[1:]])
    if not Path(BOOTED).is_dir():
        raise InstallError(
            f"systemd is not process 1 here (there is no {BOOTED}), so nothing was done. In a container see "
            "docs/containers.md; elsewhere have your own service manager run: logrelay serve"
        )
    if not for_user:
        if os.geteuid() != 0 and not dry_run:
            raise InstallError(f"this needs root, so nothing was done. Do: sudo {command}; or give --user")
        return
    if os.geteuid() == 0:
        raise ConfigError("--user is for a user without root; as root, leave it out: the relay gets a user of its own")
    try:
        output((*places.systemctl, "show", "--property=Version"))
    except InstallError as error:
        raise InstallError(
            f"the service manager of this user does not answer ({error}), so nothing was done. Log in as this user by "
            "ssh or on the screen, not with su or sudo; or have root do: "
            f"loginctl enable-linger {os.environ.get('USER', os.getuid())}"
        ) from None


def _check_installation(bin_directory: str, *, for_user: bool) -> None:
    """Raise InstallError where the service could not run this program."""
    command = f"{bin_directory}/logrelay"
    if not os.access(command, os.X_OK):
        raise InstallError(
            f"there is no command {command}: this program was not installed, so nothing was done. Do: "
            f"{sys.executable} -m pip install PATH-OF-THE-CHECKOUT, and call that command"
        )
    if for_user:
        return
    package = str(Path(__file__).parents[1] / "__init__.py")
    needed = [command, sys.executable, os.__file__, package, click.__file__, plan.__file__]
    why = obstacle(needed)
    if why is not None:
        raise InstallError(
            f"the service runs as a user of its own, and {why}; so nothing was done. Install the program where every "
            "user can read it, and call it from there: python3 -m venv /opt/logrelay/venv && "
            "/opt/logrelay/venv/bin/pip install PATH-OF-THE-CHECKOUT && /opt/logrelay/venv/bin/logrelay systemd install"
        )


def _check_nobody_listens(wish: plan.Wish, places: plan.Places, found: plan.Found) -> None:
    """Raise InstallError where somebody else has the addresses: systemd would fail half way."""
    if found.service.active or found.socket.active:
        return
    address = plan.read_address(wish.listen) if wish.listen is not None else plan.listens_on(places, found)
    taken = in_use(address) if address[0] != "localhost" else None
    ingest = f"{places.runtime}/ingest.sock"
    if taken is None and is_answered(ingest):
        taken = f"a relay that is no service of systemd listens on {ingest}"
    if taken is not None:
        raise InstallError(
            f"{taken}; so nothing was done. Stop the program that has it (ss -ltnxp names it), or give another "
            "address: --listen 127.0.0.1:PORT"
        )


def _list(steps: list[plan.Step]) -> None:
    if not steps:
        click.echo("nothing to do: it is as wished")
    for step in steps:
        click.echo(f"would {step}")


def _report(places: plan.Places, *, listen: str | None) -> None:
    """Look whether the relay works, and say what to open and what comes next. Raises InstallError for what does not."""
    found = look(places)
    users = found.files.get(places.sysusers) if places.sysusers is not None else None
    traders = sorted(read_traders(users.text)) if users is not None else []
    address = plan.listens_on(places, found)
    wrong = self_check.findings(places, address, traders)
    if wrong:
        raise InstallError("installed, but it does not work yet: " + "; ".join(wrong))
    ctl = " ".join(places.systemctl)
    of_user = " --user" if places.for_user else ""
    page = f"http://{authority(connectable(address[0]), address[1])}/"
    click.echo(f"\nThe relay runs. Open {page}")
    for trader in traders:
        click.echo(f"{trader} can reach the log socket; a bot that runs already has to be restarted once.")
    if not traders and not places.for_user:
        click.echo("A bot that runs as another user than root needs: logrelay systemd install --trader-user NAME")
    if plan.is_public(address[0]):
        click.echo("From other machines it answers nobody without a token: logrelay token add NAME")
    else:
        click.echo(
            f"From other machines: logrelay systemd install{of_user} --listen 0.0.0.0, with a token; see docs/phone.md"
            if places.socket in found.files
            else f"From other machines: LOGRELAY_HOST in {places.settings}, with a token; see docs/phone.md"
        )
    if listen is None and places.socket in found.files:
        _warn_of_settings(places, found)
    if places.for_user and not Path(f"/var/lib/systemd/linger/{os.environ.get('USER', '')}").exists():
        click.echo("It ends when this user has logged out everywhere, unless: loginctl enable-linger")
    click.echo(
        f"State: {ctl} status logrelay; settings: {places.settings}; to remove it: logrelay systemd uninstall{of_user}"
    )


def _warn_of_settings(places: plan.Places, found: plan.Found) -> None:
    settings = found.files.get(places.settings)
    values = plan.read_settings(settings.text) if settings is not None else {}
    for name in ("LOGRELAY_HOST", "LOGRELAY_PORT", "LOGRELAY_SOCKET"):
        if values.get(name):
            print_stderr(
                f"{name} in {places.settings} changes nothing: systemd opens the sockets; where viewers connect is "
                "changed by logrelay systemd install --listen ADDRESS"
            )


@click.command()
@_user_option
@click.option("--purge", is_flag=True, help="Remove journal, tokens, settings and users as well.")
@_dry_run_option
@click.option("--yes", is_flag=True, help="With --purge: do not ask on the terminal.")
def uninstall(for_user: bool, purge: bool, dry_run: bool, yes: bool) -> None:
    """Stop the relay and remove its units; journal, tokens, settings and users stay, unless they are purged."""
    places = _places(for_user)
    _check_machine(places, for_user=for_user, dry_run=dry_run)
    found = look(places)
    others = leftovers(places)
    steps = plan.uninstall(places, found, purge=purge, others=others)
    if dry_run:
        _list(steps)
        return
    if purge and steps and not yes and sys.stdin.isatty():
        for step in steps:
            click.echo(f"  {step}")
        click.confirm("Every line that was kept is gone then. Go on?", abort=True)
    carry_out(steps, lambda text: click.echo(f"  {text}"))
    if not steps:
        click.echo("nothing to do: it is not installed")
    settings = found.files.get(places.settings)
    elsewhere = plan.read_settings(settings.text).get("LOGRELAY_JOURNAL") if settings is not None else None
    if elsewhere:
        click.echo(f"What LOGRELAY_JOURNAL named stays: {elsewhere}")
    if not purge:
        kept = [path for path in others["data"] if path != places.runtime]
        if kept:
            click.echo(f"kept: {', '.join(kept)} and the users; `logrelay systemd uninstall --purge` removes them")
    click.echo(f"The program itself stays: {Path(sys.executable).parent.parent}")
