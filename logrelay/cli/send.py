"""`logrelay send`: puts a line, or the lines of stdin, into the journal.

Owns: the command, the reading of stdin in bounded pieces, and what it tells about its end. What a line is, how it is
encoded and how it is sent is decided in `send`. Read `send` next.
"""

from __future__ import annotations

import json
import os
import secrets
import socket as sockets
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import click

from logrelay.cli.completion import complete_file, complete_level
from logrelay.cli.output import print_stderr
from logrelay.config.loading import default_socket, trader_places
from logrelay.errors import ConfigError, NotAckedError, RelayError
from logrelay.ingest.frames import MAX_FRAME_BYTES, MAX_NAME_CHARS, RUN_KEY_BYTES
from logrelay.interrupts import INTERRUPTED
from logrelay.model import run_name
from logrelay.send import frames
from logrelay.send.given import Given, from_arguments, from_line, level_of
from logrelay.send.link import Link, first_socket

DEFAULT_TIMEOUT_S = 5.0
"""A relay that restarts is back in a second or two; a script should not hang for longer than a person waits."""

NS_PER_S = 1_000_000_000

MAX_LINE_BYTES = MAX_FRAME_BYTES
"""Of one line of stdin; the rest of a longer one is not even kept, as it would not fit into a frame."""


@click.command()
@click.option("--app", default="send", metavar="NAME", show_default=True, help="Name that the line is shown under.")
@click.option(
    "--level",
    default="info",
    metavar="LEVEL",
    show_default=True,
    help="Level, where a line says none.",
    shell_complete=complete_level,
)
@click.option(
    "--socket",
    metavar="PATH",
    help="The relay's socket.  [default: where any trader finds it]",
    shell_complete=complete_file,
)
@click.option("--stdin", "from_stdin", is_flag=True, help="Send the lines of stdin, JSON objects or text.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, 86_400, min_open=True),
    default=DEFAULT_TIMEOUT_S,
    metavar="SECONDS",
    show_default=True,
    help="How long the relay may take; with --stdin, without acking anything.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object about the result on stdout.")
@click.argument("message", required=False)
@click.argument("fields", nargs=-1, metavar="[KEY=VALUE]...")
def send(
    app: str,
    level: str,
    socket: str | None,
    from_stdin: bool,
    timeout: float,
    as_json: bool,
    message: str | None,
    fields: tuple[str, ...],
) -> None:
    """Put a line into the journal, and wait until it is there.

    A VALUE that is a JSON number, true, false, null or a JSON string in quotes is that; anything else is text.

    Exit codes: 0 in the journal, 2 the command line is wrong, 5 no relay takes it, 6 it was not acked in time, 1 the
    relay rejected a line, 130 interrupted.
    """
    named_level = level_of(level)
    if named_level is None:
        raise ConfigError(f"--level is {level!r}; allowed: debug, info, warning, error or critical")
    if not 0 < len(app) <= MAX_NAME_CHARS:
        raise ConfigError(f"--app has {len(app)} characters; allowed: 1 to {MAX_NAME_CHARS}")
    lines: Iterable[Given]
    if from_stdin:
        if message is not None:
            raise ConfigError("a MESSAGE and --stdin exclude each other: give one of them")
        if sys.stdin is None:
            raise ConfigError("stdin is closed: there is nothing to send")
        lines = _lines_of(sys.stdin.buffer, named_level)
    elif message is None:
        raise ConfigError("there is nothing to send; give a MESSAGE, or --stdin")
    else:
        lines = [from_arguments(message, fields, named_level)]
    sys.exit(_send(app, socket or _find_socket(), lines, timeout_s=timeout, as_json=as_json))


def _find_socket() -> str:
    """Return where a trader with this environment would look for the relay."""
    uid = os.getuid()
    found = first_socket(trader_places(os.environ, uid))
    return found or default_socket(os.environ, uid, lambda path: Path(path).is_dir())


def _lines_of(stream: BinaryIO, level: str) -> Iterator[Given]:
    """Give the lines of a stream as they come; of one that is too long, its begin, which is cut when it is encoded."""
    while line := stream.readline(MAX_LINE_BYTES):
        rest = line
        while len(rest) == MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = stream.readline(MAX_LINE_BYTES)
        given = from_line(line, level)
        if given is not None:
            yield given


def _send(app: str, path: str, lines: Iterable[Given], *, timeout_s: float, as_json: bool) -> int:
    """Send all lines in order. Returns the exit code; what is not in the journal is said on stderr."""
    run = secrets.token_bytes(RUN_KEY_BYTES)
    hello = frames.hello(run, app, sockets.gethostname(), os.getpid(), time.time_ns())
    link = Link(path, hello, timeout_s=timeout_s)
    code, trouble, seq, last_ns = 0, "", 0, 0
    try:
        try:
            for given in lines:
                seq += 1
                last_ns, event = _time_of(given, last_ns, time.time_ns())
                link.send(seq, frames.log(seq, last_ns, given.level, event))
        except KeyboardInterrupt:
            code, trouble = INTERRUPTED, "interrupted"
        if seq:
            link.finish()
    except KeyboardInterrupt:
        code, trouble = INTERRUPTED, "interrupted"
    except RelayError as error:
        code, trouble = error.exit_code, str(error)
    finally:
        link.close()
    rejected = len(link.rejected)
    if rejected and not code:
        code, trouble = 1, f"the relay rejected {rejected} of them: {link.rejected[0].reason}"
    kept = link.acked - sum(reject.seq <= link.acked for reject in link.rejected)
    if trouble:
        known = "known to be in" if code == NotAckedError.exit_code else "in"
        print_stderr(f"{kept} of {seq} lines are {known} the journal: {trouble}")
    if as_json:
        result = {
            "app": app,
            "run": run_name(run),
            "lines": seq,
            "in_journal": kept,
            "rejected": rejected,
            "exit": code,
        }
        _print_result(json.dumps({**result, "error": trouble or None}))
    return code


def _time_of(given: Given, last_ns: int, now_ns: int) -> tuple[int, dict[str, object]]:
    """Return the time of a line, and its event.

    A time that is given holds while the times of a stream rise up to now. One from the future would be the clock of all
    lines behind it, and one that is set back would look like a clock that was: it is kept as a field instead.
    """
    if given.time_ns is None or last_ns <= given.time_ns <= now_ns:
        return (now_ns if given.time_ns is None else given.time_ns), given.event
    try:
        said = datetime.fromtimestamp(given.time_ns / NS_PER_S, UTC).isoformat()
    except (ValueError, OverflowError, OSError):  # a year that no calendar here has
        said = f"{given.time_ns / NS_PER_S} s"
    return now_ns, {**given.event, "timestamp": said}


def _print_result(text: str) -> None:
    """Print on stdout; that nobody can read it says nothing about the lines, so the exit code stays."""
    try:
        click.echo(text)
    except OSError as error:
        print_stderr(f"the result cannot be printed: {error.strerror or error}")
        # What is left in the buffer would fail once more at the end, and change the exit code.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
