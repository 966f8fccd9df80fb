"""From facts to findings: every question the doctor asks.

Owns: the list of the questions, and `diagnose`. It must not look at the machine. Pure. Read `doctor/access_findings`
next, then the other modules of questions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from logrelay.doctor import access_findings, journal_findings, machine_findings, unit_findings
from logrelay.doctor.facts import Facts
from logrelay.doctor.finding import Finding, in_order

Question = Callable[[Facts], Iterator[Finding]]

QUESTIONS: tuple[Question, ...] = (
    *access_findings.QUESTIONS,
    *journal_findings.QUESTIONS,
    *machine_findings.QUESTIONS,
    *unit_findings.QUESTIONS,
)


def diagnose(facts: Facts) -> list[Finding]:
    """Return everything that is found, the gravest first; of a unit that is not there, nothing else."""
    if facts.unit is not None and facts.unit.shown.get("LoadState") != "loaded":
        return list(unit_findings.state(facts))
    return in_order(finding for question in QUESTIONS for finding in question(facts))
