"""The page for everybody: no violation that axe-core knows, small and large screens, the keyboard, forced colours.

axe-core is a package for npm: a folder with `axe-core/axe.min.js` is found through NODE_PATH, or beside the programs of
npm on PATH. Without it those tests are skipped.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.support.browser import (
    MESSAGES,
    log,
    needs_chromium,
    told,
    until,
    until_true,
)

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect
pytestmark = needs_chromium


def axe_script() -> Path | None:
    """Return the file of axe-core, or None."""
    places = [Path(place) for place in os.environ.get("NODE_PATH", "").split(os.pathsep) if place]
    if wscat := shutil.which("wscat"):  # installed with it, see .ci/run
        places.append(Path(wscat).parent.parent)
    found = (place / "axe-core" / "axe.min.js" for place in places)
    return next((path for path in found if path.is_file()), None)


AXE = axe_script()
CHECK = """() => axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => violations.flatMap((one) =>
    one.nodes.map((node) => `${one.id}: ${node.html.slice(0, 160)} ${node.any.map((any) => any.message)}`)))"""


def violations(page) -> list[str]:
    """Return what axe-core finds in the page as it is, in both themes."""
    found: list[str] = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found += [f"{scheme}: {one}" for one in page.evaluate(CHECK)]
    return found


CUT_OFF = """(width) => [...document.querySelectorAll('button, input, h2, .since, .money, .state')].filter((node) => {
    const box = node.getBoundingClientRect();
    if (!box.width || !box.height || node.closest('.offscreen, .probe')) return false;
    const spilt = node.closest('.cards') && node.scrollWidth > node.clientWidth + 1;
    return box.left < -1 || box.right > width + 1 || spilt;
}).map((node) => node.outerHTML.slice(0, 120))"""
"""What reaches beyond the left or the right edge of the screen, or of its card."""


@pytest.fixture
def busy(relay):
    """Return a relay whose journal has something of everything, and the bots that logged it."""
    trader, other = relay.trader("scalper"), relay.trader("a_bot_with_a_rather_long_name")
    log(trader, 1, 40, symbol="AAPL")
    fields = {"symbol": "NVDA", "side": "sell", "order_id": "P-1"}
    trader.log("order.submitted", qty=92, **fields)
    trader.log("trade.executed", quantity=92, price="129.83", pnl="-36.80", **fields)
    trader.log("trade.executed", quantity=1, price="129.83", pnl="3", **(fields | {"order_id": "P-2", "side": "buy"}))
    trace = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\nOrderRejected: margin call'
    trader.log("pnl.update", realised_pnl="1204.10", positions=3)
    trader.send([2, trader.seq + 1, trader.seq + 10, 10, "overflow"])
    trader.seq += 10
    log(other, 1, 2, level="debug")
    log(other, 3, 3, level="warning", reason="slow")
    other.log("stop", level="critical")
    other.wait()
    trader.log("order.rejected", level="error", exception=trace, **(fields | {"order_id": "P-3"}))
    trader.wait()
    return relay


def ready(page, url: str) -> None:
    """Open the page, and wait until every part of it has come."""
    page.goto(url)
    expect(page.locator("#money")).to_be_visible()
    expect(page.locator(".bot")).to_have_count(2)
    until_true(page, "document.querySelectorAll('#canvas .row').length > 8")
    expect(page.locator("#canvas .row:not(.notice)").last).to_contain_text("REJECTED")  # the newest line


def states(page):
    """Bring the page into each of its states, one after the other; yields the name of each."""
    yield "log"
    page.locator("#canvas .row.ERROR:not(.notice) .face").first.click()
    expect(page.locator("#sheettitle")).to_be_focused()
    yield "sheet"
    page.locator("#sheet .value").first.click()
    yield "value"
    page.locator("#sheet .close").click()
    expect(page.locator("#sheet")).to_be_hidden()
    page.click("#tab-problems")
    expect(page.locator("#problems li")).to_have_count(4)
    yield "problems"
    page.click("[data-tab=trades]")
    expect(page.locator("#trades li")).to_have_count(3)
    yield "trades"
    page.click("#search")
    page.fill("#text", "nvda")
    until_true(page, "document.querySelectorAll('#canvas mark').length > 0")
    yield "search"
    page.fill("#text", "nothing like this")
    expect(page.locator("#empty")).to_have_text("No line matches so far.")
    expect(page.locator("#empty")).to_be_in_viewport()
    yield "no match"
    page.fill("#text", "")
    expect(page.locator("#conditions button")).to_have_count(0)
    page.click("#search")
    until_true(
        page, "document.querySelectorAll('#canvas .row').length > 1"
    )  # those of the new stream: "no match" had none
    page.evaluate("scroller.scrollTop = 0")
    expect(page.locator("#fresh")).to_be_visible()
    yield "paused"
    page.click("#menu")
    expect(page.locator("#moretitle")).to_be_focused()
    yield "more"
    page.locator("#more-sheet .close").click()


@pytest.mark.skipif(AXE is None, reason="axe-core is not installed")
def test_axe(busy, open_phone):
    """Rules of WCAG and good practice hold in every state and both themes, contrast among them."""
    page = open_phone()
    page.add_init_script(AXE.read_text("utf-8"))
    ready(page, busy.url)
    found = {name: violations(page) for name in states(page)}
    page.locator(".bot button", has_text="scalper").click()
    expect(page.locator("#since")).to_contain_text("of other bots")
    found["one bot"] = violations(page)
    page.click("#tab-problems")
    expect(page.locator("#more")).to_be_visible()
    found["problems of one bot"] = violations(page)
    page.locator("#conditions button").click()
    page.locator("#seen").click()
    expect(page.locator("#since")).to_contain_text("nothing went wrong")
    found["seen"] = violations(page)
    page.goto(f"{busy.url}?level=loud#zzz-4")
    expect(page.locator("#trouble")).to_be_visible()
    found["trouble"] = violations(page)
    busy.traders[0].close()
    busy.traders[1].send([3, busy.traders[1].seq])
    busy.traders[1].close()
    expect(page.locator(".bot .state", has_text="STOPPED")).to_be_visible()
    expect(page.locator(".bot .state", has_text="CONNECTION LOST")).to_be_visible()
    found["bots that are gone"] = violations(page)
    page.context.set_offline(True)
    expect(page.locator("#lost")).to_be_visible()
    found["offline"] = violations(page)
    assert {name: these for name, these in found.items() if these} == {}


@pytest.mark.skipif(AXE is None, reason="axe-core is not installed")
def test_axe_asking_for_a_token(start, open_phone):
    """The form that asks for the token has none either, nor has a journal without a line."""
    page = open_phone()
    page.add_init_script(AXE.read_text("utf-8"))
    page.goto(start(LOGRELAY_TOKEN="a-token-of-some-length-0123456789").url)
    expect(page.locator("#login")).to_be_visible()
    expect(page.locator("#login button")).to_be_in_viewport(ratio=1)
    assert violations(page) == []
    page.fill("#token", "a-token-of-some-length-0123456789")
    page.click("#login button")
    expect(page.locator("#empty")).to_have_text("Nothing has been logged yet.")
    told(page)
    assert violations(page) == []


SCREENS = {
    "narrow": {"viewport": {"width": 320, "height": 640}},
    "landscape": {"viewport": {"width": 740, "height": 360}},
    "desktop": {"viewport": {"width": 1280, "height": 800}},
    "forced colours": {"forced_colors": "active"},
}


@pytest.mark.parametrize("name", SCREENS)
def test_screens(busy, open_phone, name):
    """Nothing reaches beyond the edge, and the log has room, in every state."""
    page = open_phone(**SCREENS[name])
    ready(page, busy.url)
    assert page.evaluate("scroller.clientHeight") >= 100
    for state in states(page):
        picture(page, f"{name} {state}")
        assert page.evaluate(CUT_OFF, page.viewport_size["width"]) == [], state
        assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"], state


def picture(page, name: str) -> None:
    """Keep a picture to look at, where one is asked for: PAGE_PICTURES names a folder."""
    if folder := os.environ.get("PAGE_PICTURES"):
        Path(folder, f"{name.replace(' ', '-')}.png").write_bytes(page.screenshot())


@pytest.mark.parametrize("width", [390, 320])
def test_large_text(busy, open_phone, width):
    """With a font of twice the size everything is twice as large, rows too, and still within the screen."""
    page = open_phone(viewport={"width": width, "height": 844})
    page.add_init_script(
        "addEventListener('DOMContentLoaded', () => { document.documentElement.style.fontSize = '200%'; })"
    )
    ready_large(page, busy.url)
    for state in states(page):
        picture(page, f"large {width} {state}")
        assert page.evaluate(CUT_OFF, page.viewport_size["width"]) == [], state
    page.locator("#fresh").click()
    # However large, of a line on the screen something of its message is to be read.
    until_true(
        page,
        """[...document.querySelectorAll('#canvas .message')].every((message) => {
        const row = message.closest('.face').getBoundingClientRect();
        return message.getBoundingClientRect().left < row.right - 40;
    })""",
    )
    until_true(page, "[60, 104].includes(document.querySelector('#canvas .face')?.getBoundingClientRect().height)")
    until_true(page, "scroller.clientHeight >= 150")


def ready_large(page, url: str) -> None:
    """Open the page where less of it fits."""
    page.goto(url)
    expect(page.locator("#money")).to_be_attached()
    expect(page.locator(".bot")).to_have_count(2)
    until_true(page, "document.querySelectorAll('#canvas .row').length > 1")


def test_keyboard(busy, open_phone):
    """Lines are walked, opened and closed, searched and left without a pointer; the keys are told on `?`."""
    page = open_phone()
    ready(page, busy.url)
    focused = "document.activeElement.closest('.row')?.querySelector('.message, .side')?.textContent"
    page.keyboard.press("k")
    until(page, focused, "REJECTED")
    page.keyboard.press("k")
    until(page, focused, "stop")
    for _ in range(30):
        page.keyboard.press("k")
    until_true(page, "document.activeElement.closest('.row') !== null")
    until_true(page, "document.activeElement.getBoundingClientRect().top > 0")
    page.keyboard.press("Enter")
    expect(page.locator("#sheettitle")).to_be_focused()
    assert page.evaluate("getComputedStyle(document.querySelector('#sheet .close')).visibility") == "visible"
    page.keyboard.press("Tab")
    expect(page.locator("#sheet .close")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#sheet")).to_be_hidden()
    until_true(page, "document.activeElement.closest('.row') !== null")  # where it was before
    page.keyboard.press("/")
    expect(page.locator("#text")).to_be_focused()
    page.keyboard.type("nvda")
    until_true(page, "document.querySelectorAll('#canvas mark').length > 1")
    assert page.locator("#text").input_value() == "nvda"
    page.keyboard.press("Escape")
    expect(page.locator("#controls")).to_be_hidden()
    page.keyboard.press("Escape")
    until_true(page, "document.querySelectorAll('#canvas .row').length > 8 && !location.search")
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_contain_text("next line")
    page.keyboard.press("Escape")
    expect(page.locator("#more-sheet")).to_be_hidden()
    page.keyboard.press("g")
    expect(page.locator("#fresh")).to_be_hidden()


def test_roles(busy, open_phone):
    """The page has a heading, its rows are buttons that say what they open, and few of them are tab stops."""
    page = open_phone()
    ready(page, busy.url)
    expect(page.get_by_role("heading", name="logrelay", level=1)).to_be_attached()
    rows = "[...document.querySelectorAll('#canvas .face:not([hidden])')]"
    assert page.evaluate(f"{rows}.every((row) => row.tagName === 'BUTTON' && row.ariaHasPopup === 'dialog')")
    until(page, f"{rows}.filter((row) => row.tabIndex === 0).length", 1)
    assert page.evaluate("getComputedStyle(document.body).fontSize") == "15px"
    assert page.evaluate(f"{MESSAGES[6:]}.length") > 3
