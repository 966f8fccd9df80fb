"""The page's stream and its list in a real browser, against a real relay with a real trader's frames.

Everything that the owner sees besides the list is in `test_page.py`.
"""

from __future__ import annotations

import contextlib
import re
import time

import pytest

from logrelay.http.api import STATIC
from tests.support.browser import (
    MESSAGES,
    NEWEST,
    PLACE,
    log,
    needs_chromium,
    numbered,
    told,
    until,
    until_true,
    walk,
)
from tests.support.waiting import DEADLINE_S

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect
pytestmark = needs_chromium

EPOCH = re.compile(r"([a-z0-9]+)-[0-9]+")


def live(page) -> None:
    """Wait until the page is connected to a relay with a bot that is well."""
    expect(page.locator(".bot[data-tone=good]")).to_be_visible()


def test_replay_and_live(relay, tall):
    """What was logged before the page was opened and what comes afterwards join, in order and once each."""
    trader = relay.trader()
    log(trader, 1, 30)
    tall.goto(relay.url)
    until(tall, MESSAGES, numbered(1, 30))
    log(trader, 31, 60)
    until(tall, MESSAGES, numbered(1, 60))
    live(tall)
    expect(tall.locator(".bot")).to_contain_text("robo_trader")
    expect(tall.locator(".bot .state")).to_have_text("RUNNING")
    expect(tall.locator(".bot .age")).to_contain_text("spoke")


def test_every_file_arrives(relay, open_phone):
    """The page gets each of its scripts once, nothing it asks for is missing, and the browser complains of nothing."""
    phone = open_phone(worker=True)
    answers: list[tuple[str, int]] = []
    complaints: list[str] = []
    phone.on("response", lambda response: answers.append((response.url.removeprefix(relay.url), response.status)))
    phone.on("requestfailed", lambda request: complaints.append(request.url))
    phone.on("console", lambda message: complaints.append(message.text))
    log(relay.trader(), 1, 3)
    phone.goto(relay.url, wait_until="networkidle")
    until(phone, MESSAGES, numbered(1, 3))
    live(phone)
    scripts = [path for path, _ in answers if path.endswith(".js")]
    wanted = [path.removeprefix("/") for path in STATIC if path.endswith(".js") and path != "/sw.js"]
    assert sorted(scripts) == sorted(wanted)
    assert {status for _, status in answers} == {200}
    assert complaints == []


def test_nothing_logged(relay, phone):
    """An empty journal says so, once that is known, and the first line takes the words' place."""
    phone.goto(relay.url)
    expect(phone.locator("#empty")).to_have_text("Nothing has been logged yet.")
    expect(phone.locator("#bots")).to_have_text("No bot has connected yet.")
    log(relay.trader(), 1, 1)
    until(phone, MESSAGES, ["line 1"])
    expect(phone.locator("#empty")).to_be_hidden()


def test_catching_up_is_not_nothing(relay, phone):
    """While the lines are on their way the page does not say that there are none."""
    log(relay.trader(), 1, 40)
    said = "globalThis.said = new Set(); new MutationObserver(() => said.add(empty.textContent)).observe("
    phone.add_init_script(
        f"addEventListener('DOMContentLoaded', () => {{ {said}empty, {{ childList: true, characterData: true }}); }})"
    )
    phone.goto(relay.url)
    until(phone, NEWEST, "line 40")
    assert "Nothing has been logged yet." not in phone.evaluate("[...said]")


def test_hostile_lines(relay, phone):
    """Markup in messages, keys, values and sources stays text, in the row and in the sheet."""
    trader = relay.trader()
    attack = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    trader.log(attack, level="error", **{attack: attack, "__proto__": "x", "constructor": {"a": attack}})
    trader.wait()
    phone.goto(relay.url)
    until(phone, MESSAGES, [attack])
    phone.locator(".row:not(.notice) .face").tap()
    expect(phone.locator("#sheet")).to_contain_text(attack)
    assert phone.locator("main img, main script, dialog img, dialog script").count() == 0
    assert "owned" not in phone.title() or attack in phone.title()


def test_text_that_steers_other_text(relay, phone):
    """Colours of a terminal go, and what turns the direction of text is shown instead of obeyed."""
    trader = relay.trader()
    trader.log("\x1b[31mred\x1b[0m", symbol="AA\u202ePL\x07", note="\u2066x")
    trader.wait()
    phone.goto(relay.url)
    until(phone, MESSAGES, ["red"])
    row = phone.locator(".row:not(.notice) .face")
    expect(row).to_contain_text("symbol=AA\\u{202e}PL\\u{7}")
    assert phone.evaluate("getComputedStyle(document.querySelector('#canvas .value')).unicodeBidi") == "isolate"
    row.tap()
    expect(phone.locator("#sheet")).to_contain_text("\\u{2066}x")
    expect(phone.locator("#sheet h2")).to_have_text("red")


