"""Connecting to a real server: what is refused and how it is said; the stream that is made or used as it is."""

from __future__ import annotations

import asyncio

import pytest

from logrelay.config.nats_url import parse
from logrelay.config.settings import Config
from logrelay.errors import ConfigError
from logrelay.machines import nats_link
from logrelay.machines.nats_link import NatsError, NatsRefusedError, NatsSettings
from tests.support.certificates import Authority
from tests.support.nats import NatsServer, asked, nats_server, needs_nats
from tests.support.ports import free_port
from tests.support.waiting import DEADLINE_S

pytest.importorskip("nats", reason="nats-py is not installed: pip install '.[nats]' in the checkout")


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Have a server on a busy machine answered for as long as every test waits."""
    monkeypatch.setattr(nats_link, "CONNECT_TIMEOUT_S", DEADLINE_S)
    monkeypatch.setattr(nats_link, "REQUEST_TIMEOUT_S", DEADLINE_S)


def settings(url, **more):
    return NatsSettings((parse(url),), more.pop("stream", "LOGRELAY"), **more)


def connected(wanted, use):
    """Return what `use(client, server)` returns."""

    async def run():
        server = wanted.servers[0]
        client = await nats_link.connect(wanted, server, name="test", inbox="test")
        try:
            return await use(client, server)
        finally:
            await nats_link.close(client)

    return asyncio.run(run())


def stream_of(wanted, *, create=True):
    return connected(wanted, lambda client, server: nats_link.ensure_stream(client, wanted, server, create=create))


@pytest.fixture
def server(tmp_path):
    bob = '{user: "bob", password: "p", permissions: {publish: "x"}}'
    users = f'authorization {{ users: [{{user: "ann", password: "hunter2"}}, {bob}] }}'
    with nats_server(tmp_path, extra=users) as running:
        yield running


@needs_nats
def test_a_missing_stream_is_made_with_the_documented_defaults(server):
    """It should be a file, bounded by age and bytes, with a window for repeats; a second look should find it."""
    wanted = settings(server.url, user="ann", password="hunter2")

    made, found = stream_of(wanted), stream_of(wanted, create=False)

    assert made.config == found.config
    config = made.config
    assert (config.storage, config.num_replicas, config.discard) == ("file", 1, "old")
    assert (config.max_age, config.max_bytes, config.duplicate_window) == (7 * 86400, 1 << 30, 120)
    assert config.allow_direct
    assert config.subjects == ["logrelay.lines.*"]


@needs_nats
def test_a_stream_that_is_there_is_used_as_it_is(server):
    """What somebody has set should stay, and a stream that cannot take our lines should be refused with the reason."""
    wanted = settings(server.url, user="ann", password="hunter2", stream="OWN")
    other = settings(server.url, user="ann", password="hunter2", stream="OTHER")

    async def add(client):
        js = client.jetstream()
        await js.add_stream(name="OWN", subjects=["logrelay.>"], storage="memory", max_msgs=7)
        await js.add_stream(name="OTHER", subjects=["orders.*"], storage="memory")

    asked(server.url, add, user="ann", password="hunter2")

    assert stream_of(wanted).config.max_msgs == 7
    with pytest.raises(NatsRefusedError, match=r"takes orders\.\*, not logrelay\.lines\.\*"):
        stream_of(other)


@needs_nats
def test_what_a_server_refuses_is_said_without_the_secret(server):
    """A wrong password, a user who may not ask, TLS that is not there: each should be told, none with a secret."""
    wrong = settings(server.url, user="ann", password="hunter3")
    bob = settings(server.url, user="bob", password="p")
    with pytest.raises(NatsRefusedError, match="does not know us") as refused:
        stream_of(wrong)
    assert "hunter3" not in str(refused.value)
    with pytest.raises(NatsError, match="permissions"):
        stream_of(bob)
    plain = settings(server.url.replace("nats", "tls"), user="ann", password="hunter2")
    with pytest.raises(NatsRefusedError, match="does not want TLS"):
        stream_of(plain)


@needs_nats
def test_a_server_that_is_full_or_knows_no_such_key_says_so(tmp_path):
    """A key that it does not know, and one connection too many: each should be a refusal that says what to do."""
    nkeys = pytest.importorskip("nkeys", reason="nkeys is not installed: pip install '.[nats]' in the checkout")
    seed = tmp_path / "seed"
    seed.write_bytes(nkeys.encode_seed(bytes(range(32)), nkeys.PREFIX_BYTE_USER))
    users = 'max_connections: 1\nauthorization { users: [{user: "ann", password: "hunter2"}] }'
    with nats_server(tmp_path, extra=users) as running:
        with pytest.raises(NatsRefusedError, match="does not know us"):
            stream_of(settings(running.url, nkey=str(seed)))
        with pytest.raises(NatsRefusedError, match="does not know us"):
            stream_of(settings(running.url, token="hunter3"))
        ann = settings(running.url, user="ann", password="hunter2")

        async def another(_client, server):
            return await nats_link.connect(ann, server, name="other", inbox="test")

        with pytest.raises(NatsRefusedError, match="raise max_connections"):
            connected(ann, another)


@needs_nats
def test_a_server_that_wants_tls_or_a_certificate_says_so(tmp_path):
    """Whoever comes without should be told which of the two is missing."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server")
    ca = tmp_path / "ca.pem"
    tls = f'tls {{ cert_file: "{certificate}", key_file: "{key}", ca_file: "{ca}", verify: true }}'
    with nats_server(tmp_path, extra=tls) as running:
        url = running.url.replace("nats", "tls")
        for one in (running.url, url):
            with pytest.raises(NatsRefusedError, match=r"not trusted: .*--nats-tls-ca"):
                stream_of(settings(one))
        with pytest.raises(NatsRefusedError, match="see --nats-tls-cert"):
            stream_of(settings(url, tls_ca=str(ca)))
        own = authority.issue("client")
        wanted = settings(url, tls_ca=str(ca), tls_cert=str(own[0]), tls_key=str(own[1]))
        assert stream_of(wanted).config.name == "LOGRELAY"


