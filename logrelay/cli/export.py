"""`logrelay export`: writes lines into a file for other programs.

Owns: the command, and where the file is put. The forms are in `terminal/tables`. Read `cli/status` next.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from logrelay.cli.completion import complete_file
from logrelay.cli.line_options import filter_options, reading, source_options
from logrelay.cli.output import print_stderr
from logrelay.errors import ConfigError, RelayError

FORMATS = ("ndjson", "csv", "parquet")


@click.command()
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS, case_sensitive=False),
    default=FORMATS[0],
    show_default=True,
    help="Form.",
)
@click.option(
    "-o",
    "--output",
    metavar="PATH",
    help="File, in place once it is whole.  [default: stdout]",
    shell_complete=complete_file,
)
@filter_options()
@source_options
def export(form: str, output: str | None, **given: Any) -> None:
    """Write every line that passes, oldest first: ndjson as viewers get it, csv and parquet with columns.

    The context is a column of JSON text. Parquet needs pyarrow, and a file. Reads from where `logrelay search` reads.

    Exit codes: those of `logrelay tail`.
    """
    from logrelay.terminal import tables  # noqa: PLC0415
    from logrelay.terminal.history import all_lines  # noqa: PLC0415
    from logrelay.terminal.output import Progress  # noqa: PLC0415

    if form == "parquet" and output is None:
        raise ConfigError("parquet is written into a file: name it with --output PATH")
    progress = Progress("exporting")
    with reading(given, history=True) as asked:
        part = None if output is None else f"{output}.part"
        try:
            stream = sys.stdout.buffer if part is None else Path(part).open("wb")  # noqa: SIM115
            writer = tables.writer_of(form, stream)
            for line in all_lines(asked.found.source, asked.selection, lambda share: progress(share, writer.lines)):
                if line.get("type") == "log":
                    writer.write(line)
                else:
                    progress.clear()
                    print_stderr(str(line.get("message")))
            writer.finish()
            if part is not None and output is not None:
                stream.close()
                Path(part).replace(output)
            else:
                stream.flush()
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            raise RelayError(f"{output or 'stdout'} cannot be written: {error.strerror or error}") from error
        finally:
            progress.clear()
            if part is not None:
                with suppress(OSError):
                    Path(part).unlink()
        many = "1 line" if writer.lines == 1 else f"{writer.lines:,} lines"
        print_stderr(f"{many} exported" + (f" to {output}" if output else ""))