def test_level_and_text(relay, tall):
    """The levels and the search ask the relay, in values as well; taking them back brings every line back."""
    trader = relay.trader()
    log(trader, 1, 5, level="debug")
    log(trader, 6, 8, level="warning")
    log(trader, 9, 9, level="error", order_id="P-77", exception="Traceback\nLimitExceeded: too much")
    tall.goto(relay.url)
    until(tall, MESSAGES, numbered(1, 9))
    tall.tap("#search")
    tall.locator("#levels label", has_text="warning").tap()
    until(tall, MESSAGES, numbered(6, 9))
    assert tall.url == f"{relay.url}?level=WARNING"
    log(trader, 10, 10)
    log(trader, 11, 11, level="warning")
    until(tall, MESSAGES, [*numbered(6, 9), "line 11"])
    tall.locator("#levels label", has_text="all").tap()
    until(tall, MESSAGES, numbered(1, 11))
    tall.fill("#text", "LINE 1")
    until(tall, MESSAGES, ["line 1", "line 10", "line 11"])
    until(tall, "() => [...document.querySelectorAll('#canvas mark')].map((m) => m.textContent)", ["line 1"] * 3)
    expect(tall.locator("#matches")).to_have_text("3 lines match")
    tall.reload()
    until(tall, MESSAGES, ["line 1", "line 10", "line 11"])
    tall.tap("#search")
    for text in ("p-77", "LimitExceeded"):
        tall.fill("#text", text)
        until(tall, MESSAGES, ["line 9"])
    expect(tall.locator("#canvas mark")).to_have_text("LimitExceeded")
    expect(tall.locator("#matches")).to_have_text("1 line matches")
    tall.fill("#text", "nowhere")
    until(tall, MESSAGES, [])
    expect(tall.locator("#empty")).to_have_text("No line matches so far.")
    tall.fill("#text", "")
    until(tall, MESSAGES, numbered(1, 11))


def test_conditions(relay, tall):
    """A value of an open line becomes a filter with two taps, or leaves its lines out; Back undoes each step."""
    trader = relay.trader()
    log(trader, 1, 3, symbol="AAPL", size=5)
    log(trader, 4, 5, symbol="MSFT", note="a&b=c #1")
    log(trader, 6, 6, symbol="MSFT")
    tall.goto(relay.url)
    until(tall, MESSAGES, numbered(1, 6))

    def choose(field: str, action: str) -> None:
        tall.locator(".row:not(.notice) .face").first.tap()
        item = tall.locator("#sheet .values li").filter(has=tall.locator(".key", has_text=re.compile(f"^{field}$")))
        face = item.locator(".value")
        assert face.bounding_box()["height"] >= 44
        assert face.get_attribute("aria-expanded") == "false"
        face.tap()
        item.get_by_role("button", name=action).tap()
        expect(tall.locator("#sheet")).to_be_hidden()

    choose("symbol", "not these")
    until(tall, MESSAGES, numbered(4, 6))
    expect(tall.locator("#conditions")).to_have_text("not symbol=AAPL \u00d7")
    choose("note", "only these")
    until(
        tall, MESSAGES, numbered(4, 5)
    )  # each filter that another tap follows shows other lines: they are the new ones
    expect(tall.locator("#conditions button")).to_have_count(2)
    choose("source", "only these")
    expect(tall.locator("#conditions button")).to_have_count(3)
    for left, lines in ((2, numbered(4, 5)), (1, numbered(4, 6)), (0, numbered(1, 6))):
        tall.go_back()  # the sheet was a step of its own
        tall.go_back()
        expect(tall.locator("#conditions button")).to_have_count(left)
        expect(tall.locator("#sheet")).to_be_hidden()
        until(tall, MESSAGES, lines)
    choose("size", "not these")
    until(tall, MESSAGES, numbered(4, 6))
    tall.locator("#conditions button").tap()
    until(tall, MESSAGES, numbered(1, 6))


def test_bad_filter_in_the_address(relay, phone):
    """A filter that cannot be is refused in words, once, and choosing another one works."""
    log(relay.trader(), 1, 3)
    phone.goto(f"{relay.url}?where=nonsense")
    expect(phone.locator("#trouble")).to_contain_text("field=value")
    phone.locator("#conditions button").tap()
    until(phone, MESSAGES, numbered(1, 3))
    live(phone)
    expect(phone.locator("#trouble")).to_be_hidden()


