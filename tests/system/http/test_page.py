"""What a bot's owner sees on the page, in a real browser on a phone: bot, problems, money, one line, the way in.

The bots of a night are real processes; one of them is killed.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import secrets
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from logrelay.access.token_file import change_tokens
from tests.support.browser import (
    MESSAGES,
    log,
    needs_chromium,
    numbered,
    until,
    until_true,
)
from tests.support.waiting import DEADLINE_S

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect
pytestmark = needs_chromium

ROOT = Path(__file__).parents[3]
BOT = """
import os, sys
from robo_trader.logger import get_logger, setup_structlog
setup_structlog()
log = get_logger("robo_trader.runner")
class OrderRejected(Exception): pass
def reject(): raise OrderRejected("margin call")
log.info("engine.started", cash=1000)
if sys.argv[1] == "crash":
    for n in range(12):
        log.info("order.submitted", order_id=f"P-{n}", symbol="AAPL", side="sell", qty=12)
        try:
            reject()
        except OrderRejected:
            log.exception("order.rejected", order_id=f"P-{n}", symbol="AAPL", side="sell", day=3)
    log.critical("trading.suspended", day_pnl=-512)
    os.kill(os.getpid(), 9)
for n in range(60):
    log.info("bar.received", symbol="AAPL", close=n)
