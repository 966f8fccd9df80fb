"""The page says when it came in plain text from another machine, and only then; in a real browser."""

from __future__ import annotations

import pytest

from tests.support.browser import needs_chromium
from tests.support.certificates import Authority
from tests.support.waiting import DEADLINE_S
from tests.system.http.test_access import TOKEN, lan_address

pytestmark = needs_chromium


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
def test_the_page_says_that_it_came_in_plain_text(start, chromium, tmp_path, encrypted):
    """Over an address of the network, without TLS; on this machine nobody is on the way."""
    browser, device = chromium
    lan, settings, scheme = lan_address(), {}, "http"
    if encrypted:
        cert, key = map(str, Authority(tmp_path).issue("relay"))
        settings, scheme = {"LOGRELAY_TLS_CERT": cert, "LOGRELAY_TLS_KEY": key}, "https"
    relay = start(LOGRELAY_HOST="0.0.0.0", LOGRELAY_TOKEN=TOKEN, **settings)
    context = browser.new_context(**device, ignore_https_errors=True)
    context.set_default_timeout(DEADLINE_S * 1000)
    try:
        for address in (lan, "127.0.0.1"):
            page = context.new_page()
            page.goto(f"{scheme}://{address}:{relay.port}/")
            page.wait_for_selector("#bots", state="attached")
            shown = page.locator("#plain").is_visible()
            assert shown is (address == lan and not encrypted), address
    finally:
        context.close()
