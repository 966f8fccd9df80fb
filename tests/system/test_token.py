"""Tokens with real commands and a real relay: made, used, narrowed, revoked while it runs, and written nowhere."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from logrelay.access.token_file import change_tokens, read_tokens
from logrelay.access.tokens import Token, digest_of
from logrelay.fanout.filters import Limit
from logrelay.http.api import ROUTES, STATIC
from logrelay.viewers.messages import CLOSE_TOKEN
from logrelay.viewers.requests import REQUEST_TYPES
from tests.support.http import start
from tests.support.waiting import DEADLINE_S, wait_for

__all__ = ["start"]

GOOD_TOKEN = "V3sJm0t-Qz7w_1pLk9rX"
MARK = "KEEP-THIS-BACK"
"""Stands in every line and name that a limited token must not see."""


def command(directory, *arguments, **environment):
    """Run `logrelay ...` as in a shell of the relay's user; return what it printed, and its exit code."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("LOGRELAY_")}
    return subprocess.run(
        [sys.executable, "-m", "logrelay", *arguments],
        env=kept | {"LOGRELAY_JOURNAL": str(directory / "j.db")} | environment,
        capture_output=True, text=True, timeout=DEADLINE_S,
    )  # fmt: skip


def add(relay, name, *options):
    """Make a token, and wait until the relay takes it."""
    done = command(relay.directory, "token", "add", name, *options)
    assert done.returncode == 0, done.stderr
    token = done.stdout.strip()
    # Before its first token a relay lets in everybody on this machine.
    wait_for(lambda: get(relay, "/readyz")[0] == 401, "the relay wants a token")
    wait_for(lambda: get(relay, "/readyz", token)[0] != 401, f"the relay takes {name}")
    return token


def get(relay, target, token=None, **headers):
    """Return status and body of one plain request."""
    link = http.client.HTTPConnection("127.0.0.1", relay.port, timeout=DEADLINE_S)
    with contextlib.closing(link):
        bearer = {"Authorization": f"Bearer {token}"} if token else {}
        link.request(headers.pop("method", "GET"), target, headers=bearer | headers)
        answer = link.getresponse()
        return answer.status, answer.read()


def viewer(relay, token=None, query="", **options):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"ws://127.0.0.1:{relay.port}/{query}"
    return connect(url, additional_headers=headers, open_timeout=DEADLINE_S, compression=None, **options)


def receive_until(peer, done):
    """Return the messages up to the first for which `done` is true."""
    got = []
    while True:
        got.append(json.loads(peer.recv(DEADLINE_S)))
        if done(got[-1]):
            return got


def close_code(peer):
    """Read to the end of a connection; return the code that it was closed with."""
    try:
        while True:
            peer.recv(DEADLINE_S)
    except ConnectionClosed as closed:
        return closed.rcvd.code


def test_a_token_can_be_used_at_once(start):
    """The first request with it, a moment after the command has written the file, is let in."""
    relay = start()
    path = str(relay.directory / "tokens.json")
    add(relay, "first")
    texts = [f"lr_{number}_{secrets.token_urlsafe(24)}" for number in range(20)]
    answers = []
    for number, text in enumerate(texts):
        new = Token(f"t{number}", digest_of(text), f"id{number}")
        change_tokens(path, lambda there, new=new: (*there, new))
        answers.append(get(relay, "/readyz", text)[0])
    assert answers == [200] * len(texts)
    assert get(relay, "/readyz", "lr_nobody")[0] == 401


