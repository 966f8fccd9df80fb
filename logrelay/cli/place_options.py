"""The settings that say where a command finds the journal, the tokens or the relay, as options.

Owns: these options, and that root which names no place means the installed relay. It must not know what a command does
there. Read `cli/completion` next.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from logrelay.cli.completion import completer
from logrelay.cli.setting_options import joined
from logrelay.config.loading import Effective
from logrelay.config.settings import BY_NAME

SYSTEM_DIRECTORY = "/var/lib/logrelay"
"""The state directory of the packaged unit. Root that says no place means the installed relay, not its own home."""


def place_options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the options of these settings."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(names):
            setting = BY_NAME[name]
            help_text = f"{setting.help}  [default: {setting.shown_default}]"
            metavar = setting.value_type.metavar
            option = click.option(
                setting.flag,
                name,
                metavar=metavar,
                help=help_text,
                shell_complete=completer(metavar),
                multiple=setting.value_type.repeatable,
                callback=joined if setting.value_type.repeatable else None,
            )
            command = option(command)
        return command

    return add


def is_installed_relay(effective: Effective, *names: str) -> bool:
    """Tell whether root has named none of these places and there is an installed relay: its places are meant."""
    return (
        os.geteuid() == 0
        and all(effective.origins[name] == "default" for name in names)
        and Path(SYSTEM_DIRECTORY).is_dir()
    )


def journal_path(effective: Effective) -> str:
    """Return the path of the journal that is meant."""
    return f"{SYSTEM_DIRECTORY}/journal.db" if is_installed_relay(effective, "journal") else effective.config.journal
