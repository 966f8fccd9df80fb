"""What was wrong with an earlier page, fault by fault, where no other test of the page holds it.

Owns: the table of those faults with the test of each, and the tests that are nobody else's. Each was seen to fail on
that page, or on this one with its cure taken away.
"""

from __future__ import annotations

import re
import struct
import time
from pathlib import Path

import pytest

from logrelay.http.api import STATIC
from tests.support.browser import (
    MESSAGES,
    log,
    needs_chromium,
    numbered,
    until,
    until_true,
)

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect
pytestmark = needs_chromium

HERE = Path(__file__).parent
FAULTS = {
    "a crash, errors and a restart at night leave no trace under a green `live`": "test_page.py::test_the_night",
    "a crash is erased by a restart": "test_page.py::test_the_night",
    "a crash is a small chip": "test_page.py::test_crashed",
    "a bot that was stopped is neutral": "test_page_faults.py::test_a_bot_that_was_stopped_is_amber_and_a_job_is_not",
    "`paused` says live": "test_browser.py::test_pause_by_scrolling",
    "a stall of the network is green for 30 s": "test_browser.py::test_silent_connection",
    "nothing says what is new: count, mark, title, badge": "test_page.py::test_seen",
    "values are not searched, matches not marked": "test_browser.py::test_level_and_text",
    "a notice hides that no line matches": "test_page_faults.py::test_a_notice_does_not_hide_that_no_line_matches",
    "the reason is cut off": "test_page.py::test_the_reason_comes_first",
    "a traceback opens at its oldest frame": "test_page.py::test_sheet",
    "no way around a line, and links to one are ignored": "test_page.py::test_around",
    "no jump to a time": "test_page.py::test_jump_to_a_time",
    "scrolling ends at 5,000 lines": "test_browser.py::test_far_away",
    "a filter set on an old line loses the line": "test_page_faults.py::test_a_filter_set_on_an_old_line_stays_there",
    "a new tab asks for the token again": "test_page.py::test_token",
    "a missing token says `reconnecting`": "test_page.py::test_token",
    "lines of yesterday carry no date": "test_page.py::test_yesterday",
    "ten rows a screen": "test_page.py::test_a_screen_holds_more_than_ten_lines",
    "a trade takes several rows, a fill looks like a signal": "test_page.py::test_trades",
    "two bots that run the same code look alike": "test_page.py::test_two_bots",
    "without a secure context nothing can be copied": "test_page.py::test_sheet",
    "icons are SVG alone": "test_page_faults.py::test_icons_for_every_phone",
    "installed and offline it is the browser's error page": "test_page.py::test_without_a_network",
    "text turns other text around, terminal colours are boxes": "test_browser.py::test_text_that_steers_other_text",
    "contrast, headings, names of controls": "test_page_for_everybody.py::test_axe",
    "no h1, rows without a role": "test_page_for_everybody.py::test_roles",
    "a larger font of the browser does nothing": "test_page_for_everybody.py::test_large_text",
    "forced colours erase what state a bot is in": "test_page_faults.py::test_forced_colours_keep_states_apart",
    "buttons of 26 pixels, Back leaves the page": "test_browser.py::test_conditions",
    "a closed row leaves the list paused": "test_browser.py::test_a_closed_sheet_leaves_the_list_where_it_was",
    "`nothing has been logged` flashes while lines come": "test_browser.py::test_catching_up_is_not_nothing",
}


@pytest.mark.parametrize("test", sorted(set(FAULTS.values())))
def test_every_fault_has_its_test(test):
    """The table names tests that are there."""
    file, _, name = test.partition("::")
    assert re.search(rf"^def {name}\(", (HERE / file).read_text("utf-8"), re.MULTILINE)


