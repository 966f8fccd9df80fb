"""The web viewer in a real browser, against a real relay with a real trader's frames.

Needs playwright (a package) and Chromium (the system's own; playwright downloads nothing here).
"""

from __future__ import annotations

import re
import secrets
import shutil
import time

import pytest

from logrelay.http.api import STATIC
from tests.support.waiting import DEADLINE_S

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright_api.expect
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

MESSAGES = "() => [...document.querySelectorAll('.row:not(.notice) .message')].map((m) => m.textContent)"


@pytest.fixture(scope="module")
def browser():
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser, playwright.devices["iPhone 13"]
        browser.close()


@pytest.fixture
def phone(browser):
    """A page on a phone. An exception in the page fails the test."""
    chromium, device = browser
    context = chromium.new_context(**device)
    context.set_default_timeout(DEADLINE_S * 1000)
    expect.set_options(timeout=DEADLINE_S * 1000)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert errors == []


def until(page, script: str, wanted) -> None:
    """Wait until the page's answer is what is wanted."""
    deadline = time.monotonic() + DEADLINE_S
    while (seen := page.evaluate(script)) != wanted:
        assert time.monotonic() < deadline, f"{str(seen)[-600:]} is not {str(wanted)[-600:]}"
        page.wait_for_timeout(20)


def numbered(first: int, last: int) -> list[str]:
    return [f"line {n}" for n in range(first, last + 1)]


def log(trader, first: int, last: int, **fields: object) -> list[str]:
    for n in range(first, last + 1):
        trader.log(f"line {n}", **fields)
    trader.wait()
    return numbered(first, last)


def live(page) -> None:
    expect(page.locator("#state")).to_have_text("live")


def test_replay_and_live(relay, phone):
    """What was logged before the page was opened and what comes afterwards join, in order and once each."""
    trader = relay.trader()
    log(trader, 1, 30)
    phone.goto(relay.url)
    until(phone, MESSAGES, numbered(1, 30))
    log(trader, 31, 60)
    until(phone, MESSAGES, numbered(1, 60))
    live(phone)
    expect(phone.locator("#age")).to_contain_text("last line")
    expect(phone.locator(".trader")).to_have_text("robo_trader connected")


def test_every_file_arrives(relay, phone):
    """The page gets each of its scripts once, nothing it asks for is missing, and the browser complains of nothing."""
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
    assert sorted(scripts) == sorted(path.removeprefix("/") for path in STATIC if path.endswith(".js"))
    assert {status for _, status in answers} == {200}
    assert complaints == []


def test_nothing_logged(relay, phone):
    """An empty journal says so, and the first line takes the words' place."""
    phone.goto(relay.url)
    live(phone)
    expect(phone.locator("#empty")).to_have_text("Nothing has been logged yet.")
    log(relay.trader(), 1, 1)
    until(phone, MESSAGES, ["line 1"])
    expect(phone.locator("#empty")).to_be_hidden()


def test_hostile_lines(relay, phone):
    """Markup in messages, keys, values and sources stays text, closed and open."""
    trader = relay.trader()
    attack = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    trader.log(attack, level="error", **{attack: attack, "__proto__": "x", "constructor": {"a": attack}})
    trader.wait()
    phone.goto(relay.url)
    until(phone, MESSAGES, [attack])
    phone.locator(".row:not(.notice)").click()
    expect(phone.locator(".details")).to_contain_text(attack)
    assert phone.locator("main img, main script").count() == 0
    assert phone.title() == "logrelay"


def test_open_row(relay, phone):
    """A tap opens a line: every field, the whole traceback; new lines wait meanwhile; a second tap closes it."""
    trader = relay.trader()
    log(trader, 1, 20)
    trader.log(
        "order.rejected", level="error", exception="Traceback:\n  File x\nLimitExceeded: 500 > 300", deep={"a": [1]}
    )
    trader.wait()
    phone.goto(relay.url)
    row = phone.locator(".row.ERROR")
    expect(row.locator(".text")).to_contain_text("exception=\u2026 LimitExceeded: 500 > 300")
    row.tap()
    expect(row.locator(".details")).to_contain_text("File x")
    expect(row.locator(".details")).to_contain_text("order.rejected")
    expect(row).to_be_in_viewport(ratio=1)
    log(trader, 21, 23)
    expect(phone.locator("#fresh")).to_have_text("3 new lines \u2193")
    expect(row).to_be_in_viewport(ratio=1)
    row.locator(".head").tap()
    until(phone, MESSAGES, [*numbered(1, 20), "order.rejected", *numbered(21, 23)])
    expect(phone.locator(".details")).to_have_count(0)
    expect(phone.locator("#pause")).to_have_text("pause")


