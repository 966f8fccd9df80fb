"""The page under load, in a real browser: frames, memory, the first rows, and a journal of a million lines.

    python -m tests.bench.page [rate] [start] [million]

Owns: these three measurements; without a name all are made. It must not be part of the tests: a busy machine changes
what is measured. Needs playwright and Chromium. Read `tests/support/browser` next.

rate     1,000 lines a second for 30 s while the newest is followed: the longest frame, the heap before and after
start    a page that opens with a processor four times as slow and 200 kB/s: milliseconds to the first rows
million  1,000,000 lines: scrolled by the handle, jumped into by time, searched; what is shown is
         compared with what was written each time
"""

from __future__ import annotations

import json
import sqlite3
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.bench.questions import RARE, SYMBOLS, make, order_id
from tests.support.browser import CHROMIUM
from tests.support.http import Relay

RATE, SECONDS = 1_000, 30
LINES = 1_000_000
PLACES, SCREENS = 40, 6
"""Where the handle is dragged to in the journal, and how far somebody scrolls from there."""
ROWS = """() => [...document.querySelectorAll('#canvas .row:not(.notice)')].map((row) => [
    Number(row.dataset.id.split('-').at(-1)),
    [...row.querySelectorAll('.message, .side, .quantity, .symbol, .reason')].map((part) => part.textContent).join(' '),
])"""
"""Seq and text of every row that exists, from top to bottom."""
COVERED = """() => {
    const [first, ...rest] = [...document.querySelectorAll('#canvas .row')];
    const last = rest.at(-1);
    const bottom = Math.min(scroller.scrollTop + scroller.clientHeight, scroller.scrollHeight);
    return last && first.offsetTop <= scroller.scrollTop && last.offsetTop + last.offsetHeight >= bottom - 1;
}"""
"""Whether rows fill the screen: else they are being asked for."""


def open_page(playwright) -> Page:
    browser = playwright.chromium.launch(
        executable_path=CHROMIUM, args=["--enable-precise-memory-info", "--js-flags=--expose-gc"]
    )
    return browser.new_context(**playwright.devices["iPhone 13"], service_workers="block").new_page()


def wait(page: Page, script: str, limit_s: float = 60) -> float:
    """Wait for a condition; returns the milliseconds it took."""
    began = time.monotonic()
    while not page.evaluate(script):
        if time.monotonic() - began > limit_s:
            raise SystemExit(f"not within {limit_s} s: {script}")
        page.wait_for_timeout(10)
    return (time.monotonic() - began) * 1000


def rate(relay: Relay, page: Page) -> None:
    """Measure frames and memory."""
    trader = relay.trader()
    stop = threading.Event()

    def talk() -> None:
        began, sent = time.monotonic(), 0
        while not stop.is_set():
            due = int((time.monotonic() - began) * RATE)
            while sent < due:
                sent += 1
                level = "error" if sent % 500 == 0 else "warning" if sent % 100 == 0 else "info"
                trader.log(f"line {sent}", level=level, symbol="AAPL", close=sent / 7, order_id=f"P-{sent}")
            time.sleep(0.01)

    drain = threading.Thread(target=lambda: [trader.wait(1 << 40)], daemon=True)
    page.goto(relay.url)
    drain.start()
    speaker = threading.Thread(target=talk)
    speaker.start()
    page.wait_for_timeout(5_000)
    heap = "() => { gc(); return performance.memory.usedJSHeapSize / 1e6; }"
    before = page.evaluate(heap)
    page.evaluate("""() => {
        globalThis.longest = 0;
        let last = performance.now();
        const frame = (now) => {
            longest = Math.max(longest, now - last);
            last = now;
            requestAnimationFrame(frame);
        };
        requestAnimationFrame(frame);
    }""")
    page.wait_for_timeout(SECONDS * 1000)
    longest = page.evaluate("longest")
    after = page.evaluate(heap)
    following = page.evaluate("document.getElementById('fresh').hidden")
    rows = page.evaluate("document.querySelectorAll('#canvas .row').length")
    stop.set()
    speaker.join()
    print(
        f"rate: longest frame {longest:.0f} ms, heap {before:.1f} -> {after:.1f} MB, following {following}, {rows} rows"
    )


def start(relay: Relay, page: Page) -> None:
    """Measure the first rows on a slow phone."""
    trader = relay.trader()
    for n in range(2_000):
        trader.log(f"line {n}", symbol="AAPL", close=n / 7, order_id=f"P-{n}")
    trader.wait()
    devtools = page.context.new_cdp_session(page)
    devtools.send("Network.enable")
    conditions = {"offline": False, "latency": 20, "downloadThroughput": 200_000, "uploadThroughput": 200_000}
    devtools.send("Network.emulateNetworkConditions", conditions)
    devtools.send("Emulation.setCPUThrottlingRate", {"rate": 4})
    page.add_init_script("""addEventListener('DOMContentLoaded', () => new MutationObserver((_, observer) => {
        if (document.querySelectorAll('#canvas .row').length <= 5) return;
        globalThis.rowsAt = performance.now();
        observer.disconnect();
    }).observe(document.getElementById('canvas'), { childList: true }));""")
    page.goto(relay.url)
    wait(page, "() => globalThis.rowsAt > 0")
    print(f"start: first rows after {page.evaluate('rowsAt'):.0f} ms")