@pytest.mark.parametrize("shown", ["header", "query", "subprotocol"])
def test_the_first_token_has_its_limits_at_once(start, shown):
    """Before it everybody on this machine sees all; whoever shows it a moment later sees what it may see."""
    relay = start()
    trader = relay.trader()
    trader.log("for its owner")
    wait_for(lambda: b"for its owner" in get(relay, "/logs")[1], "the line")
    text = f"lr_first_{secrets.token_urlsafe(24)}"
    narrow = Token("first", digest_of(text), "id1", Limit(apps=("nobody",)))
    change_tokens(str(relay.directory / "tokens.json"), lambda there: (*there, narrow))
    if shown == "subprotocol":
        with connect(
            f"ws://127.0.0.1:{relay.port}/?tail=10", subprotocols=[f"bearer.{text}"], open_timeout=DEADLINE_S
        ) as peer:
            peer.send('{"type":"ping"}')
            got = receive_until(peer, lambda m: m["type"] == "pong")
        assert [m for m in got if m["type"] == "log"] == []
    else:
        answer = get(relay, "/logs", text) if shown == "header" else get(relay, f"/logs?token={text}")
        assert answer == (200, b"")
    assert get(relay, "/readyz")[0] == 401


def test_a_token_is_made_used_and_revoked_while_the_relay_runs(start):
    """Whoever has it comes in; once it is revoked its viewers are closed with a code of its own, others stay."""
    relay = start()
    trader = relay.trader()
    with contextlib.ExitStack() as stack:
        early = stack.enter_context(viewer(relay))
        receive_until(early, lambda m: m["type"] == "connection")
        phone, script = add(relay, "phone"), add(relay, "script", "--expires", "1d")
        assert close_code(early) == CLOSE_TOKEN, "from the first token on everybody needs one"
        assert get(relay, "/logs")[0] == 401
        one, other = (stack.enter_context(viewer(relay, token)) for token in (phone, script))
        browser = stack.enter_context(
            connect(f"ws://127.0.0.1:{relay.port}/", subprotocols=[f"bearer.{phone}"], open_timeout=DEADLINE_S)
        )
        trader.log("hello")
        for peer in (one, other, browser):
            receive_until(peer, lambda m: m.get("message") == "hello")

        done = command(relay.directory, "token", "revoke", "phone")
        assert (done.returncode, done.stderr) == (0, "logrelay: the token phone is revoked\n")
        assert [close_code(peer) for peer in (one, browser)] == [CLOSE_TOKEN] * 2
        assert get(relay, "/logs", phone)[0] == 401
        with pytest.raises(InvalidStatus, match="401"):
            viewer(relay, phone)
        trader.log("after")
        receive_until(other, lambda m: m.get("message") == "after")
    lines = [json.loads(line) for line in get(relay, "/logs", script)[1].splitlines()]
    told = [line["message"] for line in lines if line["context"].get("state") == "access"]
    assert [text for text in told if "revoked" in text] == ["the token phone was revoked"]


