"""The alerts on the page: a real relay whose alerts go to a real service, in a real browser on a phone."""

from __future__ import annotations

import re

import pytest

from tests.support.browser import needs_chromium, until_true
from tests.support.waiting import wait_for
from tests.system.alerts.conftest import make_bot, make_relay, receiver
from tests.system.http.test_page_for_everybody import AXE, CUT_OFF, picture, violations

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect
pytestmark = needs_chromium
__all__ = ["make_bot", "make_relay", "receiver"]


def test_the_page_shows_alerts_and_silences_a_bot(make_relay, make_bot, receiver, open_phone):
    """What the owner was called for opens its line; a bot is silenced before its restart, and that is ended again."""
    relay = make_relay(receiver.url)
    bot, other = make_bot(relay), make_bot(relay, "hedger")
    bot.say("raise", "margin call")
    other.say("info", "hello")
    receiver.wait_for("margin call")
    wait_for(lambda: b'"app":"hedger"' in relay.get("/summary")[1], "the other bot to be known")
    phone = open_phone(viewport={"width": 320, "height": 640})
    if AXE is not None:
        phone.add_init_script(AXE.read_text("utf-8"))
    phone.goto(f"http://127.0.0.1:{relay.port}/?tab=problems")
    card = phone.locator("#active .problem")
    expect(card).to_contain_text("it failed")
    expect(card).to_contain_text("ValueError: margin call")
    expect(card).to_contain_text(re.compile(r"scalper . \d\d:\d\d . rule alert1"))
    if AXE is not None:
        assert violations(phone) == []
    phone.select_option("#silenceapp", "hedger")
    phone.select_option("#silencefor", "28800")
    phone.locator("#silence button").tap()
    expect(phone.locator("#silences li")).to_contain_text(re.compile(r"hedger is silent until .*\d\d:\d\d"))
    picture(phone, "alerts")
    assert phone.evaluate(CUT_OFF, 320) == []
    if AXE is not None:
        assert violations(phone) == []
    phone.locator("#silences button").tap()
    expect(phone.locator("#silences li")).to_have_count(0)
    card.tap()
    expect(phone.locator("#canvas .row.marked")).to_contain_text("it failed")
    phone.go_back()
    expect(card).to_be_visible()


def test_without_alerts_the_page_has_none(start, open_phone):
    """A relay that sends none shows nothing of them."""
    phone = open_phone()
    with phone.expect_response(lambda answer: answer.url.endswith("/alerts")):
        phone.goto(f"{start().url}?tab=problems")
    until_true(phone, "document.getElementById('alerts').hidden")
