"""The look at the machine, as far as it needs none: who is shown the token."""

from __future__ import annotations

import ssl

import pytest

from logrelay.config.settings import Config
from logrelay.doctor import gathering
from logrelay.errors import NoRelayError


@pytest.mark.parametrize("certificate", [None, "/c.pem"])
@pytest.mark.parametrize("cause", [ssl.SSLError("odd"), ConnectionRefusedError(), TimeoutError()])
def test_only_who_the_settings_mean_is_shown_the_token(monkeypatch, certificate, cause):
    """Whoever is asked in another way than the settings say may be anybody; where nobody answers nobody else is."""
    asked = []

    class Source:
        def __init__(self, address):  # with the time that every command gives a busy relay
            asked.append(address)

        def get(self, _target):
            raise NoRelayError("not one") from cause

    monkeypatch.setattr(gathering, "RelaySource", Source)
    config = Config(socket="/s", journal="/j", token="secret", tls_cert=certificate, tls_key=certificate)
    assert gathering._relay(config, None) is None
    first, *others = asked
    assert (first.secure, first.token, first.any_certificate) == (certificate is not None, "secret", False)
    assert [other.token for other in others] == [None] * len(others)
    ways = [(other.secure, other.any_certificate) for other in others]
    expected = [(True, True), (False, False)][: 1 if certificate is None else 2]
    assert ways == (expected if isinstance(cause, ssl.SSLError) else [])