def test_an_answer_that_is_under_way_ends_with_its_token(start):
    """A reader of /logs is cut off in the middle, by a reset: it must not take the part for the whole."""
    relay = start()
    trader = relay.trader()
    for _ in range(600):
        trader.log("x" * 60_000)
    trader.wait()
    token = add(relay, "phone")
    with socket.create_connection(("127.0.0.1", relay.port), timeout=DEADLINE_S) as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.sendall(f"GET /logs?limit=10000&token={token} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert reader.recv(12) == b"HTTP/1.1 200"
        assert command(relay.directory, "token", "revoke", "phone").returncode == 0
        wait_for(lambda: get(relay, "/healthz", token)[0] == 401, "the token is no longer taken")
        size = 0
        with pytest.raises(ConnectionResetError):
            while data := reader.recv(1 << 20):
                size += len(data)
            pytest.fail("the answer seems to be whole")
    assert size < 600 * 60_000


def test_a_token_whose_time_is_over_is_out(start):
    """Its viewers are closed as soon as it expires, and nobody comes in by it any more."""
    relay = start()
    path = str(relay.directory / "tokens.json")
    text, other = add(relay, "short"), add(relay, "other")
    with contextlib.ExitStack() as stack:
        stays = stack.enter_context(viewer(relay, other))
        peer = stack.enter_context(viewer(relay, text))
        life_s = 3
        while True:
            soon = int(time.time()) + life_s
            change_tokens(
                path, lambda there, at=soon: tuple(replace(t, expires_s=at) if t.name == "short" else t for t in there)
            )
            assert close_code(peer) == CLOSE_TOKEN, "it has other limits than the viewer came in by"
            # Only a viewer that comes after this change is closed by the time and nothing else.
            with contextlib.suppress(InvalidStatus):
                peer = stack.enter_context(viewer(relay, text))
                break
            # This machine was busy for so long that it has expired: once more, for longer.
            life_s *= 2
            change_tokens(
                path, lambda there: tuple(replace(t, expires_s=None) if t.name == "short" else t for t in there)
            )
            wait_for(lambda: get(relay, "/readyz", text)[0] != 401, "it is good again")
            peer = stack.enter_context(viewer(relay, text))
        assert close_code(peer) == CLOSE_TOKEN
        assert time.time() >= soon
        assert get(relay, "/logs", text)[0] == 401, "nobody comes in by it"
        stays.send('{"type":"ping"}')
        receive_until(stays, lambda m: m["type"] == "pong")
    listed = json.loads(command(relay.directory, "token", "list", "--json").stdout)["tokens"]
    assert {t["name"]: t["expired"] for t in listed} == {"short": True, "other": False}


ANSWERS = {"subscribe": "subscribed", "ping": "pong", "silence": "error", "unsilence": "error"}
"""By the kind of request; a bot can be silenced only where there are alerts, and only without limits."""


def walk(relay, token):
    """Return everything that the relay says to the holder of a token, by every route and every kind of message."""
    said = {}
    for route in ROUTES:
        for query in ("", f"?text={MARK}", f"?app={MARK}*", "?level=debug&limit=1000", "?since=1h", "?source=*"):
            if query and route != "/logs":
                continue
            said[f"GET {route}{query}"] = get(relay, route + query, token)
            said[f"HEAD {route}{query}"] = get(relay, route + query, token, method="HEAD")
    requests = {
        "subscribe": [
            {"channel": "logs"}, {"level": "DEBUG", "tail": 1000}, {"app": [f"{MARK}*"], "tail": 1000},
            {"source": ["*"], "tail": 1000}, {"text": MARK, "tail": 1000}, {"where": ["secret=" + MARK], "tail": 1000},
        ],
        "history": [{"limit": 1000}],
        "ping": [{}],
        "silence": [{"app": "*", "for_s": 60}],
        "unsilence": [{"app": "*"}],
    }  # fmt: skip
    assert requests.keys() == set(REQUEST_TYPES), "a new kind of request has to be walked"
    for query in ("?tail=1000", "?level=debug&source=*&app=*&tail=1000", f"?text={MARK}&tail=1000"):
        with viewer(relay, token, query) as peer:
            got = [json.loads(peer.recv(DEADLINE_S))]
            head, oldest = got[0]["head"], got[0]["oldest"]
            asked = [{"type": kind, **fields} for kind, several in requests.items() for fields in several]
            asked += [{"type": "subscribe", "after": oldest, "level": "DEBUG"}]
            for message in asked:
                if message["type"] == "history":
                    message["before"] = head
                peer.send(json.dumps(message))
                answer = ANSWERS.get(message["type"], message["type"])
                got += receive_until(peer, lambda m, answer=answer: m["type"] == answer)
            # Whatever was asked for has been sent once a line that comes later has.
            end = f"end-{secrets.token_hex(8)}"
            relay.visible.log(end)
            got += receive_until(peer, lambda m, end=end: m.get("message") == end)
            # `subscribed` repeats what was asked for.
            said[f"WebSocket {query}"] = [message for message in got if message["type"] != "subscribed"]
    return said


def test_a_limited_token_sees_nothing_beyond_its_limits_by_any_way(start):
    """Whatever is asked for, and wherever: no line, no notice, no name of what its limits keep back."""
    relay = start()
    relay.visible, hidden = relay.trader("visible"), relay.trader(f"{MARK}-bot")
    frame = [1, 1, time.time_ns(), "warning", {"event": "the visible warning", "logger": "shown.loop"}]
    relay.visible.seq = 1
    relay.visible.send(frame)
    hidden.log(f"{MARK} critical", "critical", secret=MARK)
    for level, logger in (("info", "shown.loop"), ("error", f"{MARK}.logger")):
        relay.visible.seq += 1
        event = {"event": f"{MARK} {level}", "logger": logger, "secret": MARK}
        relay.visible.send([1, relay.visible.seq, time.time_ns(), level, event])
    hidden.seq += 3  # a hole: the relay tells of a gap
    hidden.log(f"{MARK} after a gap")
    for trader in (relay.visible, hidden):
        trader.wait()
    options = ("--min-level", "warning", "--app", "vis*", "--source", "shown.*", "--source", "robo_trader.runner")
    token, everything = add(relay, "phone", *options), add(relay, "owner")
    relay.visible.log = lambda text, log=relay.visible.log: log(text, "error")
    hidden.close()
    relay.traders.remove(hidden)

    def is_told_to_be_gone():
        lines = [json.loads(line) for line in get(relay, "/logs?limit=1000", everything)[1].splitlines()]
        told = [line["context"] for line in lines if line["context"].get("app") == f"{MARK}-bot"]
        return any(context.get("state") in ("lost", "crashed", "gone") for context in told)

    wait_for(is_told_to_be_gone, "the relay tells that a trader is gone")
    seen = walk(relay, everything)
    assert all(MARK in repr(seen[way]) for way in ("GET /logs", "GET /healthz", "WebSocket ?tail=1000"))

    narrowed = walk(relay, token)
    assert narrowed.keys() == seen.keys()
    assert [way for way, what in narrowed.items() if MARK in repr(what)] == []
    assert b"the visible warning" in narrowed["GET /logs"][1]
    assert "the visible warning" in repr(narrowed["WebSocket ?tail=1000"])
    assert narrowed["WebSocket ?tail=1000"][0]["limit"] == {
        "level": "WARNING", "app": ["vis*"], "source": ["robo_trader.runner", "shown.*"],
    }  # fmt: skip
    assert narrowed["GET /metrics"][0] == 403
    assert {way: narrowed[way][0] for way in ("GET /healthz", "GET /readyz")} == {
        "GET /healthz": 200,
        "GET /readyz": 200,
    }


FORMS = {
    "header": lambda token, target: ({"Authorization": f"Bearer {token}"}, target),
    "header, odd case": lambda token, target: ({"authorization": f"bEaReR  {token}"}, target),
    "malformed header": lambda token, target: ({"Authorization": f"Bearer {token} {token}"}, target),
    "other scheme": lambda token, target: ({"Authorization": f"Basic {token}"}, target),
    "query": lambda token, target: ({}, f"{target}{'&' if '?' in target else '?'}token={token}"),
    "query, twice": lambda token, target: ({}, f"{target}?token={token}&token={token}"),
    "subprotocol": lambda token, target: ({"Sec-WebSocket-Protocol": f"logrelay.v1.batch, bearer.{token}"}, target),
    "wrong place": lambda token, target: ({}, f"/{token}"),
    "cookie": lambda token, target: ({"Cookie": f"token={token}"}, target),
}


def whole_answer(peer):
    """Return what a peer answers until it closes, or the first of what it says on an open WebSocket."""
    answer = peer.recv(1 << 16)
    while not answer.startswith(b"HTTP/1.1 101") and (more := peer.recv(1 << 16)):
        answer += more
    return answer


def test_no_token_and_no_secret_is_written_anywhere(start, tmp_path):
    """After requests in every form, good, wrong and revoked, nothing that the relay wrote holds one of the tokens.

    Nor a secret that the bot's redaction has hidden.
    """
    relay = start(LOGRELAY_LOG_LEVEL="info", LOGRELAY_TOKEN=GOOD_TOKEN)
    tokens = [GOOD_TOKEN, add(relay, "phone"), add(relay, "script", "--min-level", "error"), add(relay, "gone")]
    gone = tokens[-1]
    with viewer(relay, gone) as peer:
        assert command(relay.directory, "token", "revoke", "gone").returncode == 0
        assert close_code(peer) == CLOSE_TOKEN
    tokens += [f"lr_{secrets.token_urlsafe(32)}", "a-wrong-one-Zq81mx"]
    bot_secret = "hunter2-Zk3vQp9sX7"
    bot = (
        "import logging; from robo_trader.log_relay import LogRelayHandler\n"
        "handler = LogRelayHandler(app='bot'); log = logging.getLogger('bot'); log.addHandler(handler)\n"
        f"log.warning('login', extra={{'password': {bot_secret!r}}}); log.error('token is {tokens[1]}')\n"
        "handler.close()\n"
    )
    kept = {k: v for k, v in os.environ.items() if not k.startswith("LOGRELAY_")}
    subprocess.run(
        [sys.executable, "-c", bot], env=kept | {"LOGRELAY_SOCKET": str(relay.socket)}, timeout=DEADLINE_S, check=True
    )
    upgrade = {
        "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }  # fmt: skip
    peers, asked = contextlib.ExitStack(), []
    for token in tokens:
        for target in ("/logs?limit=1", "/healthz", "/logs?limit=x&after=1", "/?tail=x"):
            for form in FORMS.values():
                headers, path = form(token, target)
                for more in ({}, upgrade):
                    peer = socket.create_connection(("127.0.0.1", relay.port), timeout=DEADLINE_S)
                    peers.enter_context(peer)
                    rows = [f"GET {path} HTTP/1.1", "Host: localhost"]
                    rows += [f"{key}: {value}" for key, value in (headers | more).items()]
                    peer.sendall("\r\n".join([*rows, "", ""]).encode())
                    asked.append(peer)
    # The answers to what is wrong come late, so all are waited for together.
    with peers:
        answers = [whole_answer(peer) for peer in asked]
    assert {101, 200, 400, 401} <= {int(answer.split()[1]) for answer in answers}
    metrics = get(relay, "/metrics", GOOD_TOKEN)[1].decode()
    wrong = next(int(row.split()[1]) for row in metrics.splitlines() if row.startswith("logrelay_wrong_tokens_total "))
    assert wrong > 50
    shown = [metrics.encode(), *answers]
    shown += [get(relay, f"/logs?limit={n}", GOOD_TOKEN)[1] for n in (10_000,)]
    assert b"wrong tokens were shown" in shown[-1] or b"a wrong token was shown" in shown[-1]
    shown += [get(relay, "/healthz", GOOD_TOKEN)[1]]
    listed = command(relay.directory, "token", "list", LOGRELAY_TOKEN=GOOD_TOKEN)
    assert "LOGRELAY_TOKEN" in listed.stdout
    # At the end the relay waits for half a second only until the last uses are written.
    wait_for((relay.directory / "tokens.json.used").exists, "the uses of the tokens")
    checked = command(relay.directory, "check", LOGRELAY_TOKEN=GOOD_TOKEN)
    relay.process.send_signal(signal.SIGTERM)
    with relay.process.stderr:
        stderr = relay.process.stderr.read()
    assert relay.process.wait(DEADLINE_S) == 0
    shown += [text.encode() for text in (stderr, listed.stdout, listed.stderr, checked.stdout, checked.stderr)]
    files = [path for path in relay.directory.iterdir() if path.is_file()]
    assert {"j.db", "tokens.json", "tokens.json.used"} <= {path.name for path in files}
    shown += [path.read_bytes() for path in files]
    for secret in (*tokens, bot_secret):
        assert [text[:200] for text in shown if secret.encode() in text] == [], "written somewhere"
    assert "Traceback" not in stderr


def test_a_good_token_passes_while_wrong_ones_wait(start):
    """Behind the address of somebody who guesses, the owner gets in; the guesses are counted."""
    relay = start(LOGRELAY_TOKEN=GOOD_TOKEN)
    with contextlib.ExitStack() as stack:
        guessers = []
        for number in range(12):
            peer = stack.enter_context(socket.create_connection(("127.0.0.1", relay.port), timeout=DEADLINE_S))
            peer.sendall(f"GET /logs?token=wrong{number} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            guessers.append(peer)
        assert get(relay, "/readyz", GOOD_TOKEN)[0] == 200
        answers = [int(peer.recv(64).split()[1]) for peer in guessers]
    assert set(answers) <= {401, 429}
    assert 401 in answers
    assert b"\nlogrelay_wrong_tokens_total 12\n" in get(relay, "/metrics", GOOD_TOKEN)[1]


def test_the_page_needs_no_token_and_shows_no_line(start):
    """Program text only, for whoever comes, with a wrong token too."""
    relay = start(LOGRELAY_TOKEN=GOOD_TOKEN)
    for path in STATIC:
        assert get(relay, path)[0] == 200
        assert get(relay, f"{path}?token=wrong")[0] == 200


# --- the commands --------------------------------------------------------------------------------------------------


def test_what_the_commands_print(tmp_path):
    """The token alone on stdout, once; lists and errors for people and for programs."""
    added = command(tmp_path, "token", "add", "phone", "--app", "scalp*", "--min-level", "info", "--expires", "90d")
    assert added.returncode == 0
    token = added.stdout.removesuffix("\n")
    assert (len(token), token[:3]) == (46, "lr_")
    assert "INFO and above; bots scalp*" in added.stderr
    assert "from now on every viewer of this relay needs a token" in added.stderr
    (kept,) = read_tokens(str(tmp_path / "tokens.json"))
    assert kept.digest == digest_of(token)

    again = command(tmp_path, "token", "add", "phone")
    assert (again.returncode, again.stdout) == (2, "")
    assert "there is a token phone already; choose another name, or revoke" in again.stderr
    made = json.loads(command(tmp_path, "token", "add", "script", "--json").stdout)
    assert made["token"].startswith("lr_")
    assert (made["name"], made["expires"], made["app"], made["min_level"]) == ("script", None, [], "DEBUG")

    text = command(tmp_path, "token", "list").stdout
    assert "phone  made " in text
    assert "shows INFO and above; bots scalp*" in text
    assert token not in text
    rows = json.loads(command(tmp_path, "token", "list", "--json").stdout)["tokens"]
    assert [(row["name"], row["app"], row["last_used"]) for row in rows] == [
        ("phone", ["scalp*"], None), ("script", [], None),
    ]  # fmt: skip

    missing = command(tmp_path, "token", "revoke", "tablet")
    assert (missing.returncode, "there is: phone, script" in missing.stderr) == (2, True)
    for name in ("phone", "script"):
        last = command(tmp_path, "token", "revoke", name)
        assert last.returncode == 0
    assert "no token is left, so nobody gets in by one" in last.stderr
    assert "there are no tokens in" in command(tmp_path, "token", "list").stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add", "a b"), "cannot be the name of a token"),
        (("add", "LOGRELAY_TOKEN"), "cannot be the name of a token"),
        (("add", "x", "--expires", "soon"), "allowed: 1m to 3650d"),
        (("add", "x", "--min-level", "loud"), "is not one of DEBUG, INFO"),
        (("add", "x", "--app", ""), "--app is empty"),
        (("add", "x", "--journal", ":memory:"), "say where it is to be with --tokens PATH"),
        (("revoke", "LOGRELAY_TOKEN"), "is a setting"),
    ],
)
def test_what_the_commands_refuse(tmp_path, arguments, said):
    """With exit code 2 and what is allowed; nothing is made."""
    done = command(tmp_path, "token", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert os.listdir(tmp_path) == []


def test_the_commands_find_the_file_where_the_relay_does(tmp_path):
    """By --tokens, by the config file, by the environment; an address that needs a token does not stand in the way."""
    config = tmp_path / "r.toml"
    config.write_text(f'tokens = "{tmp_path}/b.json"\nhost = "0.0.0.0"\n')
    places = [("--tokens", str(tmp_path / "a.json")), ("--config", str(config))]
    for place in places:
        assert command(tmp_path, "token", "add", "x", *place).returncode == 0
    assert command(tmp_path, "token", "add", "x", LOGRELAY_TOKENS=str(tmp_path / "c.json")).returncode == 0
    assert sorted(os.listdir(tmp_path)) == ["a.json", "b.json", "c.json", "r.toml"]


# --- the start -----------------------------------------------------------------------------------------------------


def serve_to_its_end(directory, *options, **environment):
    """Run a relay that is expected not to start."""
    return command(directory, "serve", "--port", "0", "--socket", str(directory / "s"), *options, **environment)


@pytest.mark.parametrize("weak", ["short", "aaaaaaaaaaaaaaaaaaaa", "correct-horse-battery-staple"])
def test_beyond_loopback_a_weak_token_is_refused(tmp_path, weak):
    """The relay does not start, and says what is allowed without repeating the token."""
    done = serve_to_its_end(tmp_path, "--host", "0.0.0.0", LOGRELAY_TOKEN=weak)
    assert done.returncode == 2
    assert "can be guessed" in done.stderr
    assert "Allowed: 16 random characters or more; make one with: logrelay token add" in done.stderr
    assert weak not in done.stderr
    checked = command(tmp_path, "check", "--host", "127.0.0.1", LOGRELAY_TOKEN=weak)
    assert checked.returncode == 0, "on loopback it is taken"


@pytest.mark.parametrize("token", ["short", GOOD_TOKEN])
def test_an_inherited_address_asks_for_a_good_token_as_well(tmp_path, token):
    """Where systemd holds the socket the settings do not say what is listened on; the socket does."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("LOGRELAY_")}
    environ = kept | {"LISTEN_FDS": "1", "LOGRELAY_TOKEN": token, "LOGRELAY_SOCKET": str(tmp_path / "s")}
    with socket.create_server(("0.0.0.0", 0)) as listener:
        relay = subprocess.Popen(
            ["/bin/sh", "-c", 'export LISTEN_PID=$$; exec "$@"', "sh", sys.executable, "-m", "logrelay", "serve",
             "--journal", ":memory:"],
            env=environ, preexec_fn=lambda: os.dup2(listener.fileno(), 3), close_fds=False, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        with relay, contextlib.ExitStack() as stack:
            stack.callback(relay.kill)
            said = relay.stderr.readline()
            if token == GOOD_TOKEN:
                assert "come in plain text" in said
                assert "ready on ws://0.0.0.0:" in relay.stderr.readline()
                relay.send_signal(signal.SIGTERM)
            else:
                assert "the inherited address is '0.0.0.0', which is not loopback, and the token can be guessed" in said
            assert relay.wait(DEADLINE_S) == (0 if token == GOOD_TOKEN else 2)


@pytest.mark.parametrize("content", ["{", '{"version":2,"tokens":[]}', None])
def test_a_relay_does_not_start_with_a_file_that_it_cannot_use(tmp_path, content):
    """Damaged, from the future, or readable by others: exit code 2, so that systemd does not try again."""
    path = tmp_path / "tokens.json"
    change_tokens(str(path), lambda _: (Token("x", digest_of("x"), "1"),))
    if content is None:
        path.chmod(0o644)
    else:
        path.write_text(content)
    done = serve_to_its_end(tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert f"token file {path}" in done.stderr
    assert sorted(p.name for p in Path(tmp_path).iterdir()) == ["tokens.json"], "nothing was opened"


def test_a_token_file_is_enough_beyond_loopback(start, tmp_path):
    """It stands for LOGRELAY_TOKEN."""
    path = tmp_path / "tokens.json"
    refused = serve_to_its_end(tmp_path, "--host", "0.0.0.0", "--tokens", str(path))
    assert (refused.returncode, "logrelay token add NAME" in refused.stderr) == (2, True)
    change_tokens(str(path), lambda _: (Token("x", digest_of(GOOD_TOKEN), "1"),))
    relay = start(LOGRELAY_HOST="0.0.0.0", LOGRELAY_TOKENS=str(path))
    assert get(relay, "/logs")[0] == 401
    assert get(relay, "/logs", GOOD_TOKEN)[0] == 200
