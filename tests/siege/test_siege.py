"""A few rows of the siege, short: memory, answers, and every line exactly once. `make siege` runs all of them."""

from __future__ import annotations

import os
import re

import pytest

from tests.siege import attack, page
from tests.siege.rows import ROWS
from tests.siege.siege import lay_siege
from tests.support.waiting import DEADLINE_S

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
    outcome = lay_siege(row, seconds=8.0 if FULL else 2.0, settle_s=DEADLINE_S, scale=1.0 if FULL else 0.5)
    assert outcome.attacked["watcher"]["viewer"]["count"] > 0, "the viewer got lines meanwhile"
    assert outcome.faults(times=False) == []


def test_every_row_names_an_attack():
    """And no two rows are the same."""
    assert all(row.attack in attack.ATTACKS_ON[row.listener] for row in ROWS)
    assert len({row.name for row in ROWS}) == len(ROWS) >= 35


def test_the_page_tells_of_rows_that_exist():
    """docs/siege.md is written by `tests.siege.page`; a row that was renamed would stand there for ever."""
    named = re.findall(r"`((?:viewers|traders)/[^`]+)`", page.PAGE.read_text())
    assert sorted(set(named)) == sorted(row.name for row in ROWS)


def test_a_row_of_the_page_says_what_was_measured():
    """In milliseconds and MB; what did not hold stands at its end, and what was not measured below the table."""
    row = ROWS[0]
    watcher = {"viewer": {"p50": 0.001, "p99": 0.0301, "max": 0.05}, "healthz": {"max": 0.2}, "newcomer": {"max": 1.5}}
    shape = {
        "row": row.name,
        "rss_before": 41 << 20,
        "rss_during": 83 << 20,
        "rss_after": 60 << 20,
        "calm": {"watcher": watcher},
        "attacked": {"watcher": watcher},
        "lost": 0,
        "repeated": 2,
        "faults": ["repeated 2"],
    }
    text = page.written([shape])
    assert " | 41, 83, 60 | 1, 30, 50 | 30 | 200 | 1500 | 0, 2 | repeated 2 |\n" in text
    assert f"| `{row.name}`: 5,000 connections that say nothing" in text
    assert "0 of 1 rows held" in text
    assert f"Not measured: `{ROWS[1].name}`, " in text
