"""`logrelay purge`: deletes lines that should not have been logged.

Owns: the command, its question, and what it tells. Which lines pass is decided by `http/log_query` and the journal's
walk, as for everybody who reads; how they go is in `journal/purged`. Read `cli/pair` next.

It works on the file while no relay has it, through the same lock: whoever may write the file may purge it, and nobody
can through the relay, whose viewers need only a token. A running relay also has the newest lines in its memory.
"""

from __future__ import annotations

import os
import secrets
import shutil
import string
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from logrelay.cli.line_options import filter_options, selection_of
from logrelay.cli.output import print_stderr
from logrelay.cli.place_options import journal_path, place_options
from logrelay.cli.setting_options import read_settings
from logrelay.config.settings import MEMORY
from logrelay.errors import ConfigError, JournalError, JournalRefused, quoted

if TYPE_CHECKING:
    from logrelay.journal.interface import Query
    from logrelay.journal.read_only import ReadOnlyJournal
    from logrelay.terminal.selection import Selection

ROOM_FACTOR = 2.2
"""Free disk that is needed, as a multiple of the file: it is written anew, once beside it and once into its log."""

ROOM_BYTES = 1 << 20

EPOCH_CHARS, EPOCH_LENGTH = string.ascii_lowercase + string.digits, 6
"""As the relay names its openings."""

COPIES = (".corrupt-", ".found-", ".lone-", ".rescue", ".salvage")
"""Behind the journal's name: files that may hold an older copy of its lines."""


