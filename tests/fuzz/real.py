"""Gives the same inputs to a real relay over its sockets, beside a healthy trader and a healthy viewer.

Owns: `RealLane`, with the processes of `tests/siege` and what it requires of them. It must not know what the inputs
mean. Linux only, as the siege is. Read `__main__` next.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

import msgpack

from tests.fuzz import port_inputs, socket_inputs
from tests.fuzz.cases import Case, Connection
from tests.fuzz.port_lane import check_frames
from tests.fuzz.socket_lane import Fault
from tests.siege.siege import TOKEN, Bystander, home
from tests.siege.siege import TRADER_RATE as RATE
from tests.support.chaos.relay import Relay
from tests.support.waiting import DEADLINE_S, wait_for

AFTER_BYTES = 160 << 20
"""The relay's memory once the last connection is closed: what tests/siege allows while an attack goes on. The healthy
trader's recent lines alone take some 75 MB when it has logged for two minutes, whatever else comes."""

ANSWER_S = 0.05
"""How long an answer is waited for; the next input does not need it."""

ANSWERED = {errno.EPIPE, errno.ECONNRESET}
"""The relay closed while an input was still being sent, as it may."""


@dataclass
class Outcome:
    """What a number of inputs did to a relay."""

    inputs: int = 0
    rss_before: int = 0
    rss_after: int = 0
    faults: list[str] = field(default_factory=list)


@contextlib.contextmanager
def _relay_and_bystanders() -> Iterator[tuple[Relay, Bystander, Bystander]]:
    with home() as place, contextlib.ExitStack() as ends:
        config = place / "relay.toml"
        config.write_text(f'token = "{TOKEN}"\n')
        config.chmod(0o600)
        relay = Relay(place, "--config", str(config), journal=place / "journal.db")
        ends.callback(relay.end)
        relay.start()
        trader = Bystander("trader", str(relay.socket), str(RATE))
        ends.callback(trader.end)
        watcher = Bystander("watcher", str(relay.port), TOKEN, "")
        ends.callback(watcher.end)
        yield relay, trader, watcher


def run_real(listener: str, *, seed: int, inputs: int, seconds: float) -> Outcome:
    """Give inputs to one listener until there were so many, or the time is over, and look at what is left."""
    outcome = Outcome()
    with _relay_and_bystanders() as (relay, trader, watcher):
        watcher.ask(f"mark {trader.ask('mark')['lines']}")
        outcome.rss_before = relay.rss()
        ends = time.monotonic() + seconds
        give = _give_to_socket if listener == "socket" else _give_to_port
        while outcome.inputs < inputs and time.monotonic() < ends:
            try:
                give(relay, seed + outcome.inputs)
            except Fault as fault:
                outcome.faults.append(f"seed {seed + outcome.inputs}: {fault}")
            outcome.inputs += 1
        with contextlib.suppress(AssertionError):
            wait_for(lambda: relay.rss() < AFTER_BYTES, "memory that is given back")
        outcome.rss_after = relay.rss()
        lines = trader.ask("finish")["lines"]
        watcher.ask(f"mark {lines}")
        counted = watcher.ask(f"finish {lines}")
        outcome.faults += [f"{what} {counted[what]} lines of the healthy trader" for what in ("lost", "repeated")
                           if counted[what]]  # fmt: skip
        if outcome.rss_after >= AFTER_BYTES:
            outcome.faults.append(f"{outcome.rss_after >> 20} MB are held afterwards")
        outcome.faults += [said for said in relay.said if "Traceback" in said or "please report" in said]
        errors = _metric(relay, "logrelay_internal_errors_total")
        if errors != 0:
            outcome.faults.append(f"{errors:.0f} internal errors")
    return outcome


def _metric(relay: Relay, name: str) -> float:
    request = urllib.request.Request(
        f"http://127.0.0.1:{relay.port}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
        for row in answer.read().decode().splitlines():
            if row.startswith(name + " "):
                return float(row.split()[1])
    raise AssertionError(f"/metrics has no {name}")


def _give(sock: socket.socket, connection: Connection) -> bytes:
    """Send what there is and return what was answered within a moment."""
    answer = b""
    try:
        for data in connection.reads():
            sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(ANSWER_S)
        while more := sock.recv(1 << 16):
            answer += more
    except TimeoutError:
        pass
    except OSError as error:
        if error.errno not in ANSWERED and error.errno != errno.ENOTCONN:
            raise
    return answer


def _give_to_socket(relay: Relay, seed: int) -> None:
    case = socket_inputs.make_case(Random(seed))
    for connection in _with_runs_of_its_own(case, seed).connections:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(DEADLINE_S)
            sock.connect(str(relay.socket))
            answers = msgpack.Unpacker(strict_map_key=True)
            answers.feed(_give(sock, connection))
            for answer in answers:
                if type(answer) is not list or answer[0] not in (0, 1, 2, 3, 4, 5):
                    raise Fault(f"no answer of the protocol: {answer!r:.200}")


def _with_runs_of_its_own(case: Case, seed: int) -> Case:
    """Return the same with other runs: those of each input are new."""
    keys = [(key, Random(f"{seed} {key!r}").randbytes(16)) for key in socket_inputs.RUNS]
    connections = []
    for connection in case.connections:
        pieces = []
        for piece in connection.pieces:
            data = piece.data
            for old, new in keys:
                data = data.replace(old, new)
            pieces.append(piece._replace(data=data))
        connections.append(Connection(tuple(pieces), connection.cuts))
    return Case(tuple(connections), case.peer)


def _give_to_port(relay: Relay, seed: int) -> None:
    connection = port_inputs.make_case(Random(seed)).connections[0]
    with socket.socket() as sock:
        sock.settimeout(DEADLINE_S)
        sock.connect(("127.0.0.1", relay.port))
        answer = _give(sock, connection)
    if not answer:
        return
    head, _, _ = answer.partition(b"\r\n\r\n")
    if not answer.startswith(b"HTTP/1.1 "):
        raise Fault(f"no answer of HTTP: {answer!r:.200}")
    if head.startswith(b"HTTP/1.1 101 "):
        check_frames(answer[len(head) + 4 :], is_whole=False)
