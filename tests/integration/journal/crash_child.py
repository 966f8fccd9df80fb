"""The relay that test_crash kills: goes on where the journal ends, prints each seq that was reported committed."""

from __future__ import annotations

import os
import sys
import time

from logrelay.journal.sqlite import SqliteJournal
from logrelay.journal.writer_thread import JournalThread
from logrelay.model import Commit, Line, Run

BODY = b'{"type":"log","id":"%b-%d","message":"m"}'


class Reports:
    """Writes each report on stdout: the test reads there what the journal promised before the kill."""

    def __init__(self, head: int) -> None:
        self.committed = head

    def on_committed(self, upto: int, oldest: int) -> None:
        self.committed = upto
        os.write(1, b"%d\n" % upto)

    def on_trouble(self, error: Exception) -> None:
        os.write(1, f"trouble {error}\n".encode())

    def on_notice(self, notice: object) -> None:
        del notice

    def on_recovered(self, notices: list[str]) -> None:
        pass

    def on_damaged(self, lines: int) -> None:
        pass


def main() -> None:
    """Append batches of changing sizes until killed."""
    journal = SqliteJournal(
        sys.argv[1], now_us=lambda: time.time_ns() // 1000, random_epoch=lambda: os.urandom(3).hex()
    )
    opening = journal.open()
    head = opening.head
    reports = Reports(head)
    thread = JournalThread(journal, opening, reports, lambda function, *args: function(*args))
    thread.start()
    while True:
        count = 1 + head * 7919 % 97
        lines = [
            Line(seq, seq, 20, "s", 1, BODY % (opening.epoch.encode(), seq), "m", {})
            for seq in range(head + 1, head + 1 + count)
        ]
        head += count
        thread.submit(Commit(lines, [Run(1, b"k" * 16, "app", "host", 1, 1, last_seq=head)]))
        while head - reports.committed > 2000:
            time.sleep(0.0005)


if __name__ == "__main__":
    main()
