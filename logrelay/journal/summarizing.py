"""A summary of a stretch of the journal.

Owns: how lines that were read are counted. It must not know SQL or threads. Read `http/summary` next: it
shows what was counted.
"""

from __future__ import annotations

from logrelay.fanout.summary import Summary, add_body
from logrelay.journal.interface import Page, Query, SummaryPage

SUMMARY_LINES = 4096
"""Lines that are counted at a time: some 30 ms."""


def summarize_page(page: Page, query: Query) -> SummaryPage:
    """Count the lines of a page."""
    summary = Summary()
    for seq, body in zip(page.seqs, page.bodies, strict=True):
        add_body(summary, query.filter, seq, body)
    return SummaryPage(summary, page.reached, page.complete)
