"""Every kind of message of a real relay is one that docs/messages.schema.json describes."""

from __future__ import annotations

import http.client
from pathlib import Path

import orjson
import pytest
from websockets.sync.client import connect

from tests.support.waiting import DEADLINE_S

jsonschema = pytest.importorskip("jsonschema")
SCHEMA = orjson.loads((Path(__file__).parents[3] / "docs" / "messages.schema.json").read_bytes())


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