print("said", file=sys.stderr, flush=True)
sys.stdin.read()
"""
"""A bot that has a bad night, or one that goes on until its stdin ends."""

FIRST_SCREEN = """() => {
    const seen = (node) => {
        const box = node.getBoundingClientRect();
        return box.top >= 0 && box.bottom <= innerHeight && box.height > 0;
    };
    const parts = [...document.querySelectorAll('header button > *, header p')];
    return parts.filter(seen).map((part) => part.textContent).join(' | ');
}"""


@pytest.fixture
def start_bot():
    """Return a function that starts a bot at a relay; all of them end with the test."""
    bots: list[subprocess.Popen[str]] = []

    def begin(relay, mode: str) -> subprocess.Popen[str]:
        environment = os.environ | {"LOGRELAY_SOCKET": str(relay.socket)}
        environment.pop("LOGRELAY_DISABLED", None)
        command = [sys.executable, "-c", BOT, mode]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        bots.append(subprocess.Popen(command, env=environment, cwd=ROOT, text=True, **pipes))
        return bots[-1]

    yield begin
    for bot in bots:
        bot.communicate(timeout=DEADLINE_S)


@pytest.fixture
def night(relay, start_bot):
    """Return a relay after a night: 12 rejections, a critical line, a crash and a restart."""
    start_bot(relay, "crash").wait(DEADLINE_S)
    bot = start_bot(relay, "go on")
    assert bot.stderr.readline() == "said\n"
    return relay


def test_the_night(night, phone):
    """A phone is unlocked in the morning: without a touch its first screen tells all that happened."""
    phone.goto(night.url)
    expect(phone.locator(".bot .note")).to_contain_text("restarted after a crash at")
    expect(phone.locator("#since")).to_have_text(re.compile("1 crash . 1 critical . 12 errors"))
    wanted = ["RUNNING", "restarted after a crash", "1 crash", "1 critical", "12 errors", "trading.suspended"]
    wanted.append("order.rejected | \u00d712 | OrderRejected: margin call")
    # Its parts come by several ways, and each that comes moves those below it.
    until(phone, f"() => {json.dumps(wanted)}.filter((told) => !({FIRST_SCREEN})().includes(told))", [])
    expect(phone.locator(".bot")).to_have_attribute("data-tone", "warn")  # it runs, and that is not all
    expect(phone).to_have_title(re.compile(r"^\(14\) "))
    expect(phone.locator("#tab-problems")).to_have_text("Problems 14")


def test_crashed(relay, start_bot, phone):
    """A bot that is dead is red, with the time, also for who looks only now; the title says it."""
    start_bot(relay, "crash").wait(DEADLINE_S)
    phone.goto(relay.url)
    expect(phone.locator(".bot[data-tone=bad] .state")).to_have_text(re.compile(r"CRASHED \d\d:\d\d"))
    until_true(phone, "document.title.startsWith('(14) CRASHED ') && document.title.includes('robo_trader')")


def test_what_the_stream_begins_with_was_said_before(relay, phone):
    """A bot that has been silent for an hour "spoke 1 h ago", also for who opens the page only now."""
    trader = relay.trader("sleeper")
    trader.seq += 1
    an_hour_ago = time.time_ns() - 3600 * 10**9
    trader.send([1, trader.seq, an_hour_ago, "info", {"event": "good night", "logger": "robo_trader.runner"}])
    trader.wait()
    phone.goto(relay.url)
    expect(phone.locator("#canvas")).to_contain_text("good night")
    expect(phone.locator(".bot .age")).to_have_text(re.compile(r"^spoke .*(h|min) ago$"))


def test_seen(night, phone):
    """What was marked as seen is counted no more, also after a reload; what comes then is new, in the list as well."""
    phone.add_init_script("""
        navigator.setAppBadge = async (n) => { globalThis.badge = n; };
        navigator.clearAppBadge = async () => { globalThis.badge = 0; };
    """)
    phone.goto(night.url)
    expect(phone.locator("#tab-problems")).to_have_text("Problems 14")
    until(phone, "globalThis.badge", 14)
    phone.tap("#seen")
    expect(phone.locator("#since")).to_have_text(re.compile(r"^since \d\d:\d\d: nothing went wrong$"))
    expect(phone.locator("#tab-problems")).to_have_text("Problems")
    until(phone, "globalThis.badge", 0)
    phone.reload()
    expect(phone.locator(".bot[data-tone=good] .state")).to_have_text("RUNNING")
    expect(phone.locator("#seen")).to_be_hidden()
    trader = night.trader("other")
    trader.log("too late", level="warning")
    trader.wait()
    expect(phone.locator("#since")).to_have_text(re.compile(r"^since \d\d:\d\d: 1 warning$"))
    expect(phone.locator("#canvas .divider.new")).to_have_text("new since you looked")
    expect(phone).to_have_title(re.compile("logrelay$"))


def test_problems(night, phone):
    """What is the same but for its numbers is there once, with how often; a tap leads to the lines."""
    trader = night.trader("other")
    for n in (1, 2, 3):
        trader.log(f"slow answer, {n} s", level="warning")
    trader.wait()
    phone.goto(night.url)
    phone.tap("#tab-problems")
    expect(phone).to_have_url(f"{night.url}?tab=problems")
    cards = phone.locator("#problems li")
    expect(cards).to_have_count(4)
    expect(cards.nth(0)).to_contain_text("CRASH")
    expect(cards.nth(1)).to_contain_text("CRITICAL")
    expect(cards.nth(2)).to_contain_text("order.rejected\u00d712")
    expect(cards.nth(2)).to_contain_text("OrderRejected: margin call")
    expect(cards.nth(3)).to_contain_text("\u00d73")
    cards.nth(2).tap()
    until_true(phone, "document.querySelectorAll('#canvas .row.ERROR').length >= 5")
    expect(phone.locator("#conditions")).to_contain_text("order.rejected")
    phone.go_back()
    cards.nth(0).tap()
    expect(phone.locator("#canvas .row.marked")).to_contain_text("crashed")
    phone.go_back()
    expect(cards).to_have_count(4)


def test_problems_of_one_bot(relay, phone):
    """Who asks for one bot sees its problems alone, and how many there are of others; title and badge are of all."""
    one, other = relay.trader("scalper [1]"), relay.trader("hedger")
    one.log("too late", level="error")
    other.log("broken", level="error")
    other.log("slow", level="warning")
    for trader in (one, other):
        trader.wait()
    phone.goto(relay.url)
    expect(phone.locator("#since")).to_have_text(re.compile("2 errors . 1 warning$"))
    phone.locator(".bot button", has_text="scalper").tap()
    expect(phone.locator("#since")).to_have_text(re.compile(": 1 error . 2 problems of other bots$"))
    expect(phone.locator("#seen")).to_be_hidden()
    expect(phone.locator("#tab-problems")).to_have_text("Problems 1")
    phone.tap("#tab-problems")
    expect(phone.locator("#problems li")).to_have_count(1)
    expect(phone.locator("#problems li")).to_contain_text("too late")
    expect(phone.locator("#more")).to_contain_text("there are 2 problems of other bots")
    until_true(phone, "document.title.startsWith('(2) ')")
    phone.reload()
    expect(phone.locator("#problems li")).to_have_count(1)
    phone.locator("#conditions button").tap()
    expect(phone.locator("#since")).to_have_text(re.compile("2 errors . 1 warning$"))
    expect(phone.locator("#seen")).to_be_visible()


def test_gone_since(relay, phone):
    """When the last look is of a journal that is gone, its time still tells what is new."""
    seen = json.dumps({"id": "zzzzzz-77", "at": round(time.time() * 1000) - 3_600_000})
    phone.add_init_script(f"localStorage.setItem('logrelay.seen', '{seen}')")
    trader = relay.trader()
    trader.log("broken", level="error")
    trader.wait()
    phone.goto(relay.url)
    expect(phone.locator("#since")).to_have_text(re.compile(r"^since .*: 1 error$"))


def trade(trader, number: int, *, gain: str, side: str = "sell") -> None:
    fields = {"symbol": "NVDA", "side": side}
    trader.log("signal.generated", reason="cross down", **fields)
    trader.log("order.submitted", order_id=f"P-{number}", qty=92, **fields)
    for part in ("1/2", "2/2"):
        trader.log("trade.executed", order_id=f"P-{number}", quantity=46, price="129.83", pnl=gain, part=part, **fields)


def test_trades(relay, phone):
    """One row for each order, and money from what the bot logged and nothing else."""
    trader = relay.trader()
    trader.log("hello")
    trader.wait()
    phone.goto(relay.url)
    until(phone, MESSAGES, ["hello"])
    expect(phone.locator("#money")).to_be_hidden()
    trade(trader, 1, gain="-36.80")
    trader.log(
        "order.rejected", level="error", order_id="P-2", symbol="AAPL", side="buy", exception="X\nRejected: margin"
    )
    trader.log("pnl.update", realised_pnl="1204.10", positions=3)
    trader.wait()
    expect(phone.locator("#money")).to_have_text(
        re.compile(r"^today realised pnl \+1204\.10 . 2 fills . 3 open \(\d\d:\d\d\)$")
    )
    row = phone.locator("#canvas .row", has_text="SELL")
    expect(row.first).to_have_text(re.compile(r"^\d\d:\d\d:\d\d I SELL 46 NVDA @129.83 \u221236.80$"))
    until(phone, MESSAGES, ["hello", "SELL 46 NVDA", "SELL 46 NVDA", "REJECTED buy AAPL", "pnl.update"])
    phone.tap("[data-tab=trades]")
    cards = phone.locator("#trades li")
    expect(cards).to_have_count(2)
    expect(cards.nth(0)).to_contain_text("REJECTED BUY AAPL")
    expect(cards.nth(0)).to_contain_text("Rejected: margin")
    expect(cards.nth(1)).to_contain_text("SELL 92 NVDA @129.83 \u221236.80")
    expect(cards.nth(1)).to_contain_text("cross down")
    expect(cards.nth(1)).to_contain_text("2 fills")
    phone.reload()
    expect(cards).to_have_count(2)
    cards.nth(1).tap()
    until(phone, MESSAGES, ["SELL 46 NVDA", "SELL 46 NVDA"])
    expect(phone.locator("#conditions")).to_contain_text("order_id=P-1")


def test_trades_of_another_bot(start, phone):
    """Which events and fields are a trade's is what the operator said."""
    relay = start(LOGRELAY_TRADES="fill=filled,order_id=oid,quantity=size,pnl=gain,report=")
    trader = relay.trader()
    trader.log("filled", oid="7", symbol="BTC", side="buy", size=2, price=9, gain=0)
    trader.log("trade.executed", order_id="8", symbol="ETH", side="buy", quantity=1)
    trader.wait()
    phone.goto(f"{relay.url}?tab=trades")
    expect(phone.locator("#trades li")).to_have_count(1)
    expect(phone.locator("#trades li")).to_contain_text("BUY 2 BTC @9")