def test_a_bot_that_was_stopped_is_amber_and_a_job_is_not(relay, phone):
    """Somebody may have to start the one again; a job that has ended is as it should be."""
    bot, job = relay.trader("my_bot"), relay.trader("backup", started_ns=time.time_ns())
    log(bot, 1, 2)
    bot.send([3, bot.seq])
    bot.close()
    job.log("done")
    job.send([3, job.seq])
    job.close()
    phone.goto(relay.url)
    expect(phone.locator(".bot", has_text="my_bot").locator(".state")).to_have_text(re.compile(r"^STOPPED \d\d:\d\d$"))
    expect(phone.locator(".bot[data-tone=warn]")).to_contain_text("my_bot")
    expect(phone.locator(".bot[data-tone=idle]")).to_contain_text(re.compile(r"backup.*DONE \d\d:\d\d"))


def test_a_bot_that_has_not_come_back_is_not_green(relay, phone):
    """After a restart of the relay it waits for the bots that were there; until they are, nobody knows how they are."""
    trader = relay.trader("my_bot")
    log(trader, 1, 2)
    relay.kill()
    trader.close()
    relay.start()
    phone.goto(relay.url)
    expect(phone.locator(".bot[data-tone=warn] .state")).to_have_text("NOT BACK YET")
    log(relay.trader("my_bot"), 3, 4)
    expect(phone.locator(".bot[data-tone=good] .state")).to_have_text("RUNNING")


def test_a_notice_does_not_hide_that_no_line_matches(relay, phone):
    """A gap may have held what is searched, so it is shown; that no line matches is said all the same."""
    trader = relay.trader()
    log(trader, 1, 3)
    trader.send([2, 4, 13, 10, "overflow"])
    trader.seq = 13
    log(trader, 14, 14)
    phone.goto(f"{relay.url}?text=nowhere")
    expect(phone.locator("#canvas .row.gap")).to_be_visible()
    expect(phone.locator("#empty")).to_have_text("No line matches so far.")


def test_a_filter_set_on_an_old_line_stays_there(relay, phone):
    """Far from the newest line, a value that is tapped narrows what is around the line, which keeps its place."""
    trader = relay.trader()
    for n in range(1, 601):
        trader.log(f"line {n}", symbol="AAPL" if n % 3 else "MSFT", side="buy" if n % 2 else "sell")
    trader.wait()
    phone.goto(relay.url)
    until_true(phone, "[...document.querySelectorAll('#canvas .message')].at(-1)?.textContent === 'line 600'")
    head = phone.locator("#canvas .row").last.get_attribute("data-id")
    phone.goto(f"{relay.url}#{head.rpartition('-')[0]}-{int(head.rpartition('-')[2]) - 400}")
    marked = phone.locator("#canvas .row.marked")
    expect(marked).to_be_in_viewport()
    line = marked.locator(".message").inner_text()
    number = int(line.split()[1])

    def choose(field: str, action: str) -> None:
        marked.locator(".face").tap()
        item = phone.locator("#sheet .values li").filter(has=phone.locator(".key", has_text=re.compile(f"^{field}$")))
        item.locator(".value").tap()
        item.get_by_role("button", name=action).tap()
        expect(phone.locator("#sheet")).to_be_hidden()

    choose("symbol", "only these")
    expect(marked).to_contain_text(line)
    expect(marked).to_be_in_viewport()
    step = [n for n in range(number, number + 4) if (n % 3 == 0) == (number % 3 == 0)][1]
    expect(phone.locator("#canvas .row", has_text=f"line {step}")).to_be_visible()
    choose("side", "not these")
    until_true(phone, "document.querySelectorAll('#conditions button').length === 2")
    other = next(n for n in range(number + 1, number + 9) if n % 2 != number % 2 and bool(n % 3) == bool(number % 3))
    expect(phone.locator("#canvas .row", has_text=f"line {other}")).to_be_in_viewport()
    phone.locator("#conditions button").first.tap()
    phone.locator("#conditions button").first.tap()
    expect(marked).to_contain_text(line)
    expect(marked).to_be_in_viewport()