@needs_nats
def test_a_server_that_is_not_there_is_told_soon(tmp_path):
    """Nobody should wait for the client's own retries."""
    with pytest.raises(NatsError, match="connection refused"):
        stream_of(settings(f"nats://127.0.0.1:{free_port()}"))


@needs_nats
def test_a_server_without_jetstream_says_so(tmp_path):
    """Whoever forgot to enable it should be told what to do."""
    one = NatsServer(tmp_path)
    one.config.write_text("\n".join(x for x in one.config.read_text().splitlines() if "jetstream" not in x))
    try:
        one.start()
        with pytest.raises(NatsRefusedError, match="not enabled"):
            stream_of(settings(one.url))
    finally:
        one.kill()


def test_files_that_cannot_be_read_end_the_start(tmp_path):
    """A wrong path should be a wrong setting, said before anything is opened."""
    config = Config("s", "j", nats_creds=str(tmp_path / "no.creds"))
    with pytest.raises(ConfigError, match="nats_creds is"):
        nats_link.nats_settings(config, ("nats://a",))


def test_who_we_are_is_in_the_url_or_in_the_settings():
    """The settings should beat what stands in the URL."""
    found = nats_link.nats_settings(Config("s", "j"), ("nats://a", "nats://ann:hunter2@b"))
    assert (found.user, found.password, found.token) == ("ann", "hunter2", None)
    own = Config("s", "j", nats_user="eve", nats_password="other")
    assert nats_link.nats_settings(own, ("nats://ann:hunter2@b",)).user == "eve"
    assert "hunter2" not in repr(found)


@pytest.mark.parametrize(
    ("pattern", "subject", "taken"),
    [
        ("logrelay.lines.*", "logrelay.lines.x", True),
        ("logrelay.>", "logrelay.lines.x", True),
        (">", "logrelay.lines.x", True),
        ("logrelay.lines.y", "logrelay.lines.x", False),
        ("logrelay.lines", "logrelay.lines.x", False),
        ("logrelay.lines.x.>", "logrelay.lines.x", False),
        ("*.*.*.*", "logrelay.lines.x", False),
    ],
)
def test_a_pattern_takes_its_subjects(pattern, subject, taken):
    """Wildcards should mean what NATS means by them."""
    assert nats_link.takes(pattern, subject) is taken
