"""What is wrong with the machine and the installation: clock, packages, limits.

Owns: the questions about them. It must not look at the machine. Pure. Read `doctor/unit_findings` next.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from logrelay.config.value_types import MIB
from logrelay.doctor.facts import Facts
from logrelay.doctor.finding import Finding, error, problem, warning

OWN_DESCRIPTORS = 64
"""Of the relay besides connections: files of the journal, listening sockets, the event loop."""

LEAST_MEMORY = 256 * MIB
"""A relay takes 40 MB, some 100 MB with hundreds of viewers, and holds 64 MiB of lines while its disk is full."""


def clock(facts: Facts) -> Iterator[Finding]:
    """A clock that nobody sets."""
    if facts.clock_synchronised is False:
        yield warning(
            "clock_not_synchronised",
            "the machine's clock is not synchronised: times of lines are as wrong as it is, and tokens expire by it",
            "timedatectl set-ntp true, with systemd-timesyncd or chrony installed",
        )


def packages(facts: Facts) -> Iterator[Finding]:
    """Packages that are missing, or older than what was tried."""
    if facts.alerts_error:
        yield error("package_missing", "config", facts.alerts_error, "or take the alerts out of the settings")
    for package in facts.packages:
        if package.version is None:
            yield error("package_missing", "config", f"{package.name} is not installed", "install logrelay-daemon anew")
        elif _numbers(package.version) < _numbers(package.bound):
            yield problem(
                "package_old",
                f"{package.name} {package.version} is installed, {package.bound} is the oldest that works",
                f"pip install --upgrade '{package.name}>={package.bound}' in the relay's environment",
            )


def limits(facts: Facts) -> Iterator[Finding]:
    """Limits of the process below what its settings promise."""
    config = facts.effective.config
    needed = config.max_viewers + config.max_traders + OWN_DESCRIPTORS
    if facts.descriptors is not None and facts.descriptors < needed:
        yield warning(
            "few_descriptors",
            f"the relay may have {facts.descriptors:,} files open, and max_viewers and max_traders together ask for "
            f"{needed:,}",
            f"set LimitNOFILE={needed} in the unit, or lower LOGRELAY_MAX_VIEWERS",
        )
    if facts.memory is not None and facts.memory < LEAST_MEMORY:
        yield warning(
            "little_memory",
            f"the unit may take {facts.memory // MIB} MiB of memory (MemoryMax=): a crowd of viewers, or a disk that "
            "is full for a while, ends the relay",
            f"set MemoryMax= to {LEAST_MEMORY // MIB}M or more",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


QUESTIONS = (clock, packages, limits)
