"""URLs of NATS servers: what is taken, what is in them, and that nobody sees the secret."""

from __future__ import annotations

import re

import pytest

from logrelay.config import nats_url
from logrelay.config.loading import Surroundings, load
from logrelay.errors import ConfigError


def loaded(**environ):
    around = Surroundings(
        environ={"HOME": "/h", **environ}, uid=1000, is_directory=lambda _p: False, read_file=lambda _p: b""
    )
    return load({}, around)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("nats://box", ("nats", "box:4222", None, None, None)),
        ("tls://box:4000/", ("tls", "box:4000", None, None, None)),
        ("nats://[::1]:4222", ("nats", "[::1]:4222", None, None, None)),
        ("nats://ann:s%40f%2Ce@box", ("nats", "box:4222", "ann", "s@f,e", None)),
        ("nats://to%40ken@box", ("nats", "box:4222", None, None, "to@ken")),
        ("nats://ann:@box", ("nats", "box:4222", "ann", "", None)),
    ],
)
def test_a_url_is_taken_apart(url, parts):
    """Every part should be found, and escapes undone."""
    found = nats_url.parse(url)
    assert (found.scheme, found.address, found.user, found.password, found.token) == parts
    assert re.fullmatch(nats_url.PATTERN, url)


@pytest.mark.parametrize("url", ["", "box:4222", "http://box", "nats://", "nats://a b", "nats://a@b@c", "nats://x/y"])
def test_what_is_no_url_is_refused(url):
    """A URL of another kind should not be taken for one, and not be repeated."""
    with pytest.raises(ValueError, match="not the URL"):
        nats_url.parse(url)


def test_nobody_sees_what_is_secret():
    """What is shown of a URL should have neither password nor token, nor should the settings' own form."""
    config = loaded(LOGRELAY_FORWARD="nats://ann:hunter2@a,nats://hunter2@b", LOGRELAY_NATS_STREAM="S").config

    assert nats_url.public(config.forward) == ("nats://a:4222", "nats://b:4222")
    assert "hunter2" not in repr(config)
    assert nats_url.parse(config.forward[0]).has_secret
    assert not nats_url.parse("nats://a").has_secret


@pytest.mark.parametrize(
    "environ",
    [
        {"LOGRELAY_FORWARD": "nats://ann:hunter2@a b"},
        {"LOGRELAY_NATS_PASSWORD": "hunter2\n", "LOGRELAY_NATS_USER": "ann"},
        {"LOGRELAY_NATS_USER": "ann"},
        {"LOGRELAY_NATS_PASSWORD": "hunter2"},
        {"LOGRELAY_NATS_TOKEN": "hunter2", "LOGRELAY_NATS_CREDS": "/c"},
        {"LOGRELAY_NATS_NKEY": "/n", "LOGRELAY_NATS_CREDS": "/c"},
        {"LOGRELAY_NATS_TLS_CERT": "/c"},
    ],
)
def test_what_makes_no_sense_is_refused_without_the_secret(environ):
    """The error should name the setting, never its value."""
    with pytest.raises(ConfigError) as refused:
        loaded(**environ)

    assert "hunter2" not in str(refused.value)
