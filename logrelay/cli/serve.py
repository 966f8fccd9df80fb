"""`logrelay serve`: runs the relay.

Owns: nothing but the command: it reads the settings and hands them to the app. The app is imported when the command is
called, so that `--help` and the other commands load no event loop. Read `config/settings` next.
"""

from __future__ import annotations

import sys
import threading

import click

from logrelay.cli.output import print_stderr
from logrelay.cli.setting_options import read_settings, setting_options, warn_of_secrets
from logrelay.config.loading import unknown_variable_hint
from logrelay.hangup import Hangups


@click.command()
@setting_options
@click.option("--open", "open_page", is_flag=True, help="Open the page in a browser of this machine once it is ready.")
def serve(open_page: bool, **flags: str | None) -> None:
    """Run the relay until SIGTERM or SIGINT.

    Prints one line on stderr when it is ready, with the addresses for viewers and browsers. Exit codes: 0 stopped
    cleanly, 2 a setting is wrong, 3 an address cannot be listened on, 4 the journal cannot be used, 1 anything else.
    """
    hangups = Hangups()
    effective = read_settings(flags)
    warn_of_secrets(effective)
    for variable in effective.unknown_variables:
        print_stderr(f"{variable} is set but is not a setting; {unknown_variable_hint(variable)}")
    for warning in effective.warnings:
        print_stderr(f"warning: {warning}")
    from logrelay import app  # noqa: PLC0415  (--help and check need no event loop)

    on_ready = _open_page if open_page else lambda _page: None
    sys.exit(
        app.run(
            effective.config,
            origins=effective.origins,
            read_again=lambda: read_settings(flags, again=True),
            hangups=hangups,
            on_ready=on_ready,
        )
    )


def _open_page(url: str) -> None:
    """Have a browser open the page, without waiting for it: some end only when their window is closed."""
    import webbrowser  # noqa: PLC0415  (only for who asks for one)

    def open_it() -> None:
        if not webbrowser.open(url):
            print_stderr(f"no browser could be started here; open {url}")

    threading.Thread(target=open_it, name="logrelay-browser", daemon=True).start()