def test_the_reason_comes_first(relay, tall):
    """What is usual takes one line, what is not takes two, and nothing that every line has stands before the reason."""
    trader = relay.trader()
    noise = {"day": 3, "at": "09:30", "pid": 7}
    trader.log("bar.received", symbol="AAPL", close=190, **noise)
    trader.log(
        "order.failed",
        level="error",
        order="A1",
        exception="Traceback\n  File x\nmy_bot.risk.LimitExceeded: 500 > 300",
        **noise,
    )
    trader.log("halted", level="warning", symbol="AAPL", reason="volatility", **noise)
    trader.log("stop", level="critical", why="loss", **noise)
    trader.wait()
    tall.goto(relay.url)
    rows = tall.locator("#canvas .row:not(.notice) .face")
    expect(rows).to_have_count(4)
    expect(rows.nth(0)).to_have_text(re.compile(r"^\d\d:\d\d:\d\d I runner bar\.received symbol=AAPL close=190$"))
    expect(rows.nth(1).locator(".second")).to_have_text(re.compile("^LimitExceeded: 500 > 300"))
    expect(rows.nth(1).locator(".first")).to_have_text(re.compile(r"^\d\d:\d\d:\d\d E order\.failed order=A1$"))
    expect(rows.nth(2).locator(".second .reason")).to_have_text("volatility")
    expect(rows.nth(3).locator(".letter")).to_have_text("C")
    faces = "[...document.querySelectorAll('#canvas .row:not(.notice) .face')]"
    until(tall, f"{faces}.map((face) => face.getBoundingClientRect().height)", [30, 52, 52, 52])
    assert tall.locator("#date").inner_text() == tall.evaluate(
        "new Date().toLocaleDateString(undefined, { weekday: 'short', day: 'numeric', month: 'short' })"
    )


