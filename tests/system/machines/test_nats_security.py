"""Who may do what on a NATS server, with the configuration of docs/machines.md; every way to log in; no secrets."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.chaos.feeder import Trader
from tests.support.chaos.relay import ROOT, Relay
from tests.support.nats import NatsServer, asked, nats_server, needs_nats
from tests.support.waiting import DEADLINE_S, wait_for

nkeys = pytest.importorskip("nkeys", reason="nkeys is not installed (pip install '.[nats]' in the checkout)")
pytestmark = needs_nats

SECRETS = ("EDGE-PASSWORD", "HUB-PASSWORD", "ADMIN-PASSWORD", "s3cret-token")


@pytest.fixture
def authority(tmp_path):
    folder = tmp_path / "ca"
    folder.mkdir()
    return Authority(folder)


@pytest.fixture
def documented(tmp_path, authority):
    """The server of docs/machines.md: its configuration, with the paths and ports of this test."""
    certificate, key = authority.issue("server")
    text = (ROOT / "docs" / "machines.md").read_text("utf-8")
    config = text.partition("<!-- nats.conf: begin -->\n```\n")[2].partition("```")[0]
    server = NatsServer(tmp_path / "nats")
    paths = {
        "0.0.0.0:4222": f"127.0.0.1:{server.port}",
        "/var/lib/nats": str(server.store),
        "/etc/nats/server.pem": str(certificate),
        "/etc/nats/server.key": str(key),
    }
    for there, here in paths.items():
        assert config.count(there) == 1
        config = config.replace(there, here)
    server.config.write_text(f'http: "127.0.0.1:{server.monitor}"\n{config}')
    try:
        yield server.start()
    finally:
        server.kill()


def as_user(server, authority, user, password, ask, inbox="t"):
    url = server.url.replace("nats://", "tls://")
    return asked(url, ask, user=user, password=password, tls=authority.client(), inbox_prefix=f"_INBOX.{inbox}")


async def make_stream(client):
    await client.jetstream().add_stream(
        name="LOGRELAY", subjects=["logrelay.lines.*"], storage="file", allow_direct=True
    )


def forwards(relay, count=20):
    """Have a bot log, and wait until it is in the stream."""
    relay.start()
    bot = Trader(relay.socket, "bot").connect()
    bot.burst(count)
    bot.wait_acked()
    bot.close()
    wait_for(lambda: relay.metric("forward_lag_lines") == 0 and relay.metric("forward_lines_total") > count, relay.tell)


def check(*options, **environ):
    """Run `logrelay check`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LOGRELAY_")}
    return subprocess.run(
        [sys.executable, "-m", "logrelay", "check", *options],
        env=clean | {"PYTHONPATH": str(ROOT)} | environ,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def test_the_documented_configuration_lets_each_do_its_part_and_no_more(tmp_path, documented, authority):
    """An edge should forward with it, and be able to read nothing of others, nor write under their names."""
    url = documented.url.replace("nats://", "tls://")
    options = ["--forward", url, "--edge-name", "box-1", "--nats-tls-ca", str(authority.folder / "ca.pem")]
    secret = {"LOGRELAY_NATS_USER": "box-1", "LOGRELAY_NATS_PASSWORD": "EDGE-PASSWORD"}
    before = check(*options, **secret)
    assert before.returncode == 7
    assert "problem: " in before.stderr
    assert "stream not found" in before.stderr
    as_user(documented, authority, "admin", "ADMIN-PASSWORD", make_stream)

    relay = Relay(tmp_path, *options)
    relay.environ = secret
    try:
        forwards(relay)
        command = Path(f"/proc/{relay.pid}/cmdline").read_bytes()
        metrics = relay.get("/metrics")[1]
    finally:
        relay.end()
    after = check(*options, **secret)
    assert after.returncode == 0, after.stderr
    assert "problem: " not in after.stderr
    assert "lines may be published as box-1" in after.stdout
    assert "the stream has lines of box-1 up to " in after.stdout
    for shown in (command, metrics, "\n".join(relay.said).encode(), after.stdout.encode(), after.stderr.encode()):
        assert not any(one.encode() in shown for one in SECRETS)
    assert "eof_received" not in after.stderr

    as_hub = {"LOGRELAY_NATS_USER": "hub", "LOGRELAY_NATS_PASSWORD": "HUB-PASSWORD"}
    hub = check("--collect", url, *options[4:], **as_hub)
    assert hub.returncode == 0, hub.stderr
    assert "stream LOGRELAY may be read" in hub.stdout
    no_hub = check("--collect", url, *options[4:], **secret)
    assert no_hub.returncode == 7
    assert "problem: " in no_hub.stderr

    denied = check("--forward", url, "--edge-name", "box-2", *options[4:], **secret)
    assert denied.returncode == 7
    assert "the user may not subscribe to _inbox.box-2." in denied.stderr

    async def tries(client):
        js = client.jetstream(timeout=0.5)
        out = {}
        attempts = {
            "others' lines": lambda: js.get_msg("LOGRELAY", 1),
            "others' last": lambda: js.get_last_msg("LOGRELAY", "logrelay.lines.box-2", direct=True),
            "write as another": lambda: js.publish("logrelay.lines.box-2", b"x"),
            "purge": lambda: js.purge_stream("LOGRELAY"),
            "delete": lambda: js.delete_stream("LOGRELAY"),
            "read": lambda: js.subscribe("logrelay.lines.*", stream="LOGRELAY", ordered_consumer=True),
        }
        for name, attempt in attempts.items():
            try:
                await attempt()
                out[name] = "done"
            except Exception as error:
                out[name] = type(error).__name__
        return out

    as_edge = as_user(documented, authority, "box-1", "EDGE-PASSWORD", tries, inbox="box-1")
    assert set(as_edge.values()) == {"TimeoutError"}, as_edge

    async def hub_tries(client):
        js = client.jetstream(timeout=5)
        first = await js.get_msg("LOGRELAY", 1)
        name = (await js.stream_info("LOGRELAY")).config.name
        made = await client.request(
            f"$JS.API.CONSUMER.CREATE.{name}",
            json.dumps({"stream_name": name, "config": {"ack_policy": "none", "deliver_policy": "all"}}).encode(),
            timeout=5,
        )
        consumer = json.loads(made.data)["name"]
        answers = await client.subscribe(inbox := client.new_inbox())
        await client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{name}.{consumer}", b"1", inbox)
        message = await answers.next_msg(timeout=DEADLINE_S)
        js = client.jetstream(timeout=0.5)
        for attempt in (lambda: js.publish("logrelay.lines.box-1", b"x"), lambda: js.purge_stream(name)):
            with pytest.raises(Exception, match="timeout"):
                await attempt()
        return first.headers, message.headers

    first, message = as_user(documented, authority, "hub", "HUB-PASSWORD", hub_tries, inbox="logrelay-hub")
    assert first["Logrelay-Edge"] == message["Logrelay-Edge"] == "box-1"


def test_a_server_with_another_certificate_gets_no_password(tmp_path, documented, authority):
    """Whoever poses as the server should be refused, and the reason be told once, without the secret."""
    other = tmp_path / "other"
    other.mkdir()
    relay = Relay(
        tmp_path,
        *("--forward", documented.url.replace("nats://", "tls://"), "--edge-name", "box-1"),
        *("--nats-tls-ca", str(Authority(other).folder / "ca.pem")),
    )
    relay.environ = {"LOGRELAY_NATS_USER": "box-1", "LOGRELAY_NATS_PASSWORD": "EDGE-PASSWORD"}
    try:
        relay.start()
        wait_for(lambda: any("certificate is not trusted" in said for said in relay.said), relay.tell)
        assert not any("EDGE-PASSWORD" in said for said in relay.said)
    finally:
        relay.end()


def test_a_user_who_may_not_publish_is_told_what_is_missing(tmp_path):
    """The notice should name the subject, so that somebody can allow it."""
    users = (
        '{user: "ann", password: "p", permissions: {publish: ["$JS.API.>"], subscribe: ["_INBOX.>"]}},'
        '{user: "admin", password: "ADMIN-PASSWORD"}'
    )
    with nats_server(tmp_path / "nats", extra=f"authorization {{ users: [{users}] }}") as server:
        asked(server.url, make_stream, user="admin", password="ADMIN-PASSWORD")
        relay = Relay(tmp_path, "--forward", server.url, "--edge-name", "box")
        relay.environ = {"LOGRELAY_NATS_USER": "ann", "LOGRELAY_NATS_PASSWORD": "p"}
        try:
            relay.start()
            bot = Trader(relay.socket).connect()
            bot.burst(3)
            bot.wait_acked()
            bot.close()
            wait_for(lambda: any("may not publish to" in said for said in relay.said), relay.tell)
        finally:
            relay.end()


def test_states_that_are_not_allowed_are_told_by_each_and_by_check(tmp_path):
    """An edge that may not say how it is, and a hub relay that may not hear it, look like machines that are dead."""
    users = (
        '{user: "mute", password: "p", permissions: {publish: ["$JS.API.>", "logrelay.lines.*"], subscribe: ">"}}'
        ',{user: "deaf", password: "p", permissions: {publish: "$JS.API.>", subscribe: "_INBOX.>"}}'
    )
    with nats_server(tmp_path / "nats", extra=f"authorization {{ users: [{users}] }}") as server:
        mute = {"LOGRELAY_NATS_USER": "mute", "LOGRELAY_NATS_PASSWORD": "p"}
        deaf = {"LOGRELAY_NATS_USER": "deaf", "LOGRELAY_NATS_PASSWORD": "p"}
        edge = Relay(tmp_path, "--forward", server.url, "--edge-name", "box")
        edge.environ = mute
        (tmp_path / "hub").mkdir()
        hub = Relay(tmp_path / "hub", "--collect", server.url)
        hub.environ = deaf
        before = check("--forward", server.url, "--edge-name", "box", **mute)
        assert "stream LOGRELAY is not there yet: the relay makes it when it starts" in before.stdout
        assert "stream not found" not in before.stderr, "no problem: it may be made"
        assert not server.streams(), "nothing is made by asking"
        no_hub = check("--collect", server.url, **deaf)
        assert "stream not found" in no_hub.stderr
        assert "made by the first edge" in no_hub.stderr
        try:
            edge.start()
            wait_for(lambda: any("may not publish to logrelay.state.box" in said for said in edge.said), edge.tell)
            hub.start()
            wait_for(lambda: any("may not subscribe to logrelay.state.*" in said for said in hub.said), hub.tell)
            after = check("--forward", server.url, "--edge-name", "box", **mute)
            assert "the user may not publish to logrelay.state.box" in after.stderr
            assert (before.returncode, after.returncode) == (7, 7)
            assert "lines may be published as box" in after.stdout
            deaf_hub = check("--collect", server.url, **deaf)
            assert "the user may not subscribe to logrelay.state.*" in deaf_hub.stderr
            assert hub.metric("collected_bad_messages_total") == 0
            for relay, state in ((edge, b'"state":"forward_unheard"'), (hub, b'"state":"collect_deaf"')):
                assert relay.get("/logs?limit=1000")[1].count(state) >= 1
        finally:
            hub.end()
            edge.end()


def test_a_server_whose_messages_are_too_small_is_told_of_by_check(tmp_path):
    """No edge uses it; one that takes little more is used."""
    with (
        nats_server(tmp_path / "small", max_payload=4095) as small,
        nats_server(tmp_path / "nats", max_payload=4096) as least,
    ):
        refused, taken = (check("--forward", server.url, "--edge-name", "box") for server in (small, least))
        assert "its max_payload is 4,095 bytes; at least 4,096 are needed" in refused.stderr
        assert refused.returncode == 7
        assert "max_payload" not in taken.stdout + taken.stderr


def key_pair(prefix):
    """Return the seed, and the key pair, of a new nkey."""
    seed = nkeys.encode_seed(os.urandom(32), prefix)
    return seed, nkeys.from_seed(bytearray(seed))


def token_of(claims, issuer, subject, name):
    """Sign claims as NATS does: a JWT with the algorithm ed25519-nkey."""

    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).rstrip(b"=")

    body = {
        "iat": int(time.time()),
        "iss": issuer.public_key.decode(),
        "name": name,
        "sub": subject.public_key.decode(),
        "nats": claims | {"version": 2},
    }
    digest = hashlib.new("sha512_256", json.dumps(body).encode()).digest()
    body["jti"] = base64.b32encode(digest).decode().rstrip("=")
    signed = part({"typ": "JWT", "alg": "ed25519-nkey"}) + b"." + part(body)
    return (signed + b"." + base64.urlsafe_b64encode(issuer.sign(signed)).rstrip(b"=")).decode()


