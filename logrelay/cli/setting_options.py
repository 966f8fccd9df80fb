"""The settings as options of a command.

Owns: one option per row of the settings table, and the look at this process (environment, files) that loading needs. It
must not know what a setting means or what a command does with it. Read `config/settings` next.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from stat import S_IMODE, S_ISREG
from typing import Any

import click

from logrelay.cli.completion import completer
from logrelay.cli.output import print_stderr
from logrelay.config import nats_url
from logrelay.config.loading import Effective, Surroundings, load
from logrelay.config.settings import SETTINGS, Setting
from logrelay.config_file import read_config_file


def setting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command one option per row of the table. Values stay text: `load` reads and checks them."""
    for setting in reversed(SETTINGS):
        if setting.by_flag:
            metavar = setting.value_type.metavar
            option = click.option(
                setting.flag,
                setting.name,
                metavar=metavar,
                help=_option_help(setting),
                shell_complete=completer(metavar),
                multiple=setting.value_type.repeatable,
                callback=joined if setting.value_type.repeatable else None,
            )
            command = option(command)
    return command


def joined(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> str | None:
    """Return what a repeatable option was given, as one text for its type; None: nothing."""
    return " ".join(given) or None


def _option_help(setting: Setting) -> str:
    return f"{setting.help}  [default: {setting.shown_default}]"


def warn_of_secrets(effective: Effective) -> None:
    """Say it when a secret was given as an argument, which everybody on the machine can see."""
    for setting in SETTINGS:
        value = getattr(effective.config, setting.name)
        if setting.public is not nats_url.public or effective.origins[setting.name] != setting.flag:
            continue
        if any(nats_url.parse(url).has_secret for url in value):
            print_stderr(
                f"the URL of {setting.flag} has a secret in it, which ps shows to everybody: give it as "
                f"LOGRELAY_NATS_PASSWORD, LOGRELAY_NATS_TOKEN or {setting.variable}, or in the config file"
            )


def read_settings(flags: dict[str, str | None], *, serving: bool = True, again: bool = False) -> Effective:
    """Work out the settings of this process; without `serving` they need not be safe to serve with.

    `again`: not at the start; nothing is waited for, so a config file that is a pipe is refused. Raises ConfigError.
    """
    around = Surroundings(
        environ=os.environ,
        uid=os.getuid(),
        is_directory=lambda path: Path(path).is_dir(),
        read_file=partial(read_config_file, regular_only=again),
        is_file=os.path.lexists,
        file_mode=_file_mode,
    )
    return load(flags, around, serving=serving)


def _file_mode(path: str) -> int:
    """Return the permission bits of a regular file; 0 of anything else, such as a pipe that a shell has made."""
    with suppress(OSError):
        status = Path(path).stat()
        if S_ISREG(status.st_mode):
            return S_IMODE(status.st_mode)
    return 0
