"""Every kind of message of a real relay is one that docs/messages.schema.json describes."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import orjson
import pytest
from websockets.sync.client import connect

from logrelay.http.api import HttpApi
from tests.support.http import ListFacts
from tests.support.waiting import DEADLINE_S, wait_for

jsonschema = pytest.importorskip("jsonschema")
SCHEMA = orjson.loads((Path(__file__).parents[3] / "docs" / "messages.schema.json").read_bytes())

CRASHING = """
import os
from robo_trader.logger import LogRelayProcessor, get_logger, setup_structlog
os.environ["LOGRELAY_APP"] = "short"
setup_structlog()
get_logger("x").info("last words")
os.kill(os.getpid(), 9)
"""


def check(kind, message):
    """Hold a message to the definition of its kind, and to the whole."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for schema in ({**SCHEMA, "anyOf": [{"$ref": f"#/$defs/{kind}"}]}, SCHEMA):
        jsonschema.Draft202012Validator(schema).validate(message)


def get(relay, target):
    connection = http.client.HTTPConnection("127.0.0.1", relay.port, timeout=DEADLINE_S)
    try:
        connection.request("GET", target)
        return connection.getresponse().read()
    finally:
        connection.close()


def test_every_kind_of_message(relay):
    """Greeting, lines, notices of each kind, answers, errors, and what monitors ask for."""
    trader = relay.trader()
    trader.log("order.rejected", "critical", symbol="AAPL")
    trader.send([2, 2, 4, 3, "overflow"])
    trader.seq = 4
    trader.log("after")
    trader.wait()
    with connect(relay.url.replace("http", "ws")) as viewer:

        def receive(kind):
            message = orjson.loads(viewer.recv(timeout=DEADLINE_S))
            check(kind, message)
            return message

        head = receive("connection")["head"]
        lines = [receive("log") for _ in range(4)]
        assert {line["context"].get("notice") for line in lines} == {None, "trader", "gap"}
        for request, kind in (
            ({"type": "subscribe", "level": "WARNING", "app": ["robo*"], "where": ["symbol=AAPL"]}, "subscribed"),
            ({"type": "history", "before": head, "limit": 3}, "history"),
            ({"type": "ping"}, "pong"),
            ({"type": "what"}, "error"),
        ):
            viewer.send(orjson.dumps(request).decode())
            receive(kind)
        viewer.send('{"type":"subscribe","tial":3}')
        receive("subscribed")
        assert "'tial'" in receive("note")["message"]
    with connect(relay.url.replace("http", "ws") + "?after=zzzzzz-1", subprotocols=["logrelay.v1.batch"]) as viewer:
        check("connection", orjson.loads(viewer.recv(timeout=DEADLINE_S)))
        check("batch", orjson.loads(viewer.recv(timeout=DEADLINE_S)))  # the notice about another epoch
    for target, kind in (
        ("/healthz", "healthz"),
        ("/readyz", "readyz"),
        ("/summary", "summary"),
        ("/logs?level=x", "error"),
    ):
        check(kind, orjson.loads(get(relay, target)))
    for line in get(relay, "/logs?notices=all").splitlines():
        check("log", orjson.loads(line))