def by_token(folder):
    return 'authorization { token: "s3cret-token" }', [], {"LOGRELAY_NATS_TOKEN": "s3cret-token"}, "nats"


def by_token_in_url(folder):
    return 'authorization { token: "s3cret-token" }', [], {}, "nats://s3cret-token@"


def by_password_in_url(folder):
    return 'authorization { user: "ann", password: "s3cret-token" }', [], {}, "nats://ann:s3cret%2Dtoken@"


def by_nkey(folder):
    seed, pair = key_pair(nkeys.PREFIX_BYTE_USER)
    (folder / "seed").write_bytes(seed + b"\n")
    extra = f"authorization {{ users: [{{ nkey: {pair.public_key.decode()} }}] }}"
    return extra, ["--nats-nkey", str(folder / "seed")], {}, "nats"


def by_creds(folder):
    _, operator = key_pair(nkeys.PREFIX_BYTE_OPERATOR)
    _, account = key_pair(nkeys.PREFIX_BYTE_ACCOUNT)
    seed, user = key_pair(nkeys.PREFIX_BYTE_USER)
    limits = dict.fromkeys(
        ("mem_storage", "disk_storage", "streams", "consumer", "subs", "data", "payload", "conn", "leaf", "imports"), -1
    )
    limits |= {"exports": -1, "wildcards": True}
    whole = {"type": "account", "limits": limits, "default_permissions": {"pub": {}, "sub": {}}}
    _, system = key_pair(nkeys.PREFIX_BYTE_ACCOUNT)
    operated = token_of({"type": "operator"}, operator, operator, "op")
    ruled = token_of({"type": "account", "limits": {}}, operator, system, "SYS")
    accounted = token_of(whole, operator, account, "acc")
    used = token_of({"type": "user", "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1}, account, user, "box")
    (folder / "box.creds").write_text(
        f"-----BEGIN NATS USER JWT-----\n{used}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed.decode()}\n------END USER NKEY SEED------\n"
    )
    accounts = {account.public_key.decode(): accounted, system.public_key.decode(): ruled}
    known = ", ".join(f"{key}: {signed}" for key, signed in accounts.items())
    extra = f"operator: {operated}\nresolver: MEMORY\nsystem_account: {system.public_key.decode()}\n"
    extra += f"resolver_preload: {{ {known} }}\n"
    return extra, ["--nats-creds", str(folder / "box.creds")], {}, "nats"


@pytest.mark.parametrize("way", [by_token, by_token_in_url, by_password_in_url, by_nkey, by_creds])
def test_every_way_to_log_in_works_and_shows_no_secret(tmp_path, way):
    """Lines should go, a wrong secret be refused, and no secret be in what anybody can see."""
    extra, options, environ, form = way(tmp_path)
    with nats_server(tmp_path / "nats", extra=extra) as server:
        url = server.url if form == "nats" else server.url.replace("nats://", form)
        relay = Relay(tmp_path, "--edge-name", "box", *options)
        relay.environ = environ | {"LOGRELAY_FORWARD": url}
        try:
            forwards(relay)
            seen = [Path(f"/proc/{relay.pid}/cmdline").read_bytes(), relay.get("/metrics")[1], relay.get("/healthz")[1]]
        finally:
            relay.end()
        seen.append("\n".join(relay.said).encode())
        if way in (by_creds, by_password_in_url):
            checked = check("--edge-name", "box", *options, "--json", **relay.environ)
            assert checked.returncode == 0, checked.stdout + checked.stderr
            found = json.loads(checked.stdout)
            assert len(found["nats"]) == 4
            assert found["settings"]["forward"]["value"] == [server.url]
            seen += [checked.stdout.encode(), checked.stderr.encode()]
        assert not any(b"s3cret" in shown for shown in seen)


def test_a_secret_on_the_command_line_is_warned_of(tmp_path):
    """Whoever gives it there should be told where it belongs; the warning itself should not repeat it."""
    done = check("--forward", "nats://ann:s3cret-token@127.0.0.1:1")

    assert "ps shows to everybody" in done.stderr
    assert "s3cret" not in done.stdout + done.stderr
    quiet = check(LOGRELAY_FORWARD="nats://ann:s3cret-token@127.0.0.1:1")
    assert "ps shows" not in quiet.stderr
    assert "problem: nats://127.0.0.1:1: " in quiet.stderr


def test_a_relay_without_the_setting_loads_nothing_of_it(tmp_path):
    """The package should cost nobody anything who does not ask for it."""
    code = (
        "import sys; sys.argv=['logrelay','check']; import logrelay.app\n"
        "from logrelay.cli import main\n"
        "try:\n main()\nexcept SystemExit:\n pass\n"
        "print([n for n in sys.modules if n.split('.')[0] == 'nats' or n.startswith('logrelay.machines')])"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LOGRELAY_")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
