"""What a finding is, and what all of them together mean for the exit code.

Owns: `Finding`, its ranks, and the order in which findings are told. It must not know what is looked for. Pure. Read
`doctor/diagnosis` next.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from logrelay.errors import ConfigError, JournalError, ListenError, NeedsLookError

Rank = Literal["error", "problem", "warning"]
RANKS: tuple[Rank, ...] = ("error", "problem", "warning")
"""`error`: `logrelay serve` would end. `problem`: lines, bots or viewers are lost, or a secret is open. `warning`:
something is not as it usually should be."""

EXITS = {"config": ConfigError.exit_code, "listen": ListenError.exit_code, "journal": JournalError.exit_code}
"""The exit code that `serve` would end with, by what is wrong."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be."""

    code: str
    """Its name, for programs; it stays."""
    rank: Rank
    text: str
    """What is wrong."""
    remedy: str
    """What to do."""
    ends: str = ""
    """Of an `error` a key of `EXITS`."""


def error(code: str, ends: str, text: str, remedy: str) -> Finding:
    """Make a finding that keeps a relay from starting."""
    return Finding(code, "error", text, remedy, ends)


def problem(code: str, text: str, remedy: str) -> Finding:
    """Make a finding that somebody has to act on."""
    return Finding(code, "problem", text, remedy)


def warning(code: str, text: str, remedy: str) -> Finding:
    """Make a finding that somebody should know of."""
    return Finding(code, "warning", text, remedy)


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Return the gravest first."""
    return sorted(findings, key=lambda finding: RANKS.index(finding.rank))


def exit_code(findings: Sequence[Finding]) -> int:
    """Return what `check` ends with: what `serve` would, 7 for another problem, 0 for nothing or warnings."""
    errors = [EXITS[finding.ends] for finding in findings if finding.rank == "error"]
    if errors:
        return min(errors)  # settings are read first, then sockets are bound, then the journal is opened
    return NeedsLookError.exit_code if any(finding.rank == "problem" for finding in findings) else 0
