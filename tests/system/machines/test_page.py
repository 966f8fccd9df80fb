"""The page of a hub relay: the same tests as for a relay's, with lines that come through NATS, and bots of machines."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.browser import chromium, needs_chromium, open_phone, phone, tall, until_true
from tests.support.edges import edge_state_of, publish
from tests.support.nats import needs_nats

pytest.importorskip("nats", reason="nats-py is not installed (pip install '.[nats]' in the checkout)")
pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [needs_nats, needs_chromium]

from tests.system.http.test_page import test_around, test_sheet, test_two_bots  # noqa: E402  (it needs playwright)

__all__ = ["chromium", "open_phone", "phone", "tall", "test_around", "test_sheet", "test_two_bots"]


def test_a_machine_is_asked_for_by_its_name(relay, phone):
    """The sheet of a line shows where it came from, and a tap asks for that machine alone."""
    relay.trader().log("hello", symbol="AAPL")
    relay.traders[0].wait()
    phone.goto(relay.url)
    phone.locator("#canvas .row .message", has_text="hello").first.click()
    phone.locator("#sheet .value", has_text="edge").first.click()
    phone.locator("#sheet").get_by_role("button", name="only these").first.click()
    until_true(phone, "location.href.includes('edge=edge')")
    until_true(phone, "document.querySelector('#conditions').textContent.includes('edge=edge')")
    until_true(phone, "[...document.querySelectorAll('#canvas .message')].some((one) => one.textContent === 'hello')")


def test_a_bot_whose_machine_is_silent_is_not_green(relay, phone):
    """Nobody can know whether it runs."""
    relay.trader().log("hello")
    relay.traders[0].wait()  # so that the hub relay listens
    state = edge_state_of("far", {"app": "lonely"}, interval_s=0.1)
    with ThreadPoolExecutor(1) as pool:  # this thread has the browser's loop
        pool.submit(publish, relay.server.url, state, make=False).result()
    phone.goto(relay.url)
    script = "[...document.querySelectorAll('#bots .bot')].find((one) => one.textContent.includes('lonely'))"
    until_true(phone, f"{script}?.textContent.includes('UNKNOWN')")
    assert phone.evaluate(f"() => {script}.dataset.tone") == "unknown"