def expected(seq: int) -> str:
    """Return what the row of a line of `questions.make` shows, without its time."""
    if seq % 100 == 7:
        return f"REJECTED buy {SYMBOLS[seq * seq % 7]} Rejected: margin {seq % 97}"
    if seq % 250_000 == 11:
        return RARE
    return f"BUY {10 + seq * 37 % 490} {SYMBOLS[seq * seq % 7]}"


def million(relay: Relay, page: Page) -> None:
    """Compare what is shown all over a journal of a million lines."""
    page.goto(relay.url)
    wait(page, f"() => ({ROWS})().at(-1)?.[0] === {LINES}")

    def check(what: str, near: int | None = None) -> tuple[int, int]:
        shown = page.evaluate(ROWS)
        seqs = [seq for seq, _ in shown]
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs))), (what, seqs)
        assert [text for _, text in shown] == [expected(seq) for seq in seqs], (what, shown)
        assert near is None or seqs[0] <= near <= seqs[-1], (what, near, seqs)
        return seqs[0], seqs[-1]

    places, looked, slowest = [], 0, 0.0
    for share in range(PLACES - 1, -1, -1):
        page.evaluate(f"scroller.scrollTop = (scroller.scrollHeight - scroller.clientHeight) * {share / PLACES}")
        began = time.monotonic()
        wait(page, COVERED)
        slowest = max(slowest, time.monotonic() - began)
        places.append(check(f"at {share}/{PLACES}")[0])
        assert abs(places[-1] - LINES * share / PLACES) < LINES / 20, (share, places)  # the handle tells about where
        for screen in range(SCREENS):  # from there on as a finger would
            page.evaluate("scroller.scrollTop += scroller.clientHeight * 0.8")
            wait(page, COVERED)
            first, last = check(f"{screen} screens behind {share}/{PLACES}")
            looked += last - first + 1
    assert places == sorted(places, reverse=True), places
    page.evaluate("scroller.scrollTop = 0")
    wait(page, f"() => ({ROWS})()[0]?.[0] === 1 && !edge.hidden && edge.textContent === 'nothing older'")
    check("at the oldest")
    print(f"million: dragged to {PLACES} places, from the newest line to the oldest, each shown within "
          f"{slowest * 1000:.0f} ms; {looked:,} rows compared")  # fmt: skip
    with closing(sqlite3.connect(relay.directory / "j.db")) as journal:
        (when_us,) = journal.execute("select time_us from lines where seq = ?", (LINES // 3,)).fetchone()
        second = -(-when_us // 1_000_000)
        query = "select min(seq) from lines where time_us >= ?"
        (wanted,) = journal.execute(query, (second * 1_000_000,)).fetchone()
    page.tap("#menu")
    page.locator("#moretitle:focus").wait_for()
    local = f"new Date({second * 1000}).toLocaleString('sv').replace(' ', 'T')"
    page.evaluate(f"document.getElementById('when').value = {local}")
    page.locator("#jump button").tap()
    took = wait(page, "() => document.querySelector('#canvas .row.marked') !== null")
    marked = page.evaluate("document.querySelector('#canvas .row.marked').dataset.id.split('-').at(-1)")
    assert int(marked) == wanted, (marked, wanted)
    check("jump", wanted)
    print(f"million: jumped to a time in {took:.0f} ms, to the first line of that second")
    rare = [seq for seq in range(11, LINES + 1, 250_000) if seq % 100 != 7]
    page.tap("#search")
    for text, seqs in ((RARE, rare), (order_id(LINES // 2), list(range(LINES // 2 // 3 * 3, LINES // 2 // 3 * 3 + 3)))):
        page.fill("#text", text)
        took = wait(
            page,
            f"() => JSON.stringify(({ROWS})().map(([seq]) => seq)) === '{json.dumps(seqs, separators=(',', ':'))}'",
            120,
        )
        print(f"million: found the {len(seqs)} lines with {text} in {took:.0f} ms")


def main() -> None:
    """Make the measurements that were asked for."""
    measurements = {"rate": rate, "start": start, "million": million}
    for name in sys.argv[1:] or measurements:
        with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
            if name == "million":
                began = time.monotonic()
                make(Path(folder, "j.db"), LINES, time.time_ns() // 1000)
                print(f"million: {LINES:,} lines written in {time.monotonic() - began:.0f} s")
            relay = Relay(Path(folder), LOGRELAY_KEEP_DAYS="30")
            try:
                measurements[name](relay, open_page(playwright))
            finally:
                relay.stop()


if __name__ == "__main__":
    main()
