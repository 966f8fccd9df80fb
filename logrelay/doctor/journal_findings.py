"""What is wrong with the journal, its disk, and with who writes into it.

Owns: the questions about the journal's file, room, readers and bots. It must not look at the machine. Pure. Read
`doctor/machine_findings` next.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from logrelay.config.value_types import KIB, MIB
from logrelay.doctor.facts import SEARCH, WRITE, Facts
from logrelay.doctor.finding import Finding, error, problem, warning
from logrelay.journal.room_watch import LOW_SHARE, PINNED_SHARES

CLOCK_BEHIND_US = 300_000_000
"""Five minutes: a step that a clock takes when it is set; beyond that lines come before those that are there."""

UP_STATES = ("connected", "quiet")
"""States of a bot that is there."""

BAD_STATES = ("crashed", "lost", "gone")
"""States of a bot that somebody has to look at; `closed` said goodbye."""


def place(facts: Facts) -> Iterator[Finding]:
    """Whether the relay may write where the journal is to be."""
    found, config = facts.journal, facts.effective.config
    if found is None:
        return
    if found.refusal:
        yield error("journal_refused", "journal", found.refusal, "see what it says; nothing was changed")
    closed = next((node for node in found.way if not node.allows(facts.user, SEARCH)), None)
    directory = found.way[-1] if found.way else None
    if closed is not None:
        yield error(
            "journal_unreachable",
            "journal",
            f"{facts.user.name} may not pass {closed.path} (mode {closed.rights}) on the way to {config.journal}",
            "give it that right, or choose another LOGRELAY_JOURNAL",
        )
    elif directory is not None and not directory.allows(facts.user, WRITE | SEARCH):
        what = "write to" if found.directory_there else "make a directory in"
        yield error(
            "journal_directory",
            "journal",
            f"{facts.user.name} may not {what} {directory.path} (mode {directory.rights}, owner {directory.uid}), "
            f"where {config.journal} is to be",
            f"chown {facts.user.name} {directory.path}, or choose another LOGRELAY_JOURNAL",
        )
    elif found.node is not None and not found.node.allows(facts.user, WRITE):
        yield error(
            "journal_not_writable",
            "journal",
            f"{facts.user.name} may not write to {config.journal} (mode {found.node.rights}, owner {found.node.uid})",
            f"chown {facts.user.name} {config.journal} {config.journal}-wal {config.journal}-shm",
        )
    if found.held_by is not None and facts.relay is None and not (facts.unit is not None and facts.unit.runs):
        who = f"process {found.held_by}" if found.held_by else "one that is not to be seen from here"
        yield error(
            "journal_in_use",
            "journal",
            f"another relay ({who}) has {config.journal} open, and none answers on the port of these settings",
            "stop it, or choose another LOGRELAY_JOURNAL",
        )
    if found.waits_for_others:
        yield warning(
            "journal_on_network",
            f"{config.journal} is on a file system ({found.file_system or 'unknown'}) that waits for another machine "
            "or program: commits take as long as that does, and locks may not hold",
            "put the journal on a local disk",
        )


def room(facts: Facts) -> Iterator[Finding]:
    """Whether what is to be kept fits, and whether somebody holds the log."""
    found, config = facts.journal, facts.effective.config
    if found is None:
        return
    if found.free is not None and found.total:
        wanted = found.keep_free
        if wanted and found.free < wanted // LOW_SHARE:
            yield problem(
                "disk_low",
                f"{_mib(found.free)} of the file system of {config.journal} are free, {_mib(wanted)} are to stay free",
                "free some space: a full disk stops the bot, too",
            )
        elif found.free + found.size < config.keep_bytes + wanted:
            yield warning(
                "disk_small",
                f"keep_bytes is {_mib(config.keep_bytes)}, and the file system has {_mib(found.free + found.size)} for "
                f"the journal, of which {_mib(wanted)} are to stay free: lines will go early for lack of room",
                f"set LOGRELAY_KEEP_BYTES to {max(1, (found.free + found.size - wanted) * 3 // 4 // MIB)}MiB or less, "
                "or free some space",
            )
    if found.log_bytes > PINNED_SHARES * found.log_share and found.readers:
        yield problem(
            "log_pinned",
            f"the journal's write-ahead log has {_mib(found.log_bytes)}, where its share is {_mib(found.log_share)}, "
            f"and is read by {', '.join(found.readers)}: it cannot get shorter before that ends",
            "end its transaction, or the program",
        )


def bots(facts: Facts) -> Iterator[Finding]:
    """Which bots have been seen, and how they are."""
    found = facts.journal
    if found is None or found.bots is None:
        return
    if not found.bots and not facts.effective.config.collect:
        since = "" if found.made_us is None else f" since {_time(found.made_us)}"
        yield warning(
            "no_bot_seen",
            f"no bot has been seen{since}",
            "start one; on its stderr it says where it looks for the relay (docs/bots.md)",
        )
    states = {bot.app: bot.state for bot in found.bots}
    named = facts.effective.origins.get("expect", "expect")
    for app in facts.effective.config.expect:
        if states.get(app) not in UP_STATES:
            yield problem(
                "bot_not_up",
                f"the bot {app!r} should always be up ({named}), and {_how(states.get(app))}",
                "start it; on its stderr it says where it looks for the relay (docs/bots.md)",
            )
    for bot in found.bots:
        if bot.state in BAD_STATES and bot.app not in facts.effective.config.expect:
            last = "" if bot.last_us is None else f", its last line is of {_time(bot.last_us)}"
            yield warning(
                "bot_missing", f"the bot {bot.app!r} {_how(bot.state)}{last}", "logrelay status shows what it said last"
            )


def clock(facts: Facts) -> Iterator[Finding]:
    """A clock that the journal shows to be wrong."""
    newest = None if facts.journal is None else facts.journal.newest_us
    if newest is not None and newest - facts.now_us > CLOCK_BEHIND_US:
        yield problem(
            "clock_behind",
            f"the machine's clock says {_time(facts.now_us)}, and the journal's newest line is of {_time(newest)}",
            "set the clock (timedatectl set-ntp true)",
        )


def _how(state: str | None) -> str:
    return {None: "has never been seen", "crashed": "has crashed"}.get(state, f"is {state}")


def _mib(count: int) -> str:
    return f"{count / MIB:,.0f} MiB" if count >= MIB else f"{count / KIB:,.0f} KiB"


def _time(moment_us: int) -> str:
    return f"{datetime.fromtimestamp(moment_us / 1e6, UTC):%Y-%m-%d %H:%M} UTC"


QUESTIONS = (place, room, bots, clock)