def test_level_and_text(relay, phone):
    """The level buttons and the search ask the relay; taking them back brings every line back."""
    trader = relay.trader()
    log(trader, 1, 5, level="debug")
    log(trader, 6, 8, level="warning")
    log(trader, 9, 9, level="error")
    phone.goto(relay.url)
    until(phone, MESSAGES, numbered(1, 9))
    phone.tap("[data-level=WARNING]")
    until(phone, MESSAGES, numbered(6, 9))
    assert phone.url == f"{relay.url}?level=WARNING"
    log(trader, 10, 10)
    log(trader, 11, 11, level="warning")
    until(phone, MESSAGES, [*numbered(6, 9), "line 11"])
    phone.tap("[data-level=DEBUG]")
    until(phone, MESSAGES, numbered(1, 11))
    phone.fill("#text", "LINE 1")
    until(phone, MESSAGES, ["line 1", "line 10", "line 11"])
    phone.reload()
    until(phone, MESSAGES, ["line 1", "line 10", "line 11"])
    phone.fill("#text", "")
    until(phone, MESSAGES, numbered(1, 11))
    phone.fill("#text", "nowhere")
    until(phone, MESSAGES, [])


def test_conditions(relay, phone):
    """A field of an open line becomes a filter with one tap, and goes with another."""
    trader = relay.trader()
    log(trader, 1, 3, symbol="AAPL")
    log(trader, 4, 6, symbol="MSFT", note="a&b=c #1")
    phone.goto(relay.url)
    until(phone, MESSAGES, numbered(1, 6))
    for field, name in (("symbol", "symbol=MSFT"), ("note", "note=a&b=c #1"), ("source", "source=robo_trader.runner")):
        phone.locator(".row:not(.notice)").last.tap()
        term = phone.locator(".details dt", has_text=re.compile(f"^{field}$"))
        term.locator("xpath=following-sibling::dd[1]/button").tap()
        expect(phone.locator("#conditions button", has_text=name)).to_be_visible()
        if field == "symbol":
            until(phone, MESSAGES, numbered(4, 6))
        expect(phone.locator(".details")).to_have_count(0)
    until(phone, MESSAGES, numbered(4, 6))
    for left in (2, 1, 0):
        phone.locator("#conditions button").first.tap()
        expect(phone.locator("#conditions button")).to_have_count(left)
    until(phone, MESSAGES, numbered(1, 6))


def test_bad_filter_in_the_address(relay, phone):
    """A filter that cannot be is refused in words, once, and choosing another one works."""
    log(relay.trader(), 1, 3)
    phone.goto(f"{relay.url}?where=nonsense")
    expect(phone.locator("#problem")).to_contain_text("field=value")
    expect(phone.locator("#state")).to_have_text("refused")
    phone.locator("#conditions button").tap()
    until(phone, MESSAGES, numbered(1, 3))
    live(phone)


def test_relay_killed(relay, phone):
    """While the relay is gone the page says so; afterwards the lines go on behind the last one, none twice."""
    log(relay.trader(), 1, 20)
    phone.goto(relay.url)
    until(phone, MESSAGES, numbered(1, 20))
    relay.kill()
    expect(phone.locator("#problem")).to_contain_text("cannot be reached")
    expect(phone.locator("#state")).not_to_have_text("live")
    relay.start()
    log(relay.trader(), 21, 40)
    live(phone)
    until(phone, MESSAGES, numbered(1, 40))
    expect(phone.locator("#problem")).to_be_hidden()


def test_offline(relay, phone):
    """A phone without network says so at once, although its socket looks open, and catches up afterwards."""
    trader = relay.trader()
    log(trader, 1, 20)
    phone.goto(relay.url)
    until(phone, MESSAGES, numbered(1, 20))
    phone.context.set_offline(True)
    expect(phone.locator("#state")).not_to_have_text("live")
    log(trader, 21, 40)
    phone.context.set_offline(False)
    until(phone, MESSAGES, numbered(1, 40))
    live(phone)


def test_silent_connection(relay, phone):
    """A connection that stops answering is found out and replaced; what was missed follows."""
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

    phone.clock.install()
    phone.route_web_socket("**/ws?*", between)
    phone.goto(relay.url)
    phone.clock.run_for(100)
    live(phone)
    phone.clock.run_for(20_000)  # time for a ping, which is swallowed, and with it everything that follows
    log(trader, 6, 9)
    phone.clock.run_for(12_000)
    deadline = time.monotonic() + DEADLINE_S
    while (seen := phone.evaluate(MESSAGES)) != numbered(1, 9):
        assert time.monotonic() < deadline, seen
        phone.clock.run_for(200)


