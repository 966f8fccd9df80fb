"""Whether the log and the disk have room, and what people are told of it: once when it begins, once when it is over.

Owns: `RoomWatch`, which is told what a checkpoint and the file system have said, and answers whether somebody holds the
write-ahead log and whether the disk is low. It must not touch files or SQLite: how to find the programs that hold the
log is an argument, as is the time (`now`, a clock that never steps, in seconds). Read `journal/lock_holders` next: it
finds them.

A checkpoint moves the log into the file only as far as the oldest reader has read. Who begins a transaction and leaves
it open, in a terminal with sqlite3 for instance, therefore keeps the log growing, beyond every limit, and nothing the
relay may do ends that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from logrelay.journal.interface import Room, UpkeepNotice
from logrelay.model import ERROR, WARNING

PINNED_SHARES = 2
"""A log is worth talking about at twice the share of the journal that is its own: a page that somebody reads, or a
backup, holds it for a moment, and the next checkpoint makes up for that."""
PINNED_AFTER_S = 10.0
"""And when it was held for so long: the relay's own readers take some milliseconds."""
RETRY_S = 5.0
"""How often a checkpoint is tried while somebody holds a long log, so that its end is noticed while no line comes."""
LOW_SHARE = 2
"""The disk is low with half of what is to stay free: down to all of it the oldest lines make room, and the two would be
told in turns."""
LOW_LOOK_S = 30.0
"""How often the disk is looked at while it is low, so that the end is noticed while no line comes."""
TELL_AGAIN_S = 600.0
"""What comes and goes is told of this often at most."""

MIB = 1 << 20


@dataclass(slots=True)
class _Told:
    """One condition: whether people know of it."""

    known: bool = False
    began: float = float("-inf")
    """When they were told last that it had begun."""

    def change(self, there: bool, now: float) -> str:
        """Return what is to be told now: `began`, `over` or nothing."""
        if there and not self.known and now - self.began >= TELL_AGAIN_S:
            self.known, self.began = True, now
            return "began"
        if not there and self.known:
            self.known = False
            return "over"
        return ""


class RoomWatch:
    """What is known of one journal's room. Belongs to the thread that writes."""

    def __init__(self, path: str, holders: Callable[[], Sequence[str]]) -> None:
        """Begin with nothing known. `path` is the journal's; `holders` names the programs that read in it.

        `holders` is called when somebody is told, and may look through /proc.
        """
        self._path, self._holders = path, holders
        self._log_bytes = self._share = 0
        self._held_since: float | None = None
        """Since then no checkpoint has moved the whole log; None: the last one has."""
        self._checked = float("-inf")
        self._free: int | None = None
        self._wanted = 0
        self._low = False
        self._pin, self._disk = _Told(), _Told()

    def note_checkpoint(self, now: float, *, log_bytes: int, share: int, whole: bool) -> None:
        """Note what a checkpoint has found: the size of the log, the share that is its own, whether all was moved."""
        self._log_bytes, self._share, self._checked = log_bytes, share, now
        if whole:
            self._held_since = None
        elif self._held_since is None:
            self._held_since = now

    def note_disk(self, free: int | None, wanted: int) -> None:
        """Note how many bytes of the file system are free (None: it does not say), and how many are to be."""
        self._free, self._wanted = free, wanted
        if free is None or not wanted:
            self._low = False
        elif free < wanted // LOW_SHARE:
            self._low = True
        elif free >= wanted:
            self._low = False

    @property
    def _is_long(self) -> bool:
        return self._held_since is not None and self._log_bytes > PINNED_SHARES * self._share

    def is_pinned(self, now: float) -> bool:
        """Tell whether somebody holds the log, and it has grown beyond its share because of that."""
        return self._held_since is not None and self._is_long and now - self._held_since >= PINNED_AFTER_S

    def checkpoint_due(self, now: float) -> bool:
        """Tell whether a checkpoint is to be tried although little has been written."""
        return self._is_long and now - self._checked >= RETRY_S

    def look_in_s(self) -> float:
        """Return in how many seconds something of this is to be looked at again, at the latest."""
        return min(RETRY_S if self._is_long else float("inf"), LOW_LOOK_S if self._low else float("inf"))

    def room(self, now: float) -> Room:
        """Return what is known."""
        pinned_s = now - self._held_since if self._held_since is not None and self.is_pinned(now) else 0.0
        return Room(self._log_bytes, pinned_s, self._free, self._low)

    def take_notices(self, now: float) -> list[UpkeepNotice]:
        """Return what people should be told since the last call."""
        notices = []
        pinned = self._pin.change(self.is_pinned(now), now)
        if pinned == "began":
            notices.append(self._pinned_notice(now))
        elif pinned:
            text = "nobody holds the journal's write-ahead log any more: it is in order again"
            notices.append(UpkeepNotice(WARNING, text, {"state": "log_released"}))
        low = self._disk.change(self._low, now)
        if low and self._free is not None:
            notices.append(self._disk_notice(self._free, low=low == "began"))
        return notices

    def _pinned_notice(self, now: float) -> UpkeepNotice:
        seconds = round(now - (now if self._held_since is None else self._held_since))
        holders = list(self._holders())
        who = (
            f"{', '.join(holders)}; end its transaction"
            if holders
            else "which one is not to be seen from here, logrelay check as root names it; end its transaction"
        )
        text = (
            f"the journal's write-ahead log has grown to {self._log_bytes // MIB} MiB, where its share is "
            f"{self._share // MIB} MiB: another program has been reading the same state of {self._path} for "
            f"{seconds} s, and the log cannot get shorter before it ends: {who}"
        )
        details: dict[str, object] = {"state": "log_pinned", "bytes": self._log_bytes, "seconds": seconds}
        return UpkeepNotice(WARNING, text, details | ({"processes": holders} if holders else {}))

    def _disk_notice(self, free: int, *, low: bool) -> UpkeepNotice:
        details: dict[str, object] = {"state": "disk_low" if low else "disk_recovered"}
        details |= {"free": free, "wanted": self._wanted}
        room = f"{free / MIB:.1f} MiB of the file system of {self._path} are free"
        if low:
            text = f"{room}, {self._wanted / MIB:.1f} MiB are to stay free (--keep-free): free some space"
            return UpkeepNotice(ERROR, f"{text}; a full disk stops the bot, too", details)
        return UpkeepNotice(WARNING, f"{room} again", details)
