"""The proxies' configurations of docs/proxies, with the real programs between a client and the relay."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import ssl
import subprocess
from pathlib import Path

import orjson
import pytest
from websockets.sync.client import connect

from logrelay.terminal.tls_socket import for_two_threads
from tests.support.certificates import Authority
from tests.support.ports import free_port
from tests.support.waiting import DEADLINE_S, wait_for

PROXIES = Path(__file__).parents[3] / "docs" / "proxies"
TOKEN = "V3sJm0t-Qz7w_1pLk9rXu8Yb2"

AROUND = """
daemon off; master_process off; pid nginx.pid; error_log stderr;
events {{ worker_connections 64; }}
http {{
    access_log off; client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4;
    scgi_temp_path t5;
    {server}
}}
"""
"""What a distribution's own nginx.conf has around the files in conf.d."""


def nginx(folder: Path, port: int, relay: int, cert: Path, key: Path) -> list[str]:
    text = (PROXIES / "nginx.conf").read_text("utf-8").replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
    text = text.replace("127.0.0.1:8765", f"127.0.0.1:{relay}")
    text = re.sub(r"ssl_certificate +\S+;", f"ssl_certificate {cert};", text)
    text = re.sub(r"ssl_certificate_key +\S+;", f"ssl_certificate_key {key};", text)
    (folder / "nginx.conf").write_text(AROUND.format(server=text))
    return ["-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]


def caddy(folder: Path, port: int, relay: int, cert: Path, key: Path) -> list[str]:
    text = (PROXIES / "Caddyfile").read_text("utf-8").replace("127.0.0.1:8765", f"127.0.0.1:{relay}")
    text = text.replace("logs.example.org {", f"https://localhost:{port} {{\n\ttls {cert} {key}")
    (folder / "Caddyfile").write_text("{\n\tadmin off\n\tauto_https disable_redirects\n}\n" + text)
    return ["run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


@pytest.mark.parametrize("program", [nginx, caddy], ids=lambda program: program.__name__)
def test_everything_goes_through_a_proxy(start, tmp_path, program):
    """The page, lines, lines that go on, and a WebSocket with the page's Origin; the client's own address is known."""
    path = shutil.which(program.__name__, path=f"{os.environ['PATH']}:/usr/sbin")
    if path is None:
        pytest.skip(f"{program.__name__} is not installed")
    relay = start(LOGRELAY_TOKEN=TOKEN, LOGRELAY_TRUSTED_PROXY="127.0.0.1")
    trader = relay.trader()
    trader.log("first")
    trader.wait()
    authority, port = Authority(tmp_path), free_port()
    cert, key = authority.issue("proxy")
    environ = os.environ | {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen(
            [path, *program(tmp_path, port, relay.port, cert, key)], cwd=tmp_path, env=environ, stdout=said, stderr=said
        )
    ends = contextlib.ExitStack()
    try:
        context = authority.client()

        def get(target: str, **headers: str) -> http.client.HTTPResponse:
            connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=DEADLINE_S)
            ends.callback(connection.close)
            connection.request("GET", target, headers=headers)
            answer = connection.getresponse()
            ends.callback(answer.close)
            return answer

        def answers() -> bool:
            try:
                return get("/").status == 200
            except (OSError, ssl.SSLError, http.client.HTTPException):
                return process.poll() is not None

        wait_for(answers, lambda: (tmp_path / "said").read_text("utf-8", "replace"))
        assert process.poll() is None, (tmp_path / "said").read_text("utf-8", "replace")
        assert get("/logs").status == 401
        shown = {"Authorization": f"Bearer {TOKEN}"}
        lines = [orjson.loads(row) for row in get("/logs?app=robo_trader", **shown).read().splitlines()]
        assert "first" in [line["message"] for line in lines]
        events = get("/events?tail=1&notices=no", **shown)
        assert (events.status, events.getheader("Content-Type")) == (200, "text/event-stream")
        assert b"first" in events.fp.readline() + events.fp.readline() + events.fp.readline()
        with connect(
            f"wss://localhost:{port}/?tail=0&notices=no", ssl=for_two_threads(authority.client()), origin=f"https://localhost:{port}",
            subprotocols=["logrelay.v1.batch", f"bearer.{TOKEN}"], open_timeout=DEADLINE_S,
        ) as viewer:  # fmt: skip
            assert orjson.loads(viewer.recv(timeout=DEADLINE_S))["type"] == "connection"
            trader.log("second")
            while "second" not in (text := viewer.recv(timeout=DEADLINE_S)):
                assert orjson.loads(text)
    finally:
        ends.close()
        process.kill()  # asked to end, it would wait for the lines that go on
        process.wait(DEADLINE_S)