def test_older_lines(relay, phone):
    """Scrolling to the top brings older lines, in order, up to the oldest one."""
    log(relay.trader(), 1, 1000)
    phone.goto(relay.url)
    phone.locator(".row", has_text="line 1000").wait_for()
    assert phone.evaluate(MESSAGES) == numbered(501, 1000)
    phone.evaluate("scroller.scrollTop = -1e9")
    until(phone, "() => document.querySelectorAll('.row').length", 700)
    assert phone.evaluate(MESSAGES) == numbered(301, 1000)
    deadline = time.monotonic() + DEADLINE_S
    while phone.locator("#older").inner_text() != "the oldest line that is kept":
        assert time.monotonic() < deadline
        phone.evaluate("scroller.scrollTop = -1e9")
        phone.wait_for_timeout(50)
    assert phone.evaluate(MESSAGES) == numbered(1, 1000)


def test_pause_by_scrolling(relay, phone):
    """Scrolling up holds the list still and counts what arrives; the button goes to the newest line."""
    trader = relay.trader()
    log(trader, 1, 100)
    phone.goto(relay.url)
    until(phone, MESSAGES, numbered(1, 100))
    phone.evaluate("scroller.scrollTop = -900")
    expect(phone.locator("#pause")).to_have_text("resume")
    top = phone.evaluate("scroller.scrollTop")
    log(trader, 101, 104)
    expect(phone.locator("#fresh")).to_have_text("4 new lines \u2193")
    assert phone.evaluate("scroller.scrollTop") == top
    assert phone.evaluate(MESSAGES) == numbered(1, 100)
    phone.tap("#fresh")
    until(phone, MESSAGES, numbered(1, 104))
    expect(phone.locator(".row").last).to_be_in_viewport()
    log(trader, 105, 140)
    until(phone, MESSAGES, numbered(1, 140))
    expect(phone.locator(".row").last).to_be_in_viewport()


def test_pause_button_and_overflow(relay, phone):
    """More lines during a pause than the page keeps: resuming begins again with the newest, joined to the rest."""
    trader = relay.trader()
    log(trader, 1, 10)
    phone.goto(relay.url)
    until(phone, MESSAGES, numbered(1, 10))
    phone.tap("#pause")
    log(trader, 11, 6000)
    expect(phone.locator("#fresh")).to_have_text("5990 new lines \u2193")
    assert phone.evaluate(MESSAGES) == numbered(1, 10)
    phone.tap("#pause")
    until(phone, MESSAGES, numbered(5501, 6000))


def test_burst(relay, phone):
    """Far more lines than the page keeps leave it with the newest ones, without a hole, and bounded."""
    trader = relay.trader()
    log(trader, 1, 10)
    phone.goto(relay.url)
    until(phone, MESSAGES, numbered(1, 10))
    log(trader, 11, 12_000)
    until(
        phone,
        "() => document.querySelector('#lines').lastChild?.lastChild.querySelector('.message').textContent",
        "line 12000",
    )
    kept = phone.evaluate(MESSAGES)
    assert 4_900 <= len(kept) <= 5_000
    assert kept == numbered(12_001 - len(kept), 12_000)


def test_notices(relay, phone):
    """A gap looks different from a line, and a trader that lost its connection is shown as lost."""
    trader = relay.trader("bot")
    log(trader, 1, 2)
    trader.send([2, 3, 12, 10, "overflow"])
    trader.seq = 12
    log(trader, 13, 13)
    phone.goto(relay.url)
    expect(phone.locator(".row.gap")).to_contain_text("10 lines")
    expect(phone.locator(".trader")).to_have_text("bot connected")
    trader.close()
    expect(phone.locator(".trader")).to_have_text("bot lost")
    expect(phone.locator(".row.told").last).to_contain_text("bot")


def test_token(start, phone):
    """Without the token the page asks for it, says when it is wrong, and keeps it out of the address."""
    token = secrets.token_urlsafe(32)
    relay = start(LOGRELAY_TOKEN=token)
    log(relay.trader(), 1, 3)
    phone.goto(relay.url)
    expect(phone.locator("#login")).to_be_visible()
    assert phone.evaluate(MESSAGES) == []
    phone.fill("#token", "wrong-but-long-enough-to-be-a-token-0000")
    phone.tap("#login button")
    expect(phone.locator("#problem")).to_contain_text("does not know this token")
    phone.fill("#token", token)
    phone.tap("#login button")
    until(phone, MESSAGES, numbered(1, 3))
    expect(phone.locator("#login")).to_be_hidden()
    phone.reload()
    until(phone, MESSAGES, numbered(1, 3))


@pytest.mark.parametrize("form", ["?token={}&level=INFO", "?level=INFO#token={}"])
def test_token_in_the_link(start, phone, form):
    """A link with the token opens the stream, and the address bar forgets the token at once."""
    token = secrets.token_urlsafe(32)
    relay = start(LOGRELAY_TOKEN=token)
    log(relay.trader(), 1, 3)
    phone.goto(relay.url + form.format(token))
    until(phone, MESSAGES, numbered(1, 3))
    assert phone.url == f"{relay.url}?level=INFO"
    assert phone.evaluate("sessionStorage.getItem('logrelay.token')") == token