def test_relay_killed(relay, tall):
    """While the relay is gone nothing is green; afterwards the lines go on behind the last one, none twice."""
    log(relay.trader(), 1, 20)
    tall.goto(relay.url)
    until(tall, MESSAGES, numbered(1, 20))
    live(tall)
    relay.kill()
    expect(tall.locator("#trouble")).to_contain_text("cannot be reached")
    expect(tall.locator("#lost")).to_contain_text("cannot see the bot for")
    expect(tall.locator(".bot[data-tone=unknown]")).to_be_visible()
    relay.start()
    log(relay.trader(), 21, 40)
    until(tall, MESSAGES, numbered(1, 40))
    expect(tall.locator("#trouble")).to_be_hidden()
    expect(tall.locator("#lost")).to_be_hidden()


def test_offline(relay, tall):
    """A phone without network says so at once, although its socket looks open, and catches up afterwards."""
    trader = relay.trader()
    log(trader, 1, 20)
    tall.goto(relay.url)
    until(tall, MESSAGES, numbered(1, 20))
    tall.context.set_offline(True)
    expect(tall.locator("#lost")).to_contain_text("state unknown")
    log(trader, 21, 40)
    tall.context.set_offline(False)
    until(tall, MESSAGES, numbered(1, 40))
    live(tall)


def test_silent_connection(relay, tall):
    """A connection that stops answering is not green after 10 s; it is replaced, and what was missed follows."""
    trader = relay.trader()
    log(trader, 1, 5)
    deaf: list[bool] = []

    def between(route) -> None:
        server = route.connect_to_server()
        if deaf:
            return
        deaf.append(True)
        said: list[bool] = []

        def from_page(message) -> None:
            said.append(True)

        def from_server(message) -> None:
            if not said:
                route.send(message)

        route.on_message(from_page)
        server.on_message(from_server)

    tall.clock.install()
    tall.route_web_socket("**/ws?*", between)
    tall.goto(relay.url)
    until(tall, NEWEST, "line 5")
    tall.clock.run_for(100)
    live(tall)
    tall.evaluate(
        "() => new MutationObserver(() => { globalThis.lostAt ??= Date.now(); }).observe(lost, { attributes: true })"
    )
    silent = tall.evaluate("Date.now()")
    tall.clock.run_for(4_500)  # time for a ping, which is swallowed, and with it everything that follows
    log(trader, 6, 9)
    tall.clock.run_for(5_500)
    assert tall.evaluate("globalThis.lostAt") - silent <= 10_000
    deadline = time.monotonic() + DEADLINE_S
    while (seen := tall.evaluate(MESSAGES)) != numbered(1, 9):
        assert time.monotonic() < deadline, seen
        tall.clock.run_for(200)


def test_the_whole_journal_scrolls(relay, phone):
    """From the newest line to the oldest and back: every line, in order, though few rows exist at a time."""
    trader = relay.trader()
    log(trader, 1, 1500)
    phone.goto(relay.url)
    until(phone, NEWEST, "line 1500")
    up = walk(phone, down=False)
    assert [message for _, message in up if message.startswith("line")] == numbered(1, 1500)
    log(trader, 1501, 1700)
    expect(phone.locator("#fresh")).to_have_text("paused \u00b7 200 new \u2193")
    down = walk(phone)
    assert [message for _, message in down if message.startswith("line")] == numbered(1, 1700)
    assert phone.evaluate("document.querySelectorAll('#canvas .row').length") < 80
    log(trader, 1701, 1702)
    until(phone, NEWEST, "line 1702")


def test_far_away(relay, phone):
    """Dragging the handle to another part of the journal shows the lines of that part, and what surrounds them."""
    log(relay.trader(), 1, 9_000)
    phone.goto(relay.url)
    until(phone, NEWEST, "line 9000")
    phone.evaluate("scroller.scrollTop = scroller.scrollHeight * 0.5")
    until_true(phone, f"({NEWEST})()?.startsWith('line 4') || ({NEWEST})()?.startsWith('line 5')")
    shown = phone.evaluate(MESSAGES)
    first = int(shown[0].split()[1])
    assert shown == numbered(first, first + len(shown) - 1)
    told(phone)
    phone.locator("#thumb").hover()
    phone.mouse.down()
    box = phone.locator("#scroller").bounding_box()
    phone.mouse.move(box["x"] + box["width"] - 5, box["y"])
    phone.mouse.up()
    expect(phone.locator("#edge")).to_have_text("nothing older")
    expect(phone.locator("#canvas .row .message", has_text=re.compile("^line 1$"))).to_be_in_viewport()
    phone.tap("#fresh")
    until(phone, NEWEST, "line 9000")