def test_a_link_to_what_is_gone_says_so(start, open_phone):
    """A line of another journal, and an address with words that mean nothing: it is said, and stays said."""
    relay = start()
    log(relay.trader(), 1, 40)
    phone = open_phone()
    phone.goto(f"{relay.url}#zzz-4")
    expect(phone.locator("#trouble")).to_have_text("The line zzz-4 is not kept any more. These are the newest ones.")
    until_true(phone, "[...document.querySelectorAll('#canvas .message')].at(-1)?.textContent === 'line 40'")
    expect(phone.locator("#trouble")).to_be_visible()
    other = open_phone()
    other.goto(f"{relay.url}?level=loud&tial=5")
    expect(other.locator("#trouble")).to_contain_text(
        "\u201cloud\u201d is no level, so all are shown; there is DEBUG, INFO"
    )
    expect(other.locator("#trouble")).to_contain_text("\u201ctial\u201d in the address means nothing here.")
    until_true(other, "[...document.querySelectorAll('#canvas .message')].at(-1)?.textContent === 'line 40'")
    other.tap("#tab-problems")
    expect(other.locator("#trouble")).to_be_hidden()
    third = open_phone()
    third.goto(f"{relay.url}?level=critical")
    expect(third.locator("#conditions")).to_have_text("CRITICAL and above \u00d7")
    expect(third.locator("#trouble")).to_be_hidden()


def test_a_source_that_is_the_bot_s_name_is_there_once(relay, tall):
    """With several bots each row names its bot; a logger of the same name would say it again."""
    one, other = relay.trader("backup"), relay.trader("my_bot")
    for trader in (one, other):
        trader.seq += 1
        trader.send([1, trader.seq, time.time_ns(), "info", {"event": "line 1"}])
        log(trader, 2, 2)
    tall.goto(relay.url)
    until(tall, MESSAGES, ["line 1", "line 2", "line 1", "line 2"])
    rows = """() => [...document.querySelectorAll('#canvas .row:not(.notice) .first')]
        .map((row) => row.textContent.slice(11))"""
    until(
        tall,
        rows,
        [f"{app} {source}line {n}" for app in ("backup", "my_bot") for n, source in ((1, ""), (2, "runner "))],
    )


def test_icons_for_every_phone(relay, phone):
    """PNG in the sizes that phones want, one for iOS, each as large as it says, and a manifest that names them."""
    phone.goto(relay.url)
    found = phone.evaluate(
        "async () => (await (await fetch(document.querySelector('link[rel=manifest]').href)).json()).icons"
    )
    sizes = {icon["sizes"] for icon in found if icon["type"] == "image/png"}
    assert {"192x192", "512x512"} <= sizes
    touch = phone.evaluate("document.querySelector('link[rel=apple-touch-icon]').getAttribute('href')")
    for path in [touch, *(f"static/{Path(icon['src']).name}" for icon in found if icon["type"] == "image/png")]:
        assert f"/{path}" in STATIC
        data = phone.request.get(relay.url + path).body()
        width, height = struct.unpack(">II", data[16:24])
        assert (data[:4], width) == (b"\x89PNG", height)
        assert str(width) in path


def test_forced_colours_keep_states_apart(relay, open_phone):
    """Where the system chooses the colours, a bot that is well, one that is not and what is pressed look different."""
    page = open_phone(forced_colors="active")
    good, stopped = relay.trader("good"), relay.trader("stopped")
    log(good, 1, 1)
    log(stopped, 2, 2)
    stopped.send([3, stopped.seq])
    stopped.close()
    page.goto(relay.url)
    expect(page.locator(".bot[data-tone=good]")).to_be_visible()
    expect(page.locator(".bot[data-tone=warn]")).to_be_visible()
    look = """(name) => {
        const style = getComputedStyle(document.querySelector(name));
        return [style.borderInlineStartStyle, style.backgroundColor];
    }"""
    styles = {tone: page.evaluate(look, f".bot[data-tone={tone}] button")[0] for tone in ("good", "warn")}
    assert styles == {"good": "solid", "warn": "dashed"}
    pressed = page.evaluate(look, "nav [aria-current]")[1]
    assert pressed != page.evaluate(look, "nav button:not([aria-current])")[1]
    until(page, MESSAGES, numbered(1, 2))
