"""Loading the settings: what beats what, what is refused, and in which words."""

from __future__ import annotations

import typing

import pytest

from logrelay.config import loading
from logrelay.config.loading import SECRETS, Surroundings, default_socket, load
from logrelay.config.settings import SETTINGS, Config
from logrelay.errors import ConfigError

TOKEN = "correct-horse-battery-staple"
GOOD_TOKEN = "V3sJm0t-Qz7w_1pLk9rX"


def settings(flags=None, environ=None, file=None, directories=(), mode=0o600):
    def read_file(path):
        if file is None:
            raise FileNotFoundError(2, "No such file or directory")
        return file.encode()

    flags = dict(flags or {})
    if file is not None:
        flags.setdefault("config", "/etc/r.toml")
    environ = {"HOME": "/home/eve"} | dict(environ or {})
    return load(
        flags, Surroundings(environ, 1000, lambda path: path in directories, read_file, file_mode=lambda _path: mode)
    )


def refusal(**given):
    with pytest.raises(ConfigError) as caught:
        settings(**given)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize("file", ["a = " + "[" * 5000, "port = " + "9" * 5000, "port = [", "a = '\x00'"])
def test_whatever_is_no_toml_is_a_bad_file(file):
    """Nested too deeply, and with a number of too many digits, too."""
    assert "config file /etc/r.toml is not valid TOML: " in refusal(file=file)


def test_every_value_type_gives_the_type_its_field_declares():
    """What load puts into a field should have the type that the field is annotated with."""
    hints = typing.get_type_hints(Config)
    texts = {"config": "/etc/r.toml", "socket": "/s", "journal": "/j", "host": "::1", "token": TOKEN}
    texts |= {
        "allow_hosts": "a,b",
        "allow_origins": "http://a:1",
        "trades": "fill=filled",
        "sync": "full",
        "keep_bytes": "2MiB",
        "keep_free": "0",
        "text_index": "off",
    }
    texts |= {
        "compression": "on",
        "log_level": "info",
        "socket_mode": "0660",
        "trusted_proxy": "::/0",
        "tls_cert": "/c",
        "tls_key": "/k",
        "forward": "nats://a,nats://b",
        "collect": "nats://a",
        "alert": "ntfys://topic json://b",
        "public_url": "https://a",
        "heartbeat": "https://a/b",
        "heartbeat_every": "30",
        "nats_replicas": "3",
    }
    alone = {"nats_nkey", "nats_token", "nats_user", "nats_password"}  # they exclude one another
    environ = {s.variable: texts.get(s.name, "7") for s in SETTINGS if s.name not in alone}

    loaded = settings(environ=environ, file="").config

    for setting in SETTINGS:
        value = getattr(loaded, setting.name)
        base = typing.get_origin(hints[setting.name]) or hints[setting.name]
        allowed = typing.get_args(hints[setting.name]) if base is not tuple else (tuple,)
        assert isinstance(value, tuple(a for a in allowed if isinstance(a, type)) or base), setting.name


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default():
    """The nearest place should win, and `origins` should name it."""
    file = "port = 1\ntail = 1\nmax_lag = 1\n"
    loaded = settings({"port": "3"}, {"LOGRELAY_PORT": "2", "LOGRELAY_TAIL": "2"}, file)

    assert (loaded.config.port, loaded.config.tail, loaded.config.max_lag) == (3, 2, 1)
    assert loaded.config.sync == "normal"
    assert [loaded.origins[n] for n in ("port", "tail", "max_lag", "sync")] == [
        "--port", "LOGRELAY_TAIL", "max_lag in /etc/r.toml", "default",
    ]  # fmt: skip


def test_an_empty_variable_counts_as_not_set():
    """`LOGRELAY_PORT=` should leave the default."""
    assert settings(environ={"LOGRELAY_PORT": "", "LOGRELAY_SOCKET": ""}).config.port == 8765


