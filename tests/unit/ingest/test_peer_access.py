"""Who may connect to the log socket: everybody, or root, the relay's own user and those that were named."""

from __future__ import annotations

import pytest

from logrelay.ingest.peer_access import PeerAccess
from logrelay.model import UNKNOWN_UID


def test_without_a_list_everybody_may():
    access = PeerAccess(own_uid=7)
    assert access.refusal(1000, ()) is None
    assert access.refusal(UNKNOWN_UID, ()) is None
    assert not access.needs_groups


@pytest.mark.parametrize(
    ("uid", "groups", "may"),
    [
        (0, (), True),
        (7, (), True),
        (1000, (), True),
        (1001, (), False),
        (1001, (50, 51), True),
        (1001, (50,), False),
        (UNKNOWN_UID, (UNKNOWN_UID,), False),
    ],
)
def test_with_lists_only_who_is_named(uid, groups, may):
    access = PeerAccess([1000], [51, 52], own_uid=7)
    assert access.needs_groups
    assert (access.refusal(uid, groups) is None) is may


def test_the_reason_names_user_and_options():
    assert PeerAccess(gids=[5]).refusal(1001, (6,)) == (
        "the user with uid 1001 may not log here; --allow-uid and --allow-gid say who may"
    )


def test_where_nothing_is_said_the_relay_is_root():
    """Nobody else is let in by being the first ordinary user."""
    access = PeerAccess((1000,))
    assert access.refusal(0, ()) is None
    assert access.refusal(1, ()) is not None