def test_a_screen_holds_more_than_ten_lines(relay, phone):
    """With bot, problems and money above it, the list still shows at least a dozen usual lines."""
    trader = relay.trader()
    log(trader, 1, 100, symbol="AAPL")
    trader.log("broken", level="error")
    trader.log("pnl.update", realised_pnl="1", positions=3)
    trader.wait()
    phone.set_viewport_size({"width": 390, "height": 844})
    phone.goto(relay.url)
    expect(phone.locator("#money")).to_be_visible()
    until_true(phone, "scroller.clientHeight / 30 >= 14")


def test_sheet(relay, phone):
    """The cause comes first, of a traceback the last frame; Back closes; copying works without a secure context."""
    trader = relay.trader()
    log(trader, 1, 30)
    trace = (
        'Traceback (most recent call last):\n  File "a.py", line 1, in first\n    deep()\nKeyError: 1\n\n'
        "The above exception was the direct cause of the following exception:\n\n"
        'Traceback (most recent call last):\n  File "a.py", line 2, in outer\n    inner()\n'
        '  File "b.py", line 9, in inner\n    raise\nLimitExceeded: 500 > 300'
    )
    trader.log("order.rejected", level="error", exception=trace, order_id="P-9", deep={"a": [1]})
    trader.log("order.submitted", order_id="P-9")
    trader.wait()
    phone.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    phone.goto(relay.url)
    phone.locator("#canvas .row.ERROR:not(.notice) .face").tap()
    sheet = phone.locator("#sheet")
    expect(sheet.locator(".why")).to_have_text("LimitExceeded: 500 > 300")
    expect(sheet.locator(".why")).to_be_in_viewport(ratio=1)
    lines = sheet.locator(".trace").inner_text().splitlines()
    assert lines[:3] == ["LimitExceeded: 500 > 300", '  File "b.py", line 9, in inner', "    raise"]
    assert lines.index('  File "a.py", line 2, in outer') < lines.index("caused by: KeyError: 1")
    assert re.fullmatch(r"http://.*/#[a-z0-9]+-\d+", phone.url)
    phone.evaluate("document.addEventListener('copy', () => { globalThis.copied = document.activeElement.value; })")
    sheet.get_by_role("button", name="copy", exact=True).first.tap()
    until_true(phone, "JSON.parse(globalThis.copied ?? '{}').context?.order_id === 'P-9'")
    sheet.get_by_role("button", name="link").tap()
    until_true(phone, "globalThis.copied?.startsWith(location.origin + '/#')")
    phone.go_back()
    expect(sheet).to_be_hidden()
    phone.locator("#canvas .row.ERROR:not(.notice) .face").tap()
    sheet.get_by_role("button", name="follow this order").tap()
    until(phone, MESSAGES, ["REJECTED", "order.submitted"])
    expect(phone.locator("#conditions")).to_contain_text("order_id=P-9")


