"""The command line: the group, and how an error of a command looks.

Owns: the list of the commands, and the way from a RelayError to a line on stderr and an exit code. It must not decide
anything: a command parses, calls and prints. stdout is for data, stderr for what only a person reads.
Read `cli/serve` next.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import click

from logrelay import __version__
from logrelay.cli.alert import alert
from logrelay.cli.check import check
from logrelay.cli.export import export
from logrelay.cli.output import ListedCommands, print_stderr
from logrelay.cli.pair import pair
from logrelay.cli.purge import purge
from logrelay.cli.search import search
from logrelay.cli.send import send
from logrelay.cli.serve import serve
from logrelay.cli.status import status
from logrelay.cli.systemd_units import systemd
from logrelay.cli.tail import tail
from logrelay.cli.token import token
from logrelay.errors import RelayError
from logrelay.interrupts import INTERRUPTED

PROGRAM = "logrelay"

HELP_WIDTH = 100
"""Columns of the help page: the longest default fits in two lines."""


class Commands(ListedCommands):
    """A group whose commands may raise RelayError: one line on stderr, and the exit code of the error.

    A command line that cannot be understood is told in the same way, whichever command it is for. Ctrl-C ends every
    command quietly with 130, wherever it was; a command that has something to do first, or a code of its own, catches
    KeyboardInterrupt.
    """

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line and exit the process; otherwise, without `standalone_mode`, as click does."""
        given: Any = {"windows_expand_args": windows_expand_args, **extra}
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **given)
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **given)
        except click.Abort as abort:
            if not isinstance(abort.__cause__, KeyboardInterrupt):  # a question was not answered with yes
                print_stderr("not confirmed: nothing was done")
                sys.exit(1)
            code = INTERRUPTED
        except KeyboardInterrupt:
            code = INTERRUPTED
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        if code == INTERRUPTED:
            _discard_stdout()
        sys.exit(code if isinstance(code, int) else 0)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read the options in front of the command."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            sys.exit(_print_usage_error(error, PROGRAM))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except RelayError as error:
            print_stderr(str(error))
            ctx.exit(error.exit_code)
        except click.UsageError as error:
            ctx.exit(_print_usage_error(error, f"{ctx.command_path} {ctx.invoked_subcommand or ''}".rstrip()))
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


def _discard_stdout() -> None:
    """Have what is left in stdout's buffer go nowhere: its reader may be gone, or read no more."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), 1)


_NOT_ALLOWED = re.compile(r"(.*?) is not (?:in the range|a valid|one of)", re.DOTALL)
"""How click says that a value is none of those that are allowed."""


def _wrong_value(error: click.UsageError) -> str:
    """Say of an option's value what a wrong setting is told: what was given, and what is allowed; empty: it is else."""
    parameter = error.param if isinstance(error, click.BadParameter) else None
    given = _NOT_ALLOWED.match(error.message)
    if parameter is None or given is None:
        return ""
    match parameter.type:
        case click.Choice() as kind:
            allowed = ", ".join(map(str, kind.choices))
        case click.IntRange(min=least, max=most):
            allowed = f"a whole number from {least:,} to {most:,}"
        case click.FloatRange(max=most):
            allowed = f"a number above 0, up to {most:,}"
        case _:
            return ""
    name = max(parameter.opts, key=len) if isinstance(parameter, click.Option) else parameter.human_readable_name
    return f"{name} is {given[1]}; allowed: {allowed}"


def _print_usage_error(error: click.UsageError, path: str) -> int:
    """Say in one line what click does not understand, and where the help is; returns the exit code.

    `path` is the command as it is typed, for errors that do not say theirs.
    """
    if type(error).__name__ == "NoArgsIsHelpError":  # of newer versions of click: its text is the help
        error.show()
        return error.exit_code
    said = _wrong_value(error) or " ".join(error.format_message().split()).rstrip(".")
    print_stderr(f"{said}; see {path if error.ctx is None else error.ctx.command_path} --help")
    return error.exit_code


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": HELP_WIDTH},
    epilog="Every option is also an environment variable (--keep-days: LOGRELAY_KEEP_DAYS) and, except --config"
    ", a key of the TOML file (keep_days). An option beats the environment, the environment beats the file. "
    "The token is set as LOGRELAY_TOKEN or in the file only.",
)
@click.version_option(__version__, "-V", "--version", prog_name=PROGRAM, message="%(prog)s %(version)s")
def main() -> None:
    """Put every log line of a trading bot on its owner's phone: live, in order, exactly once."""


main.add_command(serve)
main.add_command(tail)
main.add_command(search)
main.add_command(status)
main.add_command(export)
main.add_command(purge)
main.add_command(pair)
main.add_command(check)
main.add_command(send)
main.add_command(systemd)
main.add_command(token)
main.add_command(alert)