def test_a_jump_outlives_a_late_answer_of_the_stream(relay, phone):
    """Who goes on to a line before the stream has begun with another filter stays at that line when it begins."""
    held: list[object] = []
    holding: list[bool] = []
    routes = []

    def between(route) -> None:
        routes.append(route)
        server = route.connect_to_server()
        server.on_message(lambda message: held.append(message) if holding else route.send(message))

    trader = relay.trader()
    log(trader, 1, 40)
    log(trader, 41, 41, level="error")
    log(trader, 42, 60)
    phone.route_web_socket("**/ws?*", between)
    phone.goto(f"{relay.url}?level=ERROR")
    until(phone, MESSAGES, ["line 41"])
    holding.append(True)
    with phone.expect_response(lambda answer: "/logs?" in answer.url and "after=" in answer.url):
        phone.locator("#canvas .row.ERROR:not(.notice) .face").tap()
        phone.locator("#sheet").get_by_role("button", name="around this").tap()
    marked = phone.locator("#canvas .row.marked")
    expect(marked).to_contain_text("line 41")
    until_true(phone, "!document.getElementById('edge').textContent.startsWith('loading')")
    deadline = time.monotonic() + DEADLINE_S
    while not any('"subscribed"' in str(message) for message in held):
        assert time.monotonic() < deadline, held
        phone.wait_for_timeout(20)
    while held:  # what comes meanwhile goes behind it
        routes[-1].send(held.pop(0))
    holding.clear()
    log(trader, 61, 61)
    until_true(phone, "fresh.textContent.includes('new') || scroller.textContent.includes('line 61')")
    expect(marked).to_contain_text("line 41")


def test_pause_by_scrolling(relay, phone):
    """Scrolling up holds the list still and counts what arrives, errors apart; the button goes to the newest line."""
    trader = relay.trader()
    log(trader, 1, 100)
    phone.goto(relay.url)
    until(phone, NEWEST, "line 100")
    expect(phone.locator("#fresh")).to_be_hidden()
    phone.evaluate("scroller.scrollTop -= 900")
    expect(phone.locator("#fresh")).to_have_text("paused \u2193")
    place = phone.evaluate(PLACE)
    log(trader, 101, 104)
    log(trader, 105, 106, level="error")
    expect(phone.locator("#fresh")).to_have_text("paused \u00b7 6 new, 2 errors \u2193")
    assert phone.evaluate(PLACE) == place
    expect(phone.locator("#since")).to_contain_text("2 errors")  # the header has grown
    assert phone.evaluate(PLACE) == place
    phone.tap("#fresh")
    until(phone, NEWEST, "line 106")
    log(trader, 107, 140)
    until(phone, NEWEST, "line 140")
    expect(phone.locator("#canvas .row").last).to_be_in_viewport()


RESTLESS = """addEventListener('DOMContentLoaded', () => {
    const [more, canvas] = [document.createElement('p'), document.getElementById('canvas')];
    more.style.cssText = 'height: 90px; margin: 0';
    const change = () => (more.isConnected ? more.remove() : document.querySelector('header').append(more));
    let changed = false;
    new MutationObserver(() => { changed ||= !change(); }).observe(canvas, { attributes: true, subtree: true });
    const frame = () => { changed = false; requestAnimationFrame(frame); };
    frame();
})"""
"""A header of another height whenever the list has changed, once a frame: then the browser moves the list, and its
event comes when the list has another height than the one it was told of."""


def test_the_list_tells_its_own_moves_from_the_owner_s(relay, phone):
    """A restless header never ends following, and the owner's scroll does, whatever the page does just then."""
    trader = relay.trader()
    log(trader, 1, 10)
    phone.add_init_script(RESTLESS)
    phone.goto(relay.url)
    until(phone, NEWEST, "line 10")
    for last in (16, 22, 28, 60, 700):  # from a list that fits to one that scrolls
        log(trader, last - 5, last)
        until(phone, NEWEST, f"line {last}")
        expect(phone.locator("#fresh")).to_be_hidden()
    told(phone)
    # "seen" has every row built anew, at once: before the browser tells of the scroll
    phone.evaluate("scroller.scrollTop -= 900; document.getElementById('seen').click()")
    expect(phone.locator("#fresh")).to_have_text("paused \u2193")
    place = phone.evaluate(PLACE)
    log(trader, 701, 720)
    expect(phone.locator("#fresh")).to_contain_text("new")
    assert phone.evaluate(PLACE) == place


