"""The page's client in Node, with a socket that is written here: what it does when the relay has another epoch."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.waiting import DEADLINE_S

CLIENT = Path(__file__).parents[3] / "logrelay" / "static" / "client.js"

SCRIPT = """
import { LogRelayClient } from %(client)s;
const sockets = [];
globalThis.WebSocket = class {
  constructor(url) { Object.assign(this, { url, readyState: 1, sent: [] }); sockets.push(this); }
  send(text) { this.sent.push(JSON.parse(text)); }
  close() { this.readyState = 3; }
};
const seen = { urls: [], ids: [], resets: 0, sent: [] };
const client = new LogRelayClient({
  url: "ws://relay/", tail: 5, maxResume: 100, after: "old111-601", device: "my tablet",
  onLines: (lines) => seen.ids.push(...lines.map((line) => line.id)),
  onReset: () => { seen.resets += 1; },
});
client.start();
for (const message of %(messages)s) sockets.at(-1).onmessage({ data: JSON.stringify(message) });
sockets.at(-1).onclose({ code: 1012, reason: "" });
client.wake();
seen.urls = sockets.map((socket) => socket.url);
seen.sent = sockets[0].sent;
console.log(JSON.stringify(seen));
client.stop();
"""


def play(*messages):
    """Give the messages to a client that resumes behind old111-601; return what it did."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    script = SCRIPT % {"client": json.dumps(CLIENT.as_uri()), "messages": json.dumps(messages)}
    done = subprocess.run(
        [node, "--input-type=module", "-e", script], capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def greeting(head, oldest="old111-1"):
    return {"type": "connection", "status": "connected", "head": head, "oldest": oldest, "traders": [], "version": "1"}


def line(id_, source="bot", **context):
    return {"type": "log", "id": id_, "source": source, "level": "INFO", "message": "m", "context": context}


def test_it_goes_on_with_another_epoch():
    """After a power cut: the gap, then other lines with the same numbers; nothing is begun anew or left out."""
    gap = line("old111-481", "logrelay", notice="gap", cause="unsynced", count=120)
    seen = play(greeting("new222-484"), [gap, *(line(f"new222-{seq}") for seq in (482, 483, 484))])

    assert seen["ids"] == ["old111-481", "new222-482", "new222-483", "new222-484"]
    assert (seen["resets"], seen["sent"]) == (0, [])
    assert [url.partition("?")[2] for url in seen["urls"]] == [
        "after=old111-601&device=my%20tablet",
        "after=new222-484&device=my%20tablet",
    ]


def test_a_long_journal_of_an_old_epoch_is_resumed_where_it_was():
    """The numbers go on from epoch to epoch: ninety lines behind is no reason to begin anew, however many are kept."""
    seen = play(greeting("new222-691"), [line(f"new222-{seq}") for seq in range(602, 692)])

    assert len(seen["ids"]) == 90
    assert (seen["resets"], seen["sent"]) == (0, [])


def test_it_does_not_read_a_whole_journal_that_it_does_not_know():
    """Behind an id that means nothing the relay begins with its oldest line: with too many of them, the newest do."""
    gap = line("zzz999-0", "logrelay", notice="gap", cause="epoch", count=0)
    answer = {"type": "subscribed", "channel": "logs", "filter": {}, "head": "zzz999-900"}
    seen = play(greeting("zzz999-650", "zzz999-1"), [gap], [line("zzz999-1")], answer, [line("zzz999-650")])

    assert [(message["type"], message["tail"]) for message in seen["sent"]] == [("subscribe", 5)]
    assert (seen["ids"], seen["resets"]) == (["zzz999-650"], 1)