def test_around(relay, open_phone):
    """From a filtered line to what surrounds it, by a link as well; Back returns; a line that is gone is told of."""
    phone = open_phone()
    trader = relay.trader()
    log(trader, 1, 700)
    log(trader, 701, 701, level="error", symbol="MSFT")
    log(trader, 702, 1500)
    phone.goto(f"{relay.url}?level=ERROR")
    until(phone, MESSAGES, ["line 701"])
    phone.locator("#canvas .row.ERROR:not(.notice) .face").tap()
    phone.locator("#sheet").get_by_role("button", name="around this").tap()
    marked = phone.locator("#canvas .row.marked")
    expect(marked).to_contain_text("line 701")
    expect(marked).to_be_in_viewport()
    shown = phone.evaluate(MESSAGES)
    first = int(shown[0].split()[1])
    assert shown == numbered(first, first + len(shown) - 1)
    expect(phone.locator("#fresh")).to_contain_text("paused")
    address = phone.url
    other = open_phone()
    other.goto(address)
    expect(other.locator("#canvas .row.marked")).to_contain_text("line 701")
    expect(other.locator("#canvas .row", has_text="line 700")).to_be_visible()
    phone.go_back()
    phone.go_back()
    until(phone, MESSAGES, ["line 701"])
    epoch = address.split("#")[1].split("-")[0]
    other.goto(f"{relay.url}#{'a' if epoch[0] != 'a' else 'b'}{epoch[1:]}-12")
    expect(other.locator("#trouble")).to_contain_text("is not kept any more. These are the newest ones.")
    until_true(other, "[...document.querySelectorAll('#canvas .message')].at(-1)?.textContent === 'line 1500'")


def test_jump_to_a_time(relay, phone):
    """A date and a time lead to the lines of then; one in the future to the newest."""
    trader = relay.trader()
    log(trader, 1, 400)
    wall = time.time()
    while time.time() < int(wall) + 2:  # the field has seconds
        time.sleep(0.05)
    log(trader, 401, 900)
    phone.goto(relay.url)
    until_true(phone, "document.querySelectorAll('#canvas .row').length > 5")
    phone.tap("#menu")
    expect(phone.locator("#moretitle")).to_be_focused()
    fill = "(at) => { [whenday.value, whentime.value] = at.split(' '); }"
    phone.evaluate(fill, phone.evaluate(f"new Date({(int(wall) + 1) * 1000}).toLocaleString('sv')"))
    phone.locator("#jump button").tap()
    expect(phone.locator("#canvas .row.marked")).to_contain_text("line 401")
    phone.tap("#menu")
    expect(phone.locator("#moretitle")).to_be_focused()
    phone.evaluate(fill, "2099-01-01 00:00:00")
    phone.locator("#jump button").tap()
    until_true(phone, "[...document.querySelectorAll('#canvas .message')].at(-1)?.textContent === 'line 900'")


