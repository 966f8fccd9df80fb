"""The pages of a real relay, over its real port: what the daemon wires together."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys

import orjson
import pytest
from websockets.sync.client import connect

from logrelay.http import metrics
from logrelay.model import run_name
from tests.support.waiting import DEADLINE_S, wait_for

SHARED_TOKEN = "d3Zq4tR8vK2xLm9wPbYc"


def get(relay, target: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", relay.port, timeout=DEADLINE_S)
    try:
        connection.request(method, target, headers=headers)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def messages(relay, target: str) -> list[str]:
    status, _, body = get(relay, target)
    assert status == 200, body
    found = [orjson.loads(line) for line in body.splitlines()]
    return [line["message"] for line in found if "notice" not in line["context"]]


def fill(relay, n: int, first: int = 1):
    trader = relay.trader()
    for i in range(first, first + n):
        level = "error" if i % 100 == 0 else "info"
        trader.log(f"line {i}", level=level, symbol="AAPL" if i % 2 else "MSFT")
    trader.wait()
    return trader


def numbered(*numbers: int) -> list[str]:
    return [f"line {n}" for n in numbers]


def test_logs_of_many_pages(relay):
    """A search over many pages of the real journal gives every match once, in order, forward and backward."""
    fill(relay, 9000)
    assert messages(relay, "/logs?since=1h&limit=1000000") == numbered(*range(1, 9001))
    assert messages(relay, "/logs?limit=8500") == numbered(*range(501, 9001))
    assert messages(relay, "/logs") == numbered(*range(8001, 9001))
    assert messages(relay, "/logs?level=ERROR") == numbered(*range(100, 9001, 100))
    assert messages(relay, "/logs?level=ERROR&limit=3&where=symbol%3DMSFT") == numbered(8800, 8900, 9000)
    assert messages(relay, "/logs?text=line+8999&source=robo_trader.*") == numbered(8999)
    assert messages(relay, "/logs?since=1h&until=30m") == []


def test_continue_behind_the_last_id(relay):
    """A client that continues with the last id of each answer meets every line once, also those that come meanwhile."""
    trader = fill(relay, 50)
    got, after = [], ""
    while True:
        _, _, body = get(relay, f"/logs?limit=7&{after or 'since=1h'}")
        lines = [orjson.loads(line) for line in body.splitlines()]
        if not lines:
            break
        got += [line["message"] for line in lines if "notice" not in line["context"]]
        after = f"after={lines[-1]['id']}"
        if trader.seq == 50 and len(got) > 10:
            trader.log("line 51")
            trader.wait()
    assert got == numbered(*range(1, 52))


def test_answers_are_what_viewers_get(relay):
    """A line of /logs has exactly the fields of a line in the stream."""
    trader = relay.trader()
    trader.log("trade.executed", symbol="AAPL", quantity=100)
    trader.wait()
    line = orjson.loads(get(relay, "/logs?app=robo_*")[2].splitlines()[-1])
    assert set(line) == {"type", "id", "level", "source", "message", "context", "timestamp", "app", "run"}
    assert line["context"] == {"symbol": "AAPL", "quantity": 100}
    assert (line["app"], line["run"]) == ("robo_trader", run_name(trader.run))
    trader.log("more")
    trader.wait()
    found = [orjson.loads(found) for found in get(relay, "/logs?app=other&notices=all")[2].splitlines()]
    assert found
    assert all("notice" in line["context"] and "app" not in line and "run" not in line for line in found)


def test_notices_take_no_line_s_place(relay):
    """Behind the lines of a bot come many notices about others; who asks for lines gets lines."""
    bot = relay.trader("bot")
    for n in range(1, 7):
        bot.log(f"error {n}", "error")
    bot.wait()
    for n in range(8):
        relay.trader(f"job{n}").log("done")
        relay.traders[-1].wait()
    newest = [f"error {n}" for n in (3, 4, 5, 6)]

    def messages(body):
        return [orjson.loads(line)["message"] for line in body.splitlines()]

    assert messages(get(relay, "/logs?level=error&limit=4")[2]) == newest
    assert messages(get(relay, "/logs?app=bot&level=error&limit=4&notices=no")[2]) == newest
    found = messages(get(relay, "/logs?limit=12")[2])
    assert [text for text in found if text in newest or text == "done"] == [*newest, *["done"] * 8]
    assert sum(text.endswith("connected") for text in found) == 8
    assert messages(get(relay, "/logs?limit=12&notices=no")[2]) == [*newest, *["done"] * 8]
    found = messages(get(relay, "/logs?level=error&limit=4&notices=all")[2])
    assert len(found) == 4 + 8
    with connect(f"{relay.url.replace('http', 'ws')}?tail=4&level=warning") as viewer:
        head = orjson.loads(viewer.recv())["head"]
        assert [orjson.loads(viewer.recv())["message"] for _ in range(4)] == newest
        viewer.send(orjson.dumps({"type": "history", "before": head, "limit": 2}).decode())
        assert [line["message"] for line in orjson.loads(viewer.recv())["logs"]] == newest[2:]
        viewer.send(orjson.dumps({"type": "history", "before": head, "limit": 2, "notices": "all"}).decode())
        assert len(orjson.loads(viewer.recv())["logs"]) == 2 + 8


def test_bad_requests(relay):
    """What is wrong is said with the status a program looks at, and the words a person reads."""
    for target, status, code in (
        ("/logs?levle=ERROR", 400, "bad_parameter"),
        ("/logs?after=zzzzzz-1", 410, "expired"),
        ("/logs?after=what", 400, "bad_id"),
        ("/logs?since=soon", 400, "bad_time"),
        ("/nothing", 404, "not_found"),
    ):
        got, _, body = get(relay, target)
        assert (got, orjson.loads(body)["code"]) == (status, code)


def test_every_metric_is_counted(relay):
    """The daemon counts every metric of the table, and nothing that is not in it.

    A relay that forwards, collects and calls nobody does not speak of these.
    """
    fill(relay, 3)
    get(relay, "/logs?text=line")
    text = get(relay, "/metrics")[2].decode()
    rows = [row.rpartition(" ") for row in text.splitlines() if not row.startswith("#")]
    values = {name: value for name, _, value in rows}
    only_when_set = ("forward_", "collect", "edge", "alert", "heartbeats_")
    always = {metric.name for metric in metrics.METRICS if not metric.name.startswith(only_when_set)}
    assert {name.partition("{")[0] for name in values} == {metrics.PREFIX + name for name in always}
    assert "untyped" not in text
    assert int(values["logrelay_lines_total"]) >= 3
    assert int(values["logrelay_traders"]) == 1
    assert int(values["logrelay_searches_total"]) == 1
    assert int(values["logrelay_searches"]) == 0
    assert int(values['logrelay_trader_up{app="robo_trader"}']) == 1
    assert int(values['logrelay_trader_lines_total{app="robo_trader",level="info"}']) == 3
    assert 0 <= float(values['logrelay_trader_last_line_age_seconds{app="robo_trader"}']) < DEADLINE_S


def test_health(relay):
    """The health check knows the trader and how long it has been silent, and nothing of what it said."""
    trader = relay.trader()
    trader.log("a secret sentence", password="hunter2")
    trader.wait()
    status, _, body = get(relay, "/healthz")
    (told,) = orjson.loads(body)["traders"]
    assert status == 200
    assert (told["app"], told["pid"], told["state"]) == ("robo_trader", 4711, "connected")
    assert 0 <= told["last_line_age_seconds"] < DEADLINE_S
    assert b"secret" not in body
    assert b"hunter2" not in body
    assert get(relay, "/readyz")[0] == 200


def test_page_and_token(start):
    """With a token, the viewer's own files are for everyone and everything else is not."""
    relay = start(LOGRELAY_TOKEN="t" * 43)
    for path in ("/", "/static/main.js", "/static/client.js", "/static/style.css"):
        status, headers, body = get(relay, path)
        assert (status, len(body)) == (200, int(headers["content-length"]))
        assert get(relay, path, **{"If-None-Match": headers["etag"]})[0] == 304
    for path in ("/logs", "/healthz", "/metrics"):
        assert get(relay, path)[0] == 401
        assert get(relay, path, Authorization="Bearer " + "t" * 43)[0] == 200


