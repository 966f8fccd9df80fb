"""What a journal file says about its openings: their epochs, and whether the last one ended in order.

Owns: the keys `epoch`, `epochs`, `boot`, `sync` and `closed` of the table `meta`. It must not begin or end
transactions, nor know files but the kernel's name of this boot. Read `journal/row_writer` next: it writes the rest
of a commit.

An opening takes a new epoch (`fanout/positions` says why) and writes it down with its first commit, which is synced
whatever `--sync` says. So before anybody is given an id of the new epoch, the disk has the epoch, the number it begins
with, and every line in front of it. An opening that commits nothing leaves no trace.

    epoch    that of the last opening that committed something
    epochs   all that are remembered, oldest first, as JSON: name, seq of its first line, 1 if several openings share it
    boot     the boot of the machine, as the kernel names it, in which `epoch` was written
    sync     the `--sync` with which it was written
    closed   the epoch that ended with `close`; the others ended with a kill, a crash or the power

A file of a version before has `epoch` alone, which all its openings shared.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from logrelay.fanout.positions import MAX_EPOCHS, Epoch, Epochs

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping, Sequence


NAME_TRIES = 8
"""Two thousand names of two thousand million: not even the second try ever finds a name that is taken."""

BOOT_ID_FILE = "/proc/sys/kernel/random/boot_id"
"""Random at each boot of the machine (random(4))."""


def boot_id() -> str:
    """Return the kernel's name for this boot of the machine; empty where it does not say."""
    try:
        return Path(BOOT_ID_FILE).read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


class OpeningRecord:
    """The epochs of one journal, and what there is to be written about them. Belongs to the thread that writes.

    `random_epoch` makes a new name, `boot` names the boot of the machine (empty: not known), and `full` says that every
    commit is synced.
    """

    def __init__(self, *, random_epoch: Callable[[], str], boot: str, full: bool) -> None:
        self._random_epoch, self._boot, self._sync = random_epoch, boot, "full" if full else "normal"
        self.epoch = ""
        """The epoch of this opening."""
        self.earlier: list[Epoch] = []
        """Those before it, oldest first, at most MAX_EPOCHS with it."""
        self.unsynced = False
        """The machine stopped under the last opening, and what it had not synced may be gone."""
        self.due = False
        """This opening has not been written down."""
        self._first = 1
        self.epochs = Epochs([], "", 1)
        """All of them, as they are looked up."""

    def begin(self, meta: Mapping[str, object], head: int, *, created: bool) -> None:
        """Take an epoch for an opening of a file whose newest line is `head`; `created`: nobody has opened it before.

        Raises KeyError, TypeError, ValueError for a file that is not ours.
        """
        last = str(meta["epoch"])
        self.earlier = [] if created else read(meta)[1 - MAX_EPOCHS :]
        self.epoch = last if created else self._new_name()
        self._first = head + 1
        self.epochs = Epochs(self.earlier, self.epoch, self._first)
        self.unsynced = self.was_cut_off(meta) and meta["sync"] != "full"
        self.due = True

    def was_cut_off(self, meta: Mapping[str, object]) -> bool:
        """Tell whether the machine stopped under the relay that wrote the file. Raises KeyError."""
        return "boot" in meta and meta["boot"] != self._boot and meta.get("closed") != meta["epoch"]

    def _new_name(self) -> str:
        """Return a name that no remembered epoch has; where there is none to be had, forget the epoch that has it."""
        taken = {epoch.name for epoch in self.earlier}
        name = self._random_epoch()
        for _ in range(NAME_TRIES):
            if name not in taken:
                return name
            name = self._random_epoch()
        self.earlier = [epoch for epoch in self.earlier if epoch.name != name]
        return name

    @property
    def known(self) -> list[Epoch]:
        """All epochs, the one of this opening last."""
        return [*self.earlier, Epoch(self.epoch, self._first)]

    def epoch_of(self, seq: int) -> str:
        """Return the epoch of a line; any thread."""
        return self.epochs.of(seq)

    def go_on(self) -> None:
        """Write the record anew: the same opening goes on in another file."""
        self.due = True

    def write(self, db: sqlite3.Connection) -> None:
        """Write the record in the transaction that is open, which must be synced. Raises sqlite3.Error."""
        write_epochs(db, self.known)
        db.executemany(_PUT, [("boot", self._boot), ("sync", self._sync)])

    def confirm(self) -> None:
        """Note that the transaction is on the disk."""
        self.due = False

    def write_closed(self, db: sqlite3.Connection) -> None:
        """Write that this opening ends in order, in a transaction like that of `write`. Raises sqlite3.Error."""
        db.execute(_PUT, ("closed", self.epoch))


_PUT = "REPLACE INTO meta (key, value) VALUES (?, ?)"


def write_epochs(db: sqlite3.Connection, epochs: Sequence[Epoch]) -> None:
    """Write the epochs of a file, the newest last, in the transaction that is open. Raises sqlite3.Error."""
    text = json.dumps([[epoch.name, epoch.first, int(epoch.shared)] for epoch in epochs], separators=(",", ":"))
    db.executemany(_PUT, [("epoch", epochs[-1].name), ("epochs", text)])


def read(meta: Mapping[str, object]) -> list[Epoch]:
    """Return the epochs that a file remembers; a list that makes no sense leaves them unknown, which is told.

    Raises KeyError and TypeError for a file that is not ours.
    """
    if "epochs" not in meta:
        last, base = str(meta["epoch"]), meta["base"]
        if not isinstance(base, int):
            raise TypeError("base")
        return [Epoch(last, base + 1, shared=True)]
    try:
        return [Epoch(str(name), int(first), bool(shared)) for name, first, shared in json.loads(str(meta["epochs"]))]
    except (TypeError, ValueError):
        return []
