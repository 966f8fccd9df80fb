"""`logrelay serve`: runs the relay.

Owns: nothing but the command: it reads the settings and hands them to the app. The app is imported when the command is
called, so that `--help` and the other commands load no event loop. Read `config/settings` next.
"""

from __future__ import annotations

import sys

import click

from logrelay.cli.setting_options import read_settings, setting_options


@click.command()
@setting_options
def serve(**flags: str | None) -> None:
    """Run the relay until SIGTERM or SIGINT.

    Prints one line on stderr when it is ready. Exit codes: 0 stopped cleanly, 2 a setting is wrong, 3 an
    address cannot be listened on, 4 the journal cannot be used, 1 anything else.
    """
    config = read_settings(flags).config
    from logrelay import app  # noqa: PLC0415  (--help and check need no event loop)

    sys.exit(app.run(config))
