"""The command that a missing extra is answered with: one that works where it is read."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path

import pytest

from logrelay import extras

ROOT = Path(__file__).parents[2]


class Installed:
    """A distribution, as pip has written down where it is from."""

    def __init__(self, direct_url):
        self.direct_url = direct_url

    def read_text(self, _name):
        return self.direct_url


@pytest.mark.parametrize(
    ("direct_url", "words"),
    [
        (json.dumps({"url": f"file://{ROOT}", "dir_info": {"editable": True}}), f"-e '{ROOT}[nats]'"),
        (json.dumps({"url": f"file://{ROOT}", "dir_info": {}}), f"'{ROOT}[nats]'"),
        (json.dumps({"url": "file:///nowhere/at/all", "dir_info": {}}), "'.[nats]'"),
        (json.dumps({"url": "file:///x/logrelay.whl", "archive_info": {}}), "'.[nats]'"),
        ("[]", "'.[nats]'"),
        ("{", "'.[nats]'"),
        (None, "'.[nats]'"),
    ],
)
def test_the_command_names_what_this_was_installed_from(direct_url, words, monkeypatch):
    """The checkout that is there, with the option that was used; otherwise where to be for it."""
    monkeypatch.setattr(metadata, "distribution", lambda _name: Installed(direct_url))
    checkout = "in the checkout " if words == "'.[nats]'" else ""
    assert extras.install_command("nats") == f"{checkout}{sys.executable} -m pip install {words}"


def test_without_an_installation_the_checkout_is_meant(monkeypatch):
    """As when a checkout is run as it is."""

    def none(_name):
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "distribution", none)
    assert extras.install_command("alerts").startswith("in the checkout ")