def test_notices_of_the_relay_and_the_insides_of_a_summary(relay):
    """What the relay says of itself, and counts of lines, problems, a crash and a gap, with nothing left unsaid."""
    first = relay.trader("night_bot")
    first.log("order.rejected", "critical", exception="Traceback\nRejected: margin 7")
    first.log("late", "warning")
    first.send([2, 3, 42, 40, "overflow"])
    first.seq = 42
    first.log("after", source="broker")
    first.wait()
    job = subprocess.run(
        [sys.executable, "-c", CRASHING], env=os.environ | {"LOGRELAY_SOCKET": str(relay.socket)}, timeout=DEADLINE_S
    )
    assert job.returncode == -9
    wait_for(lambda: orjson.loads(get(relay, "/summary"))["crashes"], "the crash to be told")
    summary = orjson.loads(get(relay, "/summary"))
    check("summary", summary)
    assert {app["app"] for app in summary["apps"]} == {"night_bot", "short"}
    assert [one.get("severity") for one in summary["problems"]] == ["CRITICAL", None]
    assert (len(summary["crashes"]), len(summary["gaps"])) == (1, 1)
    for name in ("apps", "problems", "crashes", "gaps"):  # each entry has what the schema names, and nothing besides
        known = SCHEMA["$defs"]["summary"]["properties"][name]["items"]["properties"]
        assert {key for entry in summary[name] for key in entry} <= set(known), name
    assert set(summary) == set(SCHEMA["$defs"]["summary"]["properties"])

    relay.kill()
    purge = [sys.executable, "-m", "logrelay", "purge", "--journal", str(relay.directory / "j.db")]
    subprocess.run([*purge, "--where", "severity=CRITICAL", "--yes"], check=True, timeout=DEADLINE_S)
    relay.start()
    check("healthz", healthz := orjson.loads(get(relay, "/healthz")))
    assert [one["awaited"] for one in healthz["traders"] if one["app"] == "night_bot"] == [True]
    notices = [orjson.loads(row) for row in get(relay, "/logs?notices=all").splitlines()]
    for notice in notices:
        check("log", notice)
    (purged,) = [one for one in notices if one["context"].get("state") == "purged"]
    jsonschema.Draft202012Validator({**SCHEMA, "anyOf": [{"$ref": "#/$defs/relayNotice"}]}).validate(purged["context"])
    assert set(purged["context"]) <= set(SCHEMA["$defs"]["relayNotice"]["properties"])


def test_a_relay_in_trouble():
    """/healthz and /readyz say why, and the schema wants them to."""
    facts = ListFacts(trouble="disk full", is_ready=False)
    api = HttpApi(facts)
    for target, kind in (("/healthz", "healthz"), ("/readyz", "readyz")):
        answer = api.answer("GET", target, {})
        assert answer.status == 503
        found = orjson.loads(answer.body)
        check(kind, found)
        assert "disk full" in found.pop("reason")
        with pytest.raises(jsonschema.ValidationError):
            check(kind, found)


def test_no_reader_sees_the_end_of_a_line_within_one(relay):
    """U+2028, U+2029 and U+0085 are escapes in whatever is sent, in names and values, in errors and notes."""
    ends = "a\u2028b\u2029c\u0085d"
    trader = relay.trader(ends)
    trader.log(ends, "error", **{ends: [ends, {ends: ends}]}, exception=ends)
    trader.wait()
    texts = [get(relay, target) for target in ("/logs", "/summary", "/healthz", f"/logs?{quote(ends)}=1")]
    for protocol in ([], ["logrelay.v1.batch"]):
        with connect(f"{relay.url.replace('http', 'ws')}?{quote(ends)}=1", subprotocols=protocol or None) as viewer:
            head = orjson.loads(viewer.recv(timeout=DEADLINE_S))["head"]
            for request in (
                {"type": "subscribe", "text": ends, ends: 1},
                {"type": "history", "before": f"{head.partition('-')[0]}-{int(head.rpartition('-')[2]) + 1}"},
                {"type": ends},
                {"type": "ping"},
            ):
                viewer.send(orjson.dumps(request).decode())
            while texts[-1] != b'{"type":"pong"}':
                texts.append(viewer.recv(timeout=DEADLINE_S).encode())
    for text in texts:
        assert not [one for one in ("\u2028", "\u2029", "\x85") if one in text.decode()], text
    assert sum(rb"\u2028" in text for text in texts) >= 8


def test_what_is_no_message_is_found_out():
    """The schema says something: a level in lower case, a time without its fraction, a context that is no object."""
    line = {"type": "log", "id": "k3f9ab-1", "level": "INFO", "source": "a", "message": "m", "context": {}}
    line["timestamp"] = "2026-01-23T10:00:00.123456Z"
    check("log", line)
    for field, wrong in (("level", "info"), ("timestamp", "2026-01-23T10:00:00Z"), ("context", []), ("message", None)):
        with pytest.raises(jsonschema.ValidationError):
            check("log", {**line, field: wrong})


def test_healthz_is_as_the_documentation_says(relay):
    """Its fields are those of the table, with none left out."""
    relay.trader().log("line")
    relay.traders[0].wait()
    text = (Path(__file__).parents[3] / "docs" / "protocol.md").read_text()
    table = text.partition("### /healthz and /readyz")[2].partition("\n### ")[0]
    shown = orjson.loads(get(relay, "/healthz"))
    for name in [*shown, *shown["journal"], *shown["traders"][0]]:
        assert f"`{name}`" in table, name