@pytest.mark.parametrize("target", ["/", "/healthz", "/logs", "/metrics"])
def test_head(relay, target):
    """HEAD answers like GET, without the body."""
    status, headers, body = get(relay, target, method="HEAD")
    assert status == 200
    assert body == b""
    assert headers["content-type"] == get(relay, target)[1]["content-type"]


def test_client_leaves(relay):
    """A client that goes away in the middle of a long answer ends the search."""
    trader = relay.trader()
    for i in range(4000):
        trader.log(f"line {i}", padding="x" * 4000)
    trader.wait()
    client = socket.create_connection(("127.0.0.1", relay.port), timeout=DEADLINE_S)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.sendall(b"GET /logs?since=1h&limit=1000000 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert client.recv(1000).startswith(b"HTTP/1.1 200")

    def searches() -> str:
        text = get(relay, "/metrics")[2].decode()
        return next(row for row in text.splitlines() if row.startswith("logrelay_searches "))

    assert searches() == "logrelay_searches 1"
    client.close()
    wait_for(lambda: searches() == "logrelay_searches 0", "the end of a search that nobody reads")


def test_pages_from_elsewhere(start):
    """A listed page, whatever its scheme, may read every answer and ask beforehand; no other page may."""
    relay = start(LOGRELAY_ALLOW_ORIGINS="capacitor://localhost,http://localhost:8081", LOGRELAY_TOKEN=SHARED_TOKEN)
    token = {"Authorization": f"Bearer {SHARED_TOKEN}"}
    for origin in ("capacitor://localhost", "http://localhost:8081"):
        asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
        status, headers, _ = get(relay, "/logs", "OPTIONS", Origin=origin, **asked)
        assert (status, headers["access-control-allow-origin"]) == (204, origin)
        assert "Authorization" in headers["access-control-allow-headers"]
        for target, given, expected in (
            ("/logs", token, 200),
            ("/healthz", token, 200),
            ("/", {}, 200),
            ("/logs?limit=x", token, 400),
            ("/nothing", token, 404),
            ("/logs", {}, 401),
            ("/logs", {"Authorization": "Bearer wrong"}, 401),
        ):
            status, headers, _ = get(relay, target, Origin=origin, **given)
            assert (status, headers.get("access-control-allow-origin")) == (expected, origin), target
            assert headers["vary"] == "Origin"
    for origin in ("capacitor://other", "http://localhost:8082", "null"):
        status, headers, _ = get(relay, "/logs", Origin=origin, **token)
        assert (status, headers.get("access-control-allow-origin")) == (403, None)
        status, headers, _ = get(relay, "/logs", "OPTIONS", Origin=origin, **asked)
        assert (status, headers.get("access-control-allow-origin")) == (403, None)


def follow(relay, target, **headers):
    """Begin an answer that goes on; returns the response, to be read line by line, and its connection."""
    connection = http.client.HTTPConnection("127.0.0.1", relay.port, timeout=DEADLINE_S)
    connection.request("GET", target, headers=headers)
    return connection.getresponse(), connection


def test_logs_that_go_on(relay):
    """`follow=1`: the newest lines, then every new one as it comes, with the filter; a wrong parameter is told."""
    trader = fill(relay, 9)
    answer, connection = follow(relay, "/logs?follow=1&limit=3&app=robo*&notices=no")
    assert (answer.status, answer.getheader("content-type")) == (200, "application/x-ndjson")
    assert [orjson.loads(answer.readline())["message"] for _ in range(3)] == numbered(7, 8, 9)
    for n in (10, 11):
        trader.log(f"line {n}")
        assert orjson.loads(answer.readline())["message"] == f"line {n}"
    answer.close()
    connection.close()
    wait_for(lambda: orjson.loads(get(relay, "/healthz")[2])["viewers"] == 0)
    for target, code in (
        ("/logs?follow=2", "bad_parameter"),
        ("/logs?follow=1&since=1h", "bad_parameter"),
        ("/logs?follow=1&level=x", "bad_level"),
        ("/events?after=what", "bad_id"),
        ("/events?what=1", "bad_parameter"),
    ):
        status, _, body = get(relay, target)
        assert (status, orjson.loads(body)["code"]) == (400, code), target
    assert get(relay, "/events", "HEAD")[0] == 200


@pytest.mark.parametrize("path", ["/logs?follow=1&notices=no", "/events?notices=no"])
def test_lines_that_go_on_are_those_of_the_token(start, tmp_path, path):
    """A limited token sees its bots and levels only, and when it is revoked the answer ends."""
    relay = start(LOGRELAY_TOKENS=str(tmp_path / "tokens.json"))

    def token(*arguments):
        command = [sys.executable, "-m", "logrelay", "token", *arguments, "--tokens", str(tmp_path / "tokens.json")]
        return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=True).stdout.strip()

    shown = token("add", "tablet", "--app", "scalper", "--min-level", "warning")
    wait_for(lambda: get(relay, "/readyz")[0] == 401, "the relay to know of the token")
    mine, other = relay.trader("scalper"), relay.trader("hedger")
    answer, connection = follow(relay, path, Authorization=f"Bearer {shown}")
    for trader in (other, mine):
        trader.log("no", "info")
        trader.log("yes" if trader is mine else "no", "error")
        trader.wait()
    rows = iter(answer.readline, b"")
    line = next(orjson.loads(row.removeprefix(b"data: ")) for row in rows if b"{" in row)
    assert (line["app"], line["message"]) == ("scalper", "yes")
    token("revoke", "tablet")
    assert not [row for row in rows if b"{" in row], "nothing more comes, and it ends"
    answer.close()
    connection.close()
    assert get(relay, path, Authorization=f"Bearer {shown}")[0] == 401


