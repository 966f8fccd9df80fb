"""`logrelay check --verify-journal`: looks for damage in the journal's file.

Owns: how the findings are shown, and the progress on stderr. It must not look for anything itself: `journal/verify`
does. Read `cli/send` next.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from logrelay.config.settings import MEMORY
from logrelay.errors import JournalError

if TYPE_CHECKING:
    from logrelay.journal.verify import Findings

SHOWN_RANGES = 20
"""Ranges listed in the text; --json lists all of them."""


def verify_journal(path: str) -> Findings:
    """Verify the journal at `path`, with progress on a terminal. Raises JournalError where there is none."""
    from logrelay.journal.journal_file import refuse_foreign  # noqa: PLC0415
    from logrelay.journal.verify import verify_file  # noqa: PLC0415  (only for those who ask)

    _require_file(path)
    refuse_foreign(str(Path(path).expanduser().resolve()))
    with click.progressbar(length=1000, label="verifying", file=sys.stderr) as bar:

        def progress(done: int, of: int) -> None:
            bar.update(done * 1000 // max(of, 1) - bar.pos)

        return verify_file(str(Path(path).expanduser().resolve()), progress=progress)


def _require_file(path: str) -> None:
    """Raise JournalError for what is no file with something in it; nothing else is opened, as a pipe would wait."""
    place = Path(path).expanduser()
    if path == MEMORY or not place.exists():
        raise JournalError(f"there is no journal file at {path} to verify; --journal names another one")
    if not place.is_file():
        kind = "a directory" if place.is_dir() else "no regular file"
        raise JournalError(f"{path} is {kind}, so it is no journal to verify; --journal takes the path of a file")
    try:
        with place.open("rb") as file:
            begin = file.read(1)
    except OSError as error:
        raise JournalError(
            f"{path} cannot be read: {error.strerror or error}; run this as the relay's user, or name another --journal"
        ) from None
    if not begin:
        raise JournalError(f"{path} is empty, so it is no journal to verify; --journal names another one")


def shape(path: str, found: Findings) -> dict[str, object]:
    """Return the findings for --json: ranges are pairs of seqs, both included."""
    return {
        "path": path,
        "sound": found.sound,
        "schema_version": found.version,
        "epoch": found.epoch,
        "oldest": found.oldest,
        "head": found.head,
        "lines": found.lines,
        "without_checksum": found.unchecked,
        "damaged": found.damaged,
        "missing": found.missing,
        "known_holes": found.known,
        "purged": found.purged,
        "lone_lines": found.lone,
        "structure": found.structure,
    }


def text(path: str, found: Findings) -> str:
    """Return the findings in sentences, with what to do."""
    from logrelay.journal.lone_file import SUFFIX  # noqa: PLC0415  (likewise)

    rows = [f"journal {path}, schema version {found.version}"]
    if 0 < found.version < 3:
        rows.append("its lines have no checksums yet: the relay adds them to new lines once it has opened the file")
    else:
        rows.append(f"{found.lines:,} lines verified, {found.unchecked:,} of them without a checksum (by their form)")
    if found.lone:
        rows.append(
            f"{found.lone:,} of them are in {path}{SUFFIX} alone, where the relay writes first what comes alone; it "
            "takes them over within seconds, or when it is started next"
        )
    for word, ranges in (
        ("damaged", found.damaged),
        ("missing", found.missing),
        ("lost to earlier damage", found.known),
        ("purged", found.purged),
    ):
        if ranges:
            count = sum(last - first + 1 for first, last in ranges)
            shown = ", ".join(
                f"{first} to {last}" if first < last else f"{first}" for first, last in ranges[:SHOWN_RANGES]
            )
            more = f" and {len(ranges) - SHOWN_RANGES:,} more" if len(ranges) > SHOWN_RANGES else ""
            rows.append(f"{word}: {count:,} lines, numbers {shown}{more}")
    rows += [f"structure: {what}" for what in found.structure]
    rows.append(
        "it is sound"
        if found.sound
        else "it is damaged: look at the disk, and restart the relay: it saves what it can read and sets the rest aside"
    )
    return "\n".join(rows)
