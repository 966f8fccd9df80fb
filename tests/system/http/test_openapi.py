"""docs/openapi.json says what the relay answers: every path, parameter, status and body, held to real answers."""

from __future__ import annotations

import re
from http.client import HTTPConnection
from pathlib import Path

import orjson
import pytest

from logrelay.access.token_file import change_tokens
from logrelay.access.tokens import Token, digest_of
from logrelay.fanout.filters import Limit
from logrelay.http.api import EVENTS, ROUTES
from logrelay.http.log_query import PARAMETERS, REPEATABLE, SUMMARY_PARAMETERS
from logrelay.viewers.requests import FOLLOW_PARAMETERS
from tests.support.waiting import DEADLINE_S

jsonschema = pytest.importorskip("jsonschema")

ROOT = Path(__file__).parents[3]
API = orjson.loads((ROOT / "docs" / "openapi.json").read_bytes())
MESSAGES = orjson.loads((ROOT / "docs" / "messages.schema.json").read_bytes())
TOKEN = "V3sJm0t-Qz7w_1pLk9rXu8Yb2"


def local(schema):
    """Return a schema whose references are to what is at hand: the messages, and the error object."""
    text = orjson.dumps(schema).decode().replace("messages.schema.json#", "#")
    text = text.replace("#/components/schemas/Error", "#/$defs/error_object")
    return orjson.loads(text) | {"$defs": MESSAGES["$defs"] | {"error_object": API["components"]["schemas"]["Error"]}}


def hold(path, status, headers, body):
    """Hold an answer to what is said of it."""
    described = API["paths"][path]["get"]["responses"][str(status)]
    kind = headers.get("content-type", "").partition(";")[0]
    if body:
        schema = local(described["content"][kind]["schema"])
        validator = jsonschema.Draft202012Validator(schema)
        if kind == "application/json":
            validator.validate(orjson.loads(body))
        elif kind == "application/x-ndjson":
            for row in body.splitlines():
                validator.validate(orjson.loads(row))
    for name, header in described.get("headers", {}).items():
        if header.get("required") or name.lower() in headers:
            jsonschema.Draft202012Validator(header["schema"]).validate(headers[name.lower()])


def test_every_path_and_parameter_is_described():
    """And none that is not there; what may be repeated is an array."""
    assert set(API["paths"]) == {*ROUTES, EVENTS}
    expected = {
        "/logs": {*PARAMETERS, *FOLLOW_PARAMETERS} - {"token"},
        "/events": {*FOLLOW_PARAMETERS} - {"token", "follow"},
        "/summary": {*SUMMARY_PARAMETERS},
    }
    for path, item in API["paths"].items():
        given = {one["name"]: one["schema"].get("type") for one in item["get"]["parameters"]}
        assert given.keys() == expected.get(path, set()), path
        if path != "/summary":
            assert {name for name, kind in given.items() if kind == "array"} == REPEATABLE & given.keys()


def test_every_status_there_is_is_described():
    """What the code can answer with should be in the description of some path, and nothing else."""
    source = "".join(
        (ROOT / "logrelay" / name).read_text("utf-8")
        for name in (
            "http/api.py",
            "http/request_head.py",
            "viewers/access_policy.py",
            "viewers/service.py",
            "viewers/server.py",
        )
    )
    code = set(map(int, re.findall(r"(?:HttpResponse|Refused|Malformed|_error|_json)\(\s*(\d{3})", source)))
    code |= set(map(int, re.findall(r"\b(410|503) if ", source)))
    described = {int(status) for item in API["paths"].values() for status in item["get"]["responses"]}
    assert described == code - {404, 204}
    for status in (204, 404):
        assert str(status) in API["info"]["description"]


def test_every_answer_is_as_described(start, tmp_path):
    """Each path with each status that can be brought about from outside."""
    tokens = str(tmp_path / "tokens.json")
    narrow = Token("narrow", digest_of("n" * 43), limit=Limit(level=40), id="abc", created_s=0)
    change_tokens(tokens, lambda held: (*held, narrow))
    relay, locked = start(), start(LOGRELAY_TOKEN=TOKEN, LOGRELAY_TOKENS=tokens)
    trader = relay.trader()
    trader.log("order.rejected", "error", symbol="AAPL")
    trader.wait()

    def ask(target, *, method="GET", port=relay.port, **headers):
        connection = HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
        try:
            connection.request(method, target, headers=headers)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            follows = "follow" in target or target.startswith(EVENTS)
            body = b"" if follows and answer.status == 200 else answer.read()
            return answer.status, found, body
        finally:
            connection.close()

    seen = set()
    for path in API["paths"]:
        public = path == "/"
        etag = ask("/")[1]["etag"]
        for status, target, more in (
            (200, path, {}),
            (304, path, {"If-None-Match": etag}) if public else (200, path, {}),
            (400, path, {"Host": "a b"}),
            (401, path, {"port": locked.port}) if not public else (200, path, {"port": locked.port}),
            (403, path, {"Origin": "http://evil.example"}),
            (403, path, {"Host": "evil.example"}),
            (405, path, {"method": "POST"}),
            (414, path + "?" + "x" * 9000, {}),
            (431, path, {"X": "y" * 9000}),
            (501, path, {"Transfer-Encoding": "chunked"}),
        ):
            got, headers, body = ask(target, **more)
            assert got == status, (target[:40], more)
            hold(path, got, headers, body)
            seen.add((path, got))
    for path, status, target, more in (
        ("/logs", 400, "/logs?limit=x", {}),
        ("/logs", 410, "/logs?after=zzzzzz-1", {}),
        ("/logs", 200, "/logs?follow=1", {}),
        ("/logs", 200, "/logs?around=zzzzzz-1", {}),
        ("/events", 400, "/events?limit=x", {}),
        ("/summary", 400, "/summary?since=x", {}),
        ("/summary", 410, "/summary?after=zzzzzz-1", {}),
        ("/metrics", 403, "/metrics", {"port": locked.port, "Authorization": "Bearer " + "n" * 43}),
        ("/alerts", 403, "/alerts", {"port": locked.port, "Authorization": "Bearer " + "n" * 43}),
        ("/healthz", 200, "/healthz", {"port": locked.port, "Authorization": f"Bearer {TOKEN}"}),
    ):
        got, headers, body = ask(target, **more)
        assert got == (410 if "around" in target else status), target
        hold(path, got, headers, body)
        seen.add((path, got))
    status, headers, body = ask("/nothing")
    assert status == 404
    jsonschema.Draft202012Validator(API["components"]["schemas"]["Error"]).validate(orjson.loads(body))
    assert ask("/logs", method="OPTIONS")[0] == 204
    # 429 and 503 take a crowd, 505 another program: tests/system/http and tests/siege bring them about.
    left = {(p, int(s)) for p, item in API["paths"].items() for s in item["get"]["responses"]} - seen
    assert {status for _, status in left} <= {401, 429, 503, 505}