def test_server_sent_events(relay):
    """Each line is an event whose id the browser sends again, and then gets what is behind it, once."""
    trader = fill(relay, 3)
    answer, connection = follow(relay, "/events?tail=2&notices=no")
    assert (answer.status, answer.getheader("content-type")) == (200, "text/event-stream")

    def event():
        id_, data, empty = (answer.readline().decode().rstrip("\n") for _ in range(3))
        line = orjson.loads(data.removeprefix("data: "))
        assert (id_, empty) == (f"id: {line['id']}", "")
        return line

    assert [event()["message"] for _ in range(2)] == numbered(2, 3)
    trader.log("line 4")
    last = event()
    answer.close()
    connection.close()
    trader.log("line 5")
    trader.wait()
    answer, connection = follow(relay, "/events?tail=2&notices=no", **{"Last-Event-ID": last["id"]})
    trader.log("line 6")
    assert [event()["message"] for _ in range(2)] == numbered(5, 6)
    relay.process.terminate()
    assert answer.read() == b"", "the end of the relay is the end of the answer"
    answer.close()
    connection.close()


def test_a_summary_remembers_gaps_through_restarts(relay):
    """What the owner was not there to see is in the answer of the next relay, with its time; values are searched."""
    trader = relay.trader("night_bot")
    for number in (7, 8):
        exception = f"Traceback\n  x\nRejected: margin {number}"
        trader.log("order.rejected", "error", order_id=f"ab12cd3{number}", exception=exception)
    trader.send([2, 3, 42, 40, "overflow"])
    trader.seq = 42
    trader.log("margin.call", "critical")
    trader.wait()
    relay.kill()
    relay.start()
    summary = orjson.loads(get(relay, "/summary?since=1h")[2])
    (app,) = summary["apps"]
    assert (app["app"], app["gaps"], app["lost"]) == ("night_bot", 1, 40)
    assert app["lines"] == {"DEBUG": 0, "INFO": 0, "WARNING": 0, "ERROR": 2, "CRITICAL": 1}
    (gap,) = summary["gaps"]
    assert (gap["app"], gap["cause"], gap["count"]) == ("night_bot", "overflow", 40)
    critical, rejected = (problem for problem in summary["problems"] if problem["source"] != "logrelay")
    assert (critical["message"], critical["severity"], critical["count"]) == ("margin.call", "CRITICAL", 1)
    assert (rejected["exception"], rejected["count"]) == ("Rejected: margin 8", 2)
    assert "margin.call" in messages(relay, f"/logs?around={critical['last']['id']}&limit=3")
    run = run_name(trader.run)
    for query in ("text=AB12CD37", "text=order_id%3Dab12cd37", "where=order_id%3Dab12cd37", f"text=ab12cd37&run={run}"):
        assert messages(relay, f"/logs?{query}") == ["order.rejected"], query
