"""`logrelay check`: prints the settings and what is found to be wrong, or verifies the journal.

Owns: the command. It must not look at the machine or judge: `doctor` does both. Read `cli/setting_options` next.
"""

from __future__ import annotations

import json
import socket
import sys
from typing import TYPE_CHECKING

import click

from logrelay.cli.output import print_stderr
from logrelay.cli.setting_options import setting_options, warn_of_secrets
from logrelay.cli.verify import shape, text, verify_journal
from logrelay.config.settings import Config
from logrelay.errors import ConfigError, JournalError

if TYPE_CHECKING:
    from logrelay.machines.nats_check import Answer


@click.command()
@setting_options
@click.option("--unit", metavar="NAME", help="Look at a service as systemd starts it: its settings, user and paths.")
@click.option("--user", "for_user", is_flag=True, help="With --unit: a unit of one's own (systemctl --user).")
@click.option("--trader-user", "trader", metavar="NAME", help="Also say whether this user can reach the log socket.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.option(
    "--verify-journal",
    "verify",
    is_flag=True,
    help="Verify the journal's file instead, in use or not; exit code 4 when it is damaged.",
)
def check(
    unit: str | None, for_user: bool, trader: str | None, as_json: bool, verify: bool, **flags: str | None
) -> None:
    """Say what is effective and from where, and what is wrong, each with what to do about it.

    It changes nothing. NATS servers that are set are asked whether they are as forwarding and collecting need them.
    Exit codes: 0 nothing is wrong, or there are only warnings; 2, 3 and 4 what `serve` would end with (settings,
    sockets, journal); 7 something else needs a look.
    """
    try:
        _check(unit, trader, flags, for_user=for_user, as_json=as_json, verify=verify)
    except (ConfigError, JournalError) as error:
        if as_json:  # whoever reads it gets an object whatever is wrong
            code = "settings" if isinstance(error, ConfigError) else "journal"
            text, _, remedy = str(error).partition("; ")
            found = {"code": code, "rank": "error", "text": text, "remedy": remedy or "change what it names"}
            click.echo(json.dumps({"findings": [found], "exit": error.exit_code}, indent=2))
        raise


def _check(
    unit: str | None, trader: str | None, flags: dict[str, str | None], *, for_user: bool, as_json: bool, verify: bool
) -> None:
    from logrelay.doctor import gathering, report  # noqa: PLC0415  (--help needs none of it)
    from logrelay.doctor.diagnosis import diagnose  # noqa: PLC0415
    from logrelay.doctor.finding import exit_code, in_order, problem  # noqa: PLC0415
    from logrelay.doctor.units import look  # noqa: PLC0415

    if for_user and unit is None:
        raise ConfigError("--user goes with --unit NAME: it says whose unit is meant")
    found = None if unit is None else look(unit, for_user=for_user)
    user = gathering.this_user() if found is None else gathering.user_of(found)
    effective = gathering.settings_of(flags, found, user)
    if verify:
        _verify(effective.config.journal, as_json=as_json)
        return
    facts = gathering.gather(effective, user, unit=found, trader=trader, now_s=gathering.now_s())
    answers = _ask_nats(effective.config)
    findings = in_order([*diagnose(facts), *(problem("nats", *answer.told) for answer in answers if not answer.good)])
    urls = gathering.addresses(effective.config, () if found is None else found.listens)
    if as_json:
        shown = report.as_json(facts, findings, urls)
        click.echo(json.dumps(shown | {"nats": [answer.text for answer in answers if answer.good]}, indent=2))
    else:
        for row in report.as_text(facts, findings, urls):
            click.echo(row)
        for answer in answers:
            if answer.good:
                click.echo(answer.text)
    warn_of_secrets(effective)
    for one in findings:
        print_stderr(report.finding_text(one))
    sys.exit(exit_code(findings))


def _verify(path: str, *, as_json: bool) -> None:
    found = verify_journal(path)
    click.echo(json.dumps(shape(path, found), indent=2) if as_json else text(path, found))
    if not found.sound:
        sys.exit(JournalError.exit_code)


def _ask_nats(config: Config) -> list[Answer]:
    """Ask the NATS servers, if there are any."""
    found: list[Answer] = []
    if config.forward:
        from logrelay.machines.nats_check import check_forwarding  # noqa: PLC0415  (only then is nats-py needed)
        from logrelay.machines.nats_link import forwarding  # noqa: PLC0415

        found += check_forwarding(*forwarding(config, socket.gethostname()))
    if config.collect:
        from logrelay.machines.nats_check import check_collecting  # noqa: PLC0415  (the same)
        from logrelay.machines.nats_link import HUB_INBOX, nats_settings  # noqa: PLC0415

        found += check_collecting(nats_settings(config, config.collect), HUB_INBOX)
    return found
