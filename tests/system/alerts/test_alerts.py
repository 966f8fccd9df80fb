"""From a bot to the phone: a real relay, its worker, Apprise, and real services."""

from __future__ import annotations

import json
import time

from tests.support.services import MailServer, about_bots
from tests.support.waiting import wait_for
from tests.system.alerts.conftest import processes_of
from tests.system.http.test_schema import check


def alerts(relay):
    return json.loads(relay.get("/alerts")[1])


def test_a_killed_bot_an_error_and_an_exception_reach_web_and_mail(make_relay, make_bot, receiver):
    """Each should say what happened and open the line; what the page shows should be the same."""
    mail = MailServer()
    try:
        relay = make_relay(f"{receiver.url} {mail.url}", "--public-url", "https://bots.example.net/")
        bot = make_bot(relay)
        bot.say("raise", "margin call")
        got = receiver.wait_for("margin call")[0]
        line = json.loads(relay.get("/logs?level=error&limit=1&notices=no")[1])
        assert got.title == "scalper: it failed"
        assert "ValueError: margin call" in got.body
        assert f"https://bots.example.net/#{line['id']}" in got.body

        killed_at = time.time()
        bot.kill()
        crash = receiver.wait_for("scalper crashed")[0]
        told_s = crash.at - killed_at
        print(f"told {told_s:.1f} s after the kill")
        mails = wait_for(lambda: len(found := about_bots(mail.mails)) >= 2 and found, "both mails")
        assert ["scalper: it failed", "scalper crashed"] == [one.title for one in mails]
        assert f"#{line['id']}" in mails[0].body

        def of_bots(found):
            return [one for one in found["active"] if one["kind"] != "journal"]

        shown = wait_for(lambda: len(of_bots(found := alerts(relay))) == 4 and found, "what is active")
        check("alerts", shown)
        assert {(one["rule"], one["kind"], one["active"]) for one in of_bots(shown)} == {
            (rule, kind, kind == "crashed") for rule in ("alert1", "alert2") for kind in ("crashed", "error")
        }
        assert "hidden" not in json.dumps(shown)
        wait_for(lambda: relay.metric("alerts_sent_total") == len(receiver.accepted) + len(mail.mails), "the count")
        assert relay.metric("alerts_sent_total") >= 4
    finally:
        mail.close()


def test_a_silence_is_kept_through_restarts_and_ended(make_relay, make_bot, receiver, ask):
    """The page asks over its WebSocket; the answer is what /alerts shows."""
    relay = make_relay(receiver.url)
    answer = ask(relay, {"type": "silence", "app": "scal*", "for_s": 3600})
    check("alerts", answer)
    assert [one["app"] for one in answer["silences"]] == ["scal*"]
    relay.restart()
    wait_for(lambda: alerts(relay)["silences"], "the silence")
    silenced, other = make_bot(relay), make_bot(relay, "other")
    silenced.say("error", "not to be told")
    other.say("error", "to be told")
    receiver.wait_for("to be told")
    wait_for(lambda: "scalper" in {one["app"] for one in alerts(relay)["active"]}, "the silenced error to be seen")
    assert ask(relay, {"type": "unsilence", "app": "scal*"})["silences"] == []
    assert ask(relay, {"type": "unsilence", "app": "scal*"})["code"] == "bad_silence"
    silenced.say("critical", "now it is")
    receiver.wait_for("now it is")

    assert [got.title for got in receiver.told] == ["other: to be told", "scalper: now it is"]


def test_a_relay_without_alerts_says_so(make_relay, ask):
    relay = make_relay("")

    check("alerts", alerts(relay))
    assert alerts(relay)["enabled"] is False
    assert ask(relay, {"type": "silence", "app": "x", "for_s": 60})["code"] == "alerts"
    assert processes_of(relay) == []