@click.command()
@click.option("--before", metavar="TIME", help="Only lines up to this time; the same as --until.")
@filter_options(notices=False)
@click.option("--dry-run", is_flag=True, help="Only say how many lines it would be, and from when; a relay may run.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@place_options("config", "journal")
@click.argument("place", required=False, metavar="")
def purge(before: str | None, dry_run: bool, yes: bool, place: str | None, **given: Any) -> None:
    """Delete every line that passes, for good: its bytes are in no file of the journal afterwards.

    At least one condition has to be given. A notice in the journal says how many lines went; a viewer that comes to
    their place is told of a gap with the cause `purged`. Notices of the relay stay. The relay has to be stopped:
    bots keep their lines meanwhile.

    Exit codes: 0 done, or nothing to do, 2 the command line is wrong, 4 the journal is in use or cannot be written, 1
    not confirmed.
    """
    if place is not None:
        raise ConfigError(
            f"purge works on the journal's file and takes no place such as {quoted(place)}; stop the relay, and name "
            "its file with --journal PATH"
        )
    if before is not None and given["until"] is not None:
        raise ConfigError("--before and --until are the same: give one of them")
    if before is not None:
        given["until"] = before
    selection = selection_of(given, until_name="until" if before is None else "--before")
    if selection.empty:
        raise ConfigError("nothing was said about which lines are to go; give --grep, --where, --app, --before, ...")
    path = journal_path(read_settings(given, serving=False))
    if path == MEMORY:
        raise ConfigError("a journal in memory has no file to purge; restart the relay")
    path = str(Path(path).expanduser().resolve())
    seqs = _find(path, selection)
    unfinished = _is_unfinished(path)
    if not seqs and not (unfinished and not dry_run):
        print_stderr("no line passes: nothing is deleted")
        return
    if dry_run:
        print_stderr(f"{_part(len(seqs), _lines_of(path))} would be deleted; nothing was")
        return
    if seqs and not yes:
        if not sys.stdin.isatty():
            raise ConfigError("nobody can be asked without a terminal; --yes deletes without a question")
        click.confirm(f"Delete {_part(len(seqs), _lines_of(path))} from {path} for good?", abort=True, err=True)
    gone = _purge(path, seqs)
    print_stderr(f"{_count(gone)} deleted; the file has been written anew without them")
    copies = sorted(str(found) for found in Path(path).parent.glob(f"{Path(path).name}.*") if _is_copy(found, path))
    if copies:
        print_stderr(f"older copies of lines may be in these files, which were left alone: {', '.join(copies)}")


def _is_copy(found: Path, path: str) -> bool:
    return found.name.removeprefix(Path(path).name).startswith(COPIES)


def _find(path: str, selection: Selection) -> list[int]:
    """Return the seqs of the lines that pass, ascending. Raises JournalError."""
    from logrelay.journal.read_only import ReadOnlyJournal  # noqa: PLC0415
    from logrelay.terminal.output import Progress  # noqa: PLC0415

    progress, seqs = Progress("searching"), []
    with closing(ReadOnlyJournal(path)) as journal:
        query: Query = _query(journal, selection)
        while True:
            page = journal.page(query)
            seqs += [seq for seq, body in zip(page.seqs, page.bodies, strict=True) if not _is_notice(body)]
            if page.complete:
                break
            query = replace(query, after=page.reached)
            progress((page.reached - journal.oldest + 1) / (journal.head - journal.oldest + 1), len(seqs))
    progress.clear()
    return seqs


def _lines_of(path: str) -> int:
    from logrelay.journal.read_only import ReadOnlyJournal  # noqa: PLC0415

    with closing(ReadOnlyJournal(path)) as journal:
        return journal.count_lines()


def _query(journal: ReadOnlyJournal, selection: Selection) -> Query:
    from logrelay.http.log_query import MAX_LIMIT, parse_log_query  # noqa: PLC0415

    def resolve(_id: str) -> Any:
        raise AssertionError("no id is asked for")

    query = parse_log_query(
        replace(selection, notices="").query(limit=MAX_LIMIT), journal.head, resolve, time.time_ns() // 1000
    )
    return replace(query, after=journal.oldest - 1, newest=False)


def _is_notice(body: bytes) -> bool:
    """Tell whether a body is a notice, which stays; the statement that deletes looks at the row itself."""
    import orjson  # noqa: PLC0415

    from logrelay.model import RELAY_SOURCE  # noqa: PLC0415

    return bool(orjson.loads(body).get("source") == RELAY_SOURCE)


def _is_unfinished(path: str) -> bool:
    from logrelay.journal.read_only import ReadOnlyJournal  # noqa: PLC0415

    with closing(ReadOnlyJournal(path)) as journal:
        return journal.is_purge_unfinished


def _purge(path: str, seqs: list[int]) -> int:
    """Take the lines away, under the journal's lock; returns how many went. Raises JournalError."""
    from logrelay.journal.opening_record import boot_id  # noqa: PLC0415
    from logrelay.journal.sqlite import SqliteJournal  # noqa: PLC0415

    directory = str(Path(path).parent)
    needed = int(sum(_size(path + suffix) for suffix in ("", "-wal")) * ROOM_FACTOR) + ROOM_BYTES
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise JournalError(
            f"the file has to be written anew, which needs {needed >> 20} MiB of free disk; {free >> 20} MiB are free: "
            "nothing was deleted",
            retry=False,
        )
    # SQLite writes the new file into a temporary one first: not into /tmp, which may be small.
    os.environ["SQLITE_TMPDIR"] = directory
    journal = SqliteJournal(
        path,
        now_us=lambda: time.time_ns() // 1000,
        random_epoch=lambda: "".join(secrets.choice(EPOCH_CHARS) for _ in range(EPOCH_LENGTH)),
        boot=boot_id(),
        on_progress=print_stderr,
    )
    try:
        opening = journal.open()
    except JournalRefused as error:
        raise JournalRefused(
            f"{error}. To purge, stop the relay (systemctl stop logrelay.socket logrelay), purge, and start it again: "
            "bots keep their lines meanwhile"
        ) from error
    try:
        for text in opening.notices:
            print_stderr(text)
        return journal.purge(seqs)
    finally:
        journal.close()


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def _count(lines: int) -> str:
    return "1 line" if lines == 1 else f"{lines:,} lines"


def _part(lines: int, of: int) -> str:
    """Say how many lines, and whether the journal has no others."""
    return f"all {_count(lines)} of the journal" if lines >= of else f"{_count(lines)} of {of:,}"
