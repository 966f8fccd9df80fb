"""The page under load, in a real browser: frames, memory, the first rows, and a journal of a million lines.

    python -m tests.bench.page [rate] [start] [million]

Owns: these three measurements; without a name all are made. It must not be part of the tests: a busy machine changes
what is measured. Needs playwright and Chromium. Read `tests/support/browser` next.

rate     1,000 lines a second for 30 s while the newest is followed: the longest frame, the heap before and after
start    a page that opens with a processor four times as slow and 200 kB/s: milliseconds to the first rows
million  1,000,000 lines: scrolled by the handle, jumped into by time, searched; what is shown is compared each time
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.support.browser import CHROMIUM
from tests.support.http import Relay

RATE, SECONDS = 1_000, 30
LINES = 1_000_000
SHOWN = "() => [...document.querySelectorAll('#canvas .row:not(.notice) .message')].map((m) => m.textContent)"


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


def million(relay: Relay, page: Page) -> None:
    """Compare what is shown all over a journal of a million lines."""
    trader = relay.trader()
    done = threading.Thread(target=lambda: trader.wait(LINES))
    done.start()
    for n in range(1, LINES + 1):
        trader.log(f"line {n}", symbol="MSFT" if n % 100_000 == 7 else "AAPL")
    done.join()
    page.goto(relay.url)
    wait(page, f"() => ({SHOWN})().at(-1) === 'line {LINES}'")

    def check(what: str, near: int | None = None) -> int:
        shown = [int(text.split()[1]) for text in page.evaluate(SHOWN)]
        assert shown == list(range(shown[0], shown[0] + len(shown))), (what, shown)
        assert near is None or shown[0] <= near <= shown[-1], (what, near, shown)
        return shown[0]

    places = []
    for share in range(19, -1, -1):
        page.evaluate(f"scroller.scrollTop = (scroller.scrollHeight - scroller.clientHeight) * {share / 20}")
        page.wait_for_timeout(250)
        wait(page, f"() => ({SHOWN})().length > 8")
        places.append(check(f"at {share}/20"))
    assert places == sorted(places, reverse=True), places
    wait(page, f"() => ({SHOWN})()[0] === 'line 1'")
    print(f"million: dragged to the oldest line, at {places}")
    with sqlite3.connect(relay.directory / "j.db") as journal:
        (when_us,) = journal.execute("select time_us from lines where seq = ?", (LINES // 3,)).fetchone()
    second = datetime.fromtimestamp(when_us / 1e6, UTC).replace(microsecond=0)
    page.tap("#menu")
    page.locator("#moretitle:focus").wait_for()
    local = f"new Date({second.timestamp() * 1000}).toLocaleString('sv').replace(' ', 'T')"
    page.evaluate(f"document.getElementById('when').value = {local}")
    page.locator("#jump button").tap()
    took = wait(page, "() => document.querySelector('#canvas .row.marked') !== null")
    page.wait_for_timeout(500)
    print(f"million: jumped to {second:%H:%M:%S} in {took:.0f} ms, line {check('jump')}")
    page.tap("#search")
    page.fill("#text", "MSFT")
    took = wait(page, f"() => ({SHOWN})().length === 10", 120)
    assert page.evaluate(SHOWN) == [f"line {n * 100_000 + 7}" for n in range(10)]
    print(f"million: ten matches found in {took:.0f} ms")


def main() -> None:
    """Make the measurements that were asked for."""
    measurements = {"rate": rate, "start": start, "million": million}
    for name in sys.argv[1:] or measurements:
        with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
            relay = Relay(Path(folder))
            try:
                measurements[name](relay, open_page(playwright))
            finally:
                relay.stop()


if __name__ == "__main__":
    main()