def test_export(relay, phone):
    """What the filter shows can be saved; no cell is a formula."""
    trader = relay.trader()
    log(trader, 1, 5)
    log(trader, 6, 8, level="warning", note='=1+1,"x"')
    phone.goto(f"{relay.url}?level=WARNING")
    until(phone, MESSAGES, numbered(6, 8))
    found = {}
    for name in ("ndjson", "csv"):
        phone.tap("#menu")
        with phone.expect_download() as download:
            phone.tap(f"#{name}")
        found[name] = Path(download.value.path()).read_text("utf-8")
    saved = [json.loads(line) for line in found["ndjson"].splitlines()]
    assert [line["message"] for line in saved if line["source"] != "logrelay"] == numbered(6, 8)
    rows = [row for row in csv.DictReader(io.StringIO(found["csv"])) if row["source"] != "logrelay"]
    assert [row["message"] for row in rows] == numbered(6, 8)
    assert json.loads(rows[0]["context"]) == {"note": '=1+1,"x"'}


def test_two_bots(relay, tall):
    """Two bots that run the same code are told apart; a tap on one shows it alone."""
    one, other = relay.trader("scalper"), relay.trader("hedger")
    log(one, 1, 3)
    tall.goto(relay.url)
    until(tall, MESSAGES, numbered(1, 3))
    log(other, 4, 6)
    until(tall, MESSAGES, numbered(1, 6))
    expect(tall.locator(".bot")).to_have_count(2)
    until(
        tall,
        "() => [...document.querySelectorAll('#canvas .app')].map((app) => app.textContent)",
        ["scalper"] * 3 + ["hedger"] * 3,
    )
    bot = tall.locator(".bot button", has_text="hedger")
    bot.tap()
    until(tall, MESSAGES, numbered(4, 6))
    assert tall.url == f"{relay.url}?app=hedger"
    bot.tap()
    until(tall, MESSAGES, numbered(1, 6))


@pytest.fixture
def locked(start):
    """Return a relay with a token, and the token."""
    token = secrets.token_urlsafe(32)
    return start(LOGRELAY_TOKEN=token), token


def test_token(locked, open_phone):
    """A missing token and a wrong one have their own words; it is kept for the tab, or for good when that is asked."""
    relay, token = locked
    log(relay.trader(), 1, 3)
    phone = open_phone()
    phone.goto(relay.url)
    form = phone.locator("#login")
    expect(form).to_have_attribute("data-reason", "missing")
    expect(phone.locator("#token")).to_be_focused()
    assert phone.locator("#token").get_attribute("autocomplete") == "current-password"
    assert phone.evaluate(MESSAGES) == []
    phone.fill("#token", "wrong-but-long-enough-to-be-a-token-0000")
    phone.locator("#login button").tap()
    expect(form).to_have_attribute("data-reason", "wrong")
    phone.fill("#token", token)
    phone.locator("#login button").tap()
    until(phone, MESSAGES, numbered(1, 3))
    expect(form).to_be_hidden()
    phone.reload()
    until(phone, MESSAGES, numbered(1, 3))
    assert token not in phone.evaluate("JSON.stringify(localStorage)")
    other = phone.context.new_page()
    other.goto(relay.url)
    expect(other.locator("#login")).to_be_visible()
    other.fill("#token", token)
    other.check("#remember")
    other.locator("#login button").tap()
    until(other, MESSAGES, numbered(1, 3))
    third = phone.context.new_page()
    third.goto(relay.url)
    until(third, MESSAGES, numbered(1, 3))
    third.tap("#menu")
    third.tap("#forget")
    expect(third.locator("#login")).to_have_attribute("data-reason", "missing")
    assert token not in third.evaluate("JSON.stringify(localStorage)")


@pytest.mark.parametrize("reason", ["revoked", "expired"])
def test_token_that_is_no_longer_good(start, open_phone, reason):
    """A revoked token and one whose time is over have their own words, while the page is open and after it."""
    relay = start()
    file = str(relay.directory / "tokens.json")

    def command(*arguments: str) -> str:
        program = [sys.executable, "-m", "logrelay", "token", *arguments, "--tokens", file]
        return subprocess.run(program, capture_output=True, text=True, check=True, cwd=ROOT).stdout

    token = command("add", "phone", "--expires", "1h").strip()
    log(relay.trader(), 1, 3)
    phone = open_phone()
    asked = []
    phone.on("request", lambda request: asked.append(request.url))
    phone.goto(f"{relay.url}#token={token}")
    until(phone, MESSAGES, numbered(1, 3))
    assert phone.url == relay.url
    if reason == "revoked":
        command("revoke", "phone")
    else:
        change_tokens(file, lambda tokens: tuple(replace(one, expires_s=int(time.time()) - 1) for one in tokens))
    expect(phone.locator("#login")).to_have_attribute("data-reason", reason)
    phone.clock.install()
    phone.reload()
    expect(phone.locator("#login")).to_have_attribute("data-reason", reason)
    expect(phone.locator("#token")).to_be_focused()
    expect(phone.locator("#reason")).to_contain_text(reason)
    before = len(asked)
    phone.clock.run_for(60_000)  # each wrong token makes the next answer later, so none is shown again and again
    assert phone.evaluate("document.activeElement.id") == "token"
    assert asked[before:] == []


