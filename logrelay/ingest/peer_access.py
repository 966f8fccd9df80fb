"""Who may connect to the log socket besides those whom its mode keeps out.

Owns: `PeerAccess`, the users and groups that were allowed. It must not know sockets or names: users and groups are
numbers here. Pure. Read `ingest/server` next: it asks here.
"""

from __future__ import annotations

from collections.abc import Collection


class PeerAccess:
    """Lets in `uids`, whoever is in one of `gids`, root and the relay's own user; all if none is named."""

    def __init__(self, uids: Collection[int] = (), gids: Collection[int] = (), *, own_uid: int = 0) -> None:
        self._limits = bool(uids or gids)
        self._uids = frozenset({0, own_uid, *uids})
        self._gids = frozenset(gids)

    @property
    def needs_groups(self) -> bool:
        """Whether the groups of a peer matter."""
        return bool(self._gids)

    def refusal(self, uid: int, gids: Collection[int]) -> str | None:
        """Return why a user with these groups is refused; None: he may connect."""
        if not self._limits or uid in self._uids or not self._gids.isdisjoint(gids):
            return None
        return f"the user with uid {uid} may not log here; --allow-uid and --allow-gid say who may"
