"""Who may do what with a file."""

from __future__ import annotations

import stat

import pytest

from logrelay.doctor.facts import READ, SEARCH, WRITE, Node, User

OWNER, MEMBER, OTHER, ROOT = (
    User("owner", 7, frozenset({70})),
    User("member", 8, frozenset({80, 90})),
    User("other", 9, frozenset({99})),
    User("root", 0, frozenset({0})),
)


@pytest.mark.parametrize(
    ("mode", "user", "wanted", "allowed"),
    [
        (0o700, OWNER, READ | WRITE | SEARCH, True),
        (0o077, OWNER, READ, False),
        (0o050, MEMBER, READ | SEARCH, True),
        (0o707, MEMBER, READ, False),
        (0o004, OTHER, READ, True),
        (0o770, OTHER, READ, False),
        (0o005, OTHER, WRITE, False),
        (0o000, ROOT, READ | WRITE | SEARCH, True),
    ],
)
def test_the_first_that_fits_of_owner_group_and_others_decides(mode, user, wanted, allowed):
    """As the kernel does: an owner whom the mode shuts out is not let in as one of the others."""
    assert Node("/x", stat.S_IFREG | mode, 7, 90).allows(user, wanted) == allowed


def test_a_mode_is_shown_as_chmod_takes_it():
    """Without the kind of the file."""
    assert Node("/x", stat.S_IFDIR | 0o1777, 0, 0).rights == "1777"