@pytest.mark.parametrize("form", ["?token={}&level=INFO", "?level=INFO#token={}"])
def test_token_in_the_link(locked, phone, form):
    """A link with the token opens the stream, and the address bar forgets the token at once."""
    relay, token = locked
    log(relay.trader(), 1, 3)
    phone.goto(relay.url + form.format(token))
    until(phone, MESSAGES, numbered(1, 3))
    assert phone.url == f"{relay.url}?level=INFO"
    assert phone.evaluate("sessionStorage.getItem('logrelay.token')") == token


def test_without_a_network(relay, start_bot, open_phone):
    """The installed page opens without the relay, and says what it last knew, when that was, and that it is old."""
    start_bot(relay, "crash").wait(DEADLINE_S)
    phone = open_phone(worker=True)
    phone.goto(relay.url)
    expect(phone.locator("#tab-problems")).to_have_text("Problems 14")
    phone.evaluate("navigator.serviceWorker.ready.then(() => true)")
    relay.kill()
    phone.reload()
    expect(phone.locator("#lost")).to_have_text(re.compile(r"^as of \d\d:\d\d: state unknown now$"))
    expect(phone.locator(".bot[data-tone=unknown] .state")).to_have_text(re.compile("^was CRASHED"))
    expect(phone.locator("#since")).to_contain_text("12 errors")
    relay.start()
    expect(phone.locator(".bot[data-tone=bad] .state")).to_have_text(re.compile(r"^CRASHED|^GONE"))
    expect(phone.locator("#lost")).to_be_hidden()


def test_notifications(relay, open_phone):
    """Who asked for them is told of an error while the page is in the background, once."""
    phone = open_phone(permissions=["notifications"])
    phone.add_init_script("""
        globalThis.told = [];
        globalThis.Notification = class { constructor(title) { told.push(title); } static permission = 'granted';
            static async requestPermission() { return 'granted'; } };
    """)
    trader = relay.trader()
    log(trader, 1, 1)
    phone.goto(relay.url)
    until(phone, MESSAGES, ["line 1"])
    phone.tap("#menu")
    phone.tap("#notify")
    expect(phone.locator("#notify")).to_have_attribute("aria-pressed", "true")
    phone.evaluate("Object.defineProperty(document, 'visibilityState', { value: 'hidden' })")
    log(trader, 2, 2, level="error")
    until(phone, "globalThis.told", ["line 2"])
    log(trader, 3, 3)
    trader.log("late", level="warning")
    trader.wait()
    expect(phone.locator("#since")).to_contain_text("1 warning")
    assert phone.evaluate("globalThis.told") == ["line 2"]


def test_yesterday(relay, phone):
    """When the newest lines are of yesterday, the screen says of which day they are."""
    trader = relay.trader()
    yesterday = time.time_ns() - 86_400 * 10**9
    trader.seq += 1
    trader.send([1, trader.seq, yesterday, "info", {"event": "line 1", "logger": "x"}])
    trader.wait()
    phone.goto(relay.url)
    form = "undefined, { weekday: 'short', day: 'numeric', month: 'short' }"
    wanted = phone.evaluate(f"new Date({yesterday // 10**6}).toLocaleDateString({form})")
    until_true(phone, f"[...document.querySelectorAll('#date, .divider')].some((d) => d.textContent === '{wanted}')")