def test_a_list_out_of_sight_keeps_its_place(relay, phone):
    """Older lines that come while the problems are shown move nothing: the log is where it was left."""
    held: list[object] = []
    came: list[str] = []
    phone.on("requestfinished", lambda request: came.append(request.url) if "before=" in request.url else None)
    log(relay.trader(), 1, 1_000)
    phone.goto(relay.url)
    until(phone, NEWEST, "line 1000")
    told(phone)
    phone.route("**/logs?*before=*", lambda route: route.continue_() if held else held.append(route))
    phone.evaluate("scroller.scrollTop = 0")  # whatever the rows' height: there is nothing above that is loaded
    expect(phone.locator("#fresh")).to_be_visible()
    deadline = time.monotonic() + DEADLINE_S
    while not held:
        assert time.monotonic() < deadline
        phone.wait_for_timeout(20)
    place = phone.evaluate(PLACE)
    phone.tap("#tab-problems")
    expect(phone.locator("#panel-log")).to_be_hidden()
    with contextlib.suppress(playwright.Error):  # a page that has waited long enough asks again, and that answer comes
        held[0].continue_()
    while not came:
        assert time.monotonic() < deadline
        phone.wait_for_timeout(20)
    phone.tap("[data-tab=log]")
    expect(phone.locator("#scroller")).to_be_visible()
    until(phone, PLACE, place)


def test_a_closed_sheet_leaves_the_list_where_it_was(relay, phone):
    """Reading a line neither stops the list nor moves it."""
    trader = relay.trader()
    log(trader, 1, 100)
    phone.goto(relay.url)
    until(phone, NEWEST, "line 100")
    told(phone)
    phone.locator("#canvas .face").last.tap()
    expect(phone.locator("#sheet h2")).to_have_text("line 100")
    log(trader, 101, 130)
    phone.locator("#sheet .close").tap()
    expect(phone.locator("#sheet")).to_be_hidden()
    until(phone, NEWEST, "line 130")
    expect(phone.locator("#fresh")).to_be_hidden()


def test_burst(relay, phone):
    """Far more lines than the page keeps: it follows the newest one, and forgets; scrolling up brings them back."""
    trader = relay.trader()
    log(trader, 1, 10)
    phone.goto(relay.url)
    until(phone, NEWEST, "line 10")
    log(trader, 11, 12_000)
    until(phone, NEWEST, "line 12000")
    expect(phone.locator("#fresh")).to_be_hidden()
    phone.evaluate("scroller.scrollTop -= 3000")
    until_true(phone, "document.querySelector('#canvas .message')?.textContent.startsWith('line 118')")
    shown = phone.evaluate(MESSAGES)
    first = int(shown[0].split()[1])
    assert shown == numbered(first, first + len(shown) - 1)


def test_more_than_is_kept_while_paused(relay, phone):
    """More lines during a pause than the page keeps: they are counted, and going on begins with the newest."""
    trader = relay.trader()
    log(trader, 1, 300)
    phone.goto(relay.url)
    until(phone, NEWEST, "line 300")
    phone.evaluate("scroller.scrollTop -= 2000")
    expect(phone.locator("#fresh")).to_be_visible()
    place = phone.evaluate(PLACE)
    log(trader, 301, 9000)
    expect(phone.locator("#fresh")).to_have_text("paused \u00b7 8,700 new \u2193")
    assert phone.evaluate(PLACE) == place
    phone.tap("#fresh")
    until(phone, NEWEST, "line 9000")
    expect(phone.locator("#fresh")).to_be_hidden()


def test_notices(relay, tall):
    """A gap looks different from a line and is counted, and a bot that lost its connection is shown as that."""
    trader = relay.trader("bot")
    log(trader, 1, 2)
    trader.send([2, 3, 12, 10, "overflow"])
    trader.seq = 12
    log(trader, 13, 13)
    tall.goto(relay.url)
    expect(tall.locator(".row.gap")).to_contain_text("10 lines")
    expect(tall.locator("#since")).to_contain_text("1 gap")
    trader.close()
    expect(tall.locator(".bot .state")).to_have_text("CONNECTION LOST")
    expect(tall.locator(".bot[data-tone=warn]")).to_be_visible()
    expect(tall.locator(".row.told").last).to_contain_text("bot")