def test_an_empty_flag_is_refused():
    """`--host ''` would listen everywhere in some libraries; it should be an error."""
    assert "--host is ''; allowed:" in refusal(flags={"host": ""})


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"port": "65536"}, "--port is '65536'; allowed: a whole number from 0 to 65535"),
        ({"port": "-1"}, "--port is '-1'; allowed:"),
        ({"port": "٣"}, "--port is '٣'; allowed:"),
        ({"keep_bytes": "1000"}, "--keep-bytes is '1000'; allowed: bytes from 1MiB"),
        ({"keep_bytes": "5 parsecs"}, "--keep-bytes is '5 parsecs'; allowed:"),
        ({"quiet_after": "nan"}, "--quiet-after is 'nan'; allowed: 0, or a number of seconds"),
        ({"sync": "fully"}, "--sync is 'fully'; allowed: normal or full"),
        ({"journal": "nats://host"}, "--journal is 'nats://host'; allowed: a file path, or :memory:"),
        ({"allow_origins": "localhost:1"}, "--allow-origins is 'localhost:1'; allowed: at most 16"),
        ({"socket": "/" + "s" * 107}, "(--socket) has 108 bytes; allowed: at most 107"),
    ],
)
def test_a_wrong_flag_is_named_with_what_was_given_and_what_is_allowed(flags, said):
    """The error should say which option, what it got, and what it takes."""
    assert said in refusal(flags=flags)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('port = "8765"', "port in /etc/r.toml is '8765'; allowed: a whole number"),
        ("port = true", "port in /etc/r.toml is True; allowed: a whole number"),
        ("keep_days = nan", "keep_days in /etc/r.toml is nan; allowed:"),
        ('allow_hosts = "a"', "allow_hosts in /etc/r.toml is 'a'; allowed:"),
        ("prot = 1", "'prot' in /etc/r.toml is not a setting; did you mean port?"),
        ("max-lag = 1", "did you mean max_lag?"),
        ("zzz = 1", "'zzz' in /etc/r.toml is not a setting; allowed: host, port,"),
        ('config = "x"', "'config' in /etc/r.toml is not a setting"),
        ("port = ", "config file /etc/r.toml is not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_file_and_key(line, said):
    """The error should say which key of which file, and what it takes."""
    assert said in refusal(file=line)


def test_a_config_file_that_is_not_there_is_an_error():
    """A file that was asked for and cannot be read should not be passed over."""
    assert "config file /no.toml cannot be read: No such file" in refusal(flags={"config": "/no.toml"})


def test_the_file_takes_every_type():
    """Sizes as number or text, arrays, numbers with a fraction should all be read from the file."""
    loaded = settings(file='keep_bytes = "512MiB"\nkeep_days = 0.5\nallow_hosts = ["a", "b.c"]\nquiet_after = 0').config

    assert (loaded.keep_bytes, loaded.keep_days, loaded.allow_hosts, loaded.quiet_after) == (
        512 * 1024 * 1024, 0.5, ("a", "b.c"), 0.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "count"), [("1GiB", 1 << 30), ("1gb", 10**9), ("64 MiB", 64 << 20), ("1048576", 1 << 20)]
)
def test_sizes_are_read_with_and_without_units(text, count):
    """The binary and decimal units should differ, and case should not matter."""
    assert settings({"keep_bytes": text}).config.keep_bytes == count


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "phone-box", "127.1", "::ffff:10.0.0.1"])
def test_beyond_loopback_there_must_be_a_token(host):
    """Every listen address that is not surely loopback should need a token, and the error say how."""
    said = refusal(flags={"host": host})

    assert "--host" in said
    assert "secrets.token_urlsafe(32)" in said
    assert settings({"host": host}, {"LOGRELAY_TOKEN": GOOD_TOKEN}).config.token == GOOD_TOKEN


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST", "::ffff:127.0.0.1"])
def test_loopback_needs_no_token(host):
    """An address only this machine reaches should be fine as it is."""
    assert settings({"host": host}).config.token is None


@pytest.mark.parametrize("token", ["with space", "x" * 257, "has space has space", "ümläut-ümläut-ümläut"])
def test_a_token_that_cannot_be_used_everywhere_is_refused_and_never_repeated(token):
    """The error should say what a token may be, without printing the one that was given."""
    said = refusal(environ={"LOGRELAY_TOKEN": token})

    assert "LOGRELAY_TOKEN is not valid (its value is not shown); allowed: 1 to 256" in said
    assert token not in said
    said = refusal(file=f'token = "{token}"')
    assert token not in said


@pytest.mark.parametrize(
    ("environ", "directories", "path"),
    [
        ({"LOGRELAY_SOCKET": "/a.sock", "XDG_RUNTIME_DIR": "/run/user/1"}, ["/run/logrelay"], "/a.sock"),
        (
            {"LOGRELAY_SOCKET": "", "XDG_RUNTIME_DIR": "/run/user/1"},
            ["/run/logrelay"],
            "/run/logrelay/ingest.sock",
        ),
        ({"XDG_RUNTIME_DIR": "/run/user/1", "TMPDIR": "/t"}, [], "/run/user/1/logrelay/ingest.sock"),
        ({"XDG_RUNTIME_DIR": "", "TMPDIR": "/t"}, [], "/t/logrelay-1000/ingest.sock"),
        ({"TMPDIR": ""}, [], "/tmp/logrelay-1000/ingest.sock"),
    ],
)
def test_the_socket_is_looked_for_in_the_order_of_the_protocol(environ, directories, path):
    """The order of docs/protocol.md, section 1, should decide; `load` should use it too."""
    assert default_socket(environ, 1000, lambda d: d in directories) == path
    assert settings(environ=environ, directories=directories).config.socket == path


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        (
            {"STATE_DIRECTORY": "/var/lib/logrelay:/var/lib/b", "XDG_STATE_HOME": "/x"},
            "/var/lib/logrelay/journal.db",
        ),
        ({"XDG_STATE_HOME": "/x"}, "/x/logrelay/journal.db"),
        ({}, "/home/eve/.local/state/logrelay/journal.db"),
        ({"LOGRELAY_JOURNAL": "~/j.db"}, "/home/eve/j.db"),
        ({"LOGRELAY_JOURNAL": ":memory:"}, ":memory:"),
    ],
)
def test_the_journal_is_where_the_manager_or_the_desktop_puts_state(environ, path):
    """The first of STATE_DIRECTORY, else XDG_STATE_HOME, else ~/.local/state should be used."""
    assert settings(environ=environ).config.journal == path


