"""A real browser for the page, once for all tests, and what is asked of a page in it.

Owns: the browser, phones in it, and the questions. It must not know what a page should show. Needs playwright (a
package) and Chromium (the system's own; playwright downloads nothing here); without them its tests are skipped. Read
`waiting` next.
"""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime

import pytest

from tests.support.waiting import DEADLINE_S

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

MESSAGES = """() => [...document.querySelectorAll('#canvas .row:not(.notice) .face:not([hidden])')].map((row) =>
    [...row.querySelectorAll('.message, .side, .quantity, .symbol')].map((part) => part.textContent).join(' '))"""
"""What the rows that exist say, from top to bottom; a test that wants all of a short list takes a tall phone."""

NEWEST = "() => [...document.querySelectorAll('#canvas .row:not(.notice) .message')].at(-1)?.textContent"
"""What the last row that exists says, notices apart: they come when they come."""

SHOWN = """() => [
    document.visibilityState, `${innerWidth}x${innerHeight}`,
    `list ${globalThis.scroller?.scrollTop}/${globalThis.scroller?.scrollHeight}/${globalThis.scroller?.clientHeight}`,
    `${document.querySelectorAll('#canvas .row').length} rows`, document.body?.innerText.slice(0, 3000),
].join(', ')"""
"""What a page looks like, in words, for whoever wonders why a test has failed."""

PLACE = """() => new Promise((resolve) => {
    const seen = new ResizeObserver(() => {
        seen.disconnect();
        const top = scroller.getBoundingClientRect().top;
        const below = (row) => row.getBoundingClientRect().bottom > top + 1;
        const row = [...document.querySelectorAll('#canvas .row')].find(below);
        const y = row && Math.round(row.getBoundingClientRect().top - top);
        resolve([row?.querySelector('.message')?.textContent, y]);
    });
    seen.observe(scroller);
})"""
"""The first row that the owner sees, and by how many pixels it is below the top of the list.

Which rows exist around the screen depends on its height, and that on what the header has to say; and between two frames
rows may stand where nobody sees them. A new observer is called once all of a frame is done, before it is painted."""

TALL = 9000
"""Pixels of a phone on which some hundred rows are on the screen."""


NOON = 12


def zone_at_noon() -> str:
    """Return the name of a zone in which it is about noon now.

    The page tells today from yesterday by the phone's clock. A test that runs over midnight would see a day end.
    """
    hours_behind = datetime.now(UTC).hour - NOON
    return f"Etc/GMT{hours_behind:+d}"  # named by how far it is behind, so the sign looks wrong


@pytest.fixture(scope="module")
def chromium():
    """Return the browser and a phone's description, or skip.

    It ends with the module: its event loop belongs to the thread that other modules run theirs in.
    """
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    api.expect.set_options(timeout=DEADLINE_S * 1000)
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser, playwright.devices["iPhone 13"]
        browser.close()


@pytest.fixture
def open_phone(chromium):
    """Return a function that makes a page on a phone. An exception in a page fails the test."""
    browser, device = chromium
    contexts, errors = [], []

    def make(height: int | None = None, *, worker: bool = False, **options):
        given = {**device, "service_workers": "allow" if worker else "block", "timezone_id": zone_at_noon(), **options}
        if height is not None:
            given["viewport"] = {"width": device["viewport"]["width"], "height": height}
        context = browser.new_context(**given)
        context.set_default_timeout(DEADLINE_S * 1000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(f"{error}\n{error.stack}"))
        return page

    yield make
    for context in contexts:
        for page in context.pages:
            print(f"\n{page.url} shows at the end: {page.evaluate(SHOWN)}")  # seen when the test has failed
        context.close()
    assert errors == []


@pytest.fixture
def phone(open_phone):
    """Return a page on a phone."""
    return open_phone()


@pytest.fixture
def tall(open_phone):
    """Return a page on a phone so tall that it shows some hundred rows."""
    return open_phone(TALL)


def until(page, script: str, wanted) -> None:
    """Wait until the page's answer is what is wanted."""
    deadline = time.monotonic() + DEADLINE_S
    while (seen := page.evaluate(script)) != wanted:
        assert time.monotonic() < deadline, f"{str(seen)[-600:]} is not {str(wanted)[-600:]}"
        page.wait_for_timeout(20)


def until_true(page, script: str) -> None:
    """Wait until the page's answer is true."""
    until(page, f"() => Boolean({script})", True)


def told(page) -> None:
    """Wait until the header tells of the bots and of what happened: it is not going to push the list by itself."""
    page.locator("#looked").wait_for()


def numbered(first: int, last: int) -> list[str]:
    """Return the messages of `log`."""
    return [f"line {n}" for n in range(first, last + 1)]


def log(trader, first: int, last: int, **fields: object) -> list[str]:
    """Log lines with the numbers from `first` to `last`, and wait until they are in the journal."""
    for n in range(first, last + 1):
        trader.log(f"line {n}", **fields)
    trader.wait()
    return numbered(first, last)


def walk(page, *, down: bool = True) -> list[tuple[int, str]]:
    """Scroll from where the page is to one end of the list; return (seq, message) of every row on the way, in order."""
    found: dict[int, str] = {}
    deadline = time.monotonic() + DEADLINE_S
    script = """([down]) => {
        const all = [...document.querySelectorAll('#canvas .row')];
        const textOf = (row) => row.querySelector('.message')?.textContent ?? '';
        const rows = all.map((row) => [Number(row.dataset.id.split('-').at(-1)), textOf(row)]);
        const before = scroller.scrollTop;
        const end = down ? all.at(-1)?.offsetTop + all.at(-1)?.offsetHeight : -all[0]?.offsetTop;
        const covered = end >= (down ? before + scroller.clientHeight : -before); // else they are being loaded
        const last = down ? before + scroller.clientHeight >= scroller.scrollHeight - 1 : before === 0;
        if (covered) scroller.scrollTop += (down ? 1 : -1) * scroller.clientHeight * 0.7;
        return [rows, last, fresh.hidden, edge.hidden ? '' : edge.textContent];
    }"""
    while True:
        rows, still, following, edge = page.evaluate(script, [down])
        found |= dict(rows)
        if still and (following if down else edge == "nothing older"):
            return sorted(found.items())
        assert time.monotonic() < deadline, (still, following, edge)
        page.wait_for_timeout(15)
