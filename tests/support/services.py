"""Services that alerts are sent to: a web service and a mail server, real ones on sockets of this machine.

Owns: `Receiver`, whose answers a test decides, and `MailServer`. They must not know what is sent to them.
Read `waiting` next.
"""

from __future__ import annotations

import contextlib
import json
import socketserver
import threading
import time
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from tests.support.ports import free_port
from tests.support.threads import join
from tests.support.waiting import wait_for


class Got(NamedTuple):
    """A message that a service was given."""

    at: float
    """Seconds since 1970."""
    title: str
    body: str
    accepted: bool


OF_THE_DISK, REPEATED = "logrelay: the journal", "you may have had it before"
"""How titles begin that tell of a commit which the disk of a busy machine has kept, and of its end; and what an alert
says that comes again because its first delivery did not end in time: a machine that stood still makes both."""


class Receiver:
    """A web service that takes alerts as Apprise's json:// sends them, and heartbeats by GET.

    `answer` is called for each alert and returns status and headers, or None: it never answers. It is called before the
    alert counts as accepted.
    """

    def __init__(self) -> None:
        self.got: list[Got] = []
        self.beats: list[float] = []
        self.answer = lambda _got: (200, {})
        self._open = threading.Event()
        self._open.set()
        self.release = threading.Event()
        """Set at the end: whoever is never answered goes."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                got = Got(time.time(), sent["title"], sent["message"], accepted=True)
                answer = receiver.answer(got)
                if answer is None:
                    receiver.got.append(got._replace(accepted=False))
                    receiver.release.wait()
                    return
                status, headers = answer
                receiver.got.append(got._replace(accepted=status == 200))
                with contextlib.suppress(ConnectionError):
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.end_headers()

            def do_GET(self) -> None:
                receiver.beats.append(time.time())
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = False
            request_queue_size = 100

            def handle_error(self, *_: object) -> None:
                pass

        self._handler, self._server_class = Handler, Server
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self.port = free_port()
        self.open()

    def open(self) -> None:
        """Listen, on the port of before."""
        self._server = self._server_class(("127.0.0.1", self.port), self._handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="receiver")
        self._thread.start()

    def close(self) -> None:
        """Refuse connections from now on."""
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        join(self._thread)
        self.release.clear()

    @property
    def url(self) -> str:
        """The service as an alert's URL names it."""
        return f"json://127.0.0.1:{self.port}/hidden"

    @property
    def heartbeat(self) -> str:
        """Where heartbeats go."""
        return f"http://127.0.0.1:{self.port}/beat"

    @property
    def accepted(self) -> list[Got]:
        """What it has taken."""
        return [got for got in list(self.got) if got.accepted]

    @property
    def told(self) -> list[Got]:
        """What it has taken about bots, repetitions that say that they may be some left out."""
        return about_bots(self.accepted)

    def wait_for(self, text: str, *, count: int = 1) -> list[Got]:
        """Wait until so many accepted alerts have a text in them; return them."""

        def found() -> list[Got]:
            return [got for got in self.accepted if text in f"{got.title}\n{got.body}"]

        wait_for(lambda: len(found()) >= count, lambda: f"{count} alerts with {text!r}; there is {self.got}")
        return found()


def about_bots(got: list[Got]) -> list[Got]:
    """Return what tells neither of the disk nor of something a second time."""
    return [one for one in got if not one.title.startswith(OF_THE_DISK) and REPEATED not in one.body]


class MailServer:
    """A mail server (RFC 5321, as much as a client needs) that keeps what it is given."""

    def __init__(self) -> None:
        self.mails: list[Got] = []
        mails = self.mails

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self._say("220 mail.test ready")
                while line := self.rfile.readline():
                    word = line[:4].upper().strip()
                    if word == b"DATA":
                        self._say("354 go on")
                        mails.append(self._mail())
                        self._say("250 taken")
                    elif word == b"QUIT":
                        self._say("221 bye")
                        return
                    else:
                        self._say("250 mail.test")

            def _say(self, text: str) -> None:
                self.wfile.write(text.encode() + b"\r\n")

            def _mail(self) -> Got:
                lines = []
                while (line := self.rfile.readline()) not in (b".\r\n", b""):
                    lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
                mail = message_from_bytes(b"".join(lines), policy=policy.default)
                body = mail.get_body(("plain", "html")).get_content()
                return Got(time.time(), str(mail["Subject"]), body, accepted=True)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = False
            allow_reuse_address = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="mail server")
        self._thread.start()

    @property
    def url(self) -> str:
        """The service as an alert's URL names it."""
        return f"mailto://127.0.0.1:{self.port}/?from=relay@example.org&to=owner@example.org&mode=insecure"

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        join(self._thread)