def test_without_home_the_error_says_which_options_to_give():
    """A process without HOME should hear what to do, not get a path that begins with a tilde."""
    assert "--journal" in refusal(environ={"HOME": ""})


def test_variables_nobody_reads_are_reported():
    """A misspelt variable should show up; those of the trader and of CI should not."""
    loaded = settings(environ={"LOGRELAY_PROT": "1", "LOGRELAY_DISABLED": "1", "LOGRELAY_CI": "1"})

    assert loaded.unknown_variables == ("LOGRELAY_PROT",)


def test_nothing_is_read_from_the_process(monkeypatch):
    """Loading should depend on its arguments alone."""
    monkeypatch.setenv("LOGRELAY_PORT", "1")

    assert settings().config.port == 8765
    assert not hasattr(loading, "os")


@pytest.mark.parametrize(
    ("mode", "is_open"),
    [(0o600, False), (0o640, False), (0o400, False), (0o644, True), (0o660, True), (0o604, True), (0, False)],
)
def test_a_token_in_a_file_that_others_can_read(mode, is_open):
    """It is told, with the cure; without a token in it the file is no secret."""
    warnings = settings(file=f'token = "{GOOD_TOKEN}"', mode=mode).warnings
    assert len(warnings) == is_open
    for text in warnings:
        assert f"/etc/r.toml has a token in it and mode {mode:04o}" in text
        assert text.endswith("chmod 600 /etc/r.toml")
        assert GOOD_TOKEN not in text
    overridden = settings(file=f'token = "{GOOD_TOKEN}"', environ={"LOGRELAY_TOKEN": TOKEN}, mode=mode).warnings
    assert overridden == warnings, "it may be used again"
    assert settings(file="port = 1", mode=mode).warnings == settings(mode=mode).warnings == ()


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ('nats_user = "u"\nnats_password = "s3cret"', "the password at the NATS servers"),
        ('nats_token = "s3cret"', "the token at the NATS servers"),
        ('forward = ["nats://a", "nats://u:s3cret@b"]', "a secret in a NATS URL"),
        ('collect = ["nats://s3cret@b"]', "a secret in a NATS URL"),
        ('forward = ["nats://s3cret@b"]\ncollect = ["nats://s3cret@b"]', "a secret in a NATS URL"),
        ('alert = ["json://s3cret"]', "the URLs of alerts"),
        ('[[alert]]\nname = "a"\nurl = "json://s3cret"', "the URLs of alerts"),
        ('heartbeat = "https://a/s3cret"', "the URL of the heartbeat"),
        (f'token = "{GOOD_TOKEN}"\nnats_token = "s3cret"', "a token and the token at the NATS servers"),
        ('forward = ["nats://a"]\nnats_user = "u"\nnats_password = "s3cret"', "the password at the NATS servers"),
    ],
)
def test_every_secret_in_a_file_that_others_can_read_is_told_of(file, words):
    """By name, and once; nothing of it is shown."""
    (text,) = settings(file=file, mode=0o644).warnings
    assert text.startswith(f"the config file /etc/r.toml has {words} in it and mode 0644, so others can read or change")
    assert ("read the log" in text) == file.startswith("token")
    assert text.endswith(". Do: chmod 600 /etc/r.toml")
    assert "s3cret" not in text
    assert settings(file=file, mode=0o640).warnings == ()


@pytest.mark.parametrize(
    "file", ['forward = ["nats://a"]', 'collect = ["nats://a"]', "alert = []", 'nats_creds = "/c"']
)
def test_a_file_without_a_secret_may_be_read_by_others(file):
    """An address, and the place of a secret, are none."""
    assert settings(file=file, mode=0o644).warnings == ()


def test_every_setting_that_is_not_shown_makes_the_file_private():
    """A new one needs its words."""
    assert {setting.name for setting in SETTINGS if setting.public is not None and setting.by_file} == set(SECRETS)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (
            '[[alert]]\nname = "phone"\nurl = "json://s3cret"\nprot = 1\n',
            "alert in /etc/r.toml: 'prot' in alert rule phone (number 1) is no key of a rule; allowed: ",
        ),
        (
            '[[alert]]\nurl = "json://s3cret"\nprot = 1\n',
            "; if port was meant, that is a setting of the relay, and in TOML every line below [[alert]] belongs to",
        ),
        ('[[alert]]\nurl = "json://s3cret"\nkeep_days = 1\n', "; keep_days is a setting of the relay, and in TOML"),
        (
            '[[alert]]\nurl = "json://a"\n[[alert]]\nlevel = "x"\nurl = "json://b"',
            "in alert rule alert2 is 'x'; allowed",
        ),
    ],
)
def test_a_mistake_in_a_rule_is_named_with_its_place(file, words):
    """A setting below a table is TOML's trap: it belongs to the table, and the relay never sees it."""
    said = refusal(file=file)

    assert words in said
    assert "s3cret" not in said
