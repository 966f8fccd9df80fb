"""A few rows of the siege, short: memory, answers, and every line exactly once. `make siege` runs all of them."""

from __future__ import annotations

import os

import pytest

from tests.siege import attack
from tests.siege.rows import ROWS
from tests.siege.siege import lay_siege

FULL = os.environ.get("CHAOS") == "full"
"""CHAOS=full runs every row of the viewers' port with the full counts; latencies are for `make siege` to judge."""

SHORT = (
    "viewers/half_open",
    "viewers/big_headers-token",
    "viewers/unread_logs",
    "viewers/compressed_reconnects",
    "viewers/ping_frames_unread",
    "viewers/subscribe_storm",
)

CHOSEN = [row for row in ROWS if row.name in SHORT or (FULL and row.listener == "viewers")]


@pytest.mark.parametrize("row", CHOSEN, ids=lambda row: row.name)
def test_nobody_else_notices(row):
    """No time is asserted here: other tests run beside it."""
    outcome = lay_siege(row, seconds=8.0 if FULL else 2.0, settle_s=20.0, scale=1.0 if FULL else 0.5)
    assert outcome.attacked["watcher"]["viewer"]["count"] > 0, "the viewer got lines meanwhile"
    assert outcome.faults(times=False) == []


def test_every_row_names_an_attack():
    """And no two rows are the same."""
    assert all(row.attack in attack.ATTACKS_ON[row.listener] for row in ROWS)
    assert len({row.name for row in ROWS}) == len(ROWS) >= 35
