"""What is known of an installation before anybody judges it.

Owns: the records that `gathering` fills and the findings read, and who may do what with a file. It must not look at the
machine. Pure. Read `doctor/finding` next.

What could not be found out is None: nothing is found to be wrong with it.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from logrelay.config.loading import Effective

READ, WRITE, SEARCH = 4, 2, 1
"""Bits of a mode, as they stand for others."""


@dataclass(frozen=True, slots=True)
class User:
    """A user of this machine."""

    name: str
    uid: int
    gids: frozenset[int]


@dataclass(frozen=True, slots=True)
class Node:
    """A file or a directory."""

    path: str
    mode: int
    """With its kind, as in stat(2)."""
    uid: int
    gid: int

    @property
    def rights(self) -> str:
        """The mode as chmod takes it."""
        return f"{stat.S_IMODE(self.mode):04o}"

    def allows(self, user: User, wanted: int) -> bool:
        """Tell whether a user has all of the rights `wanted`; lists of rights (ACL) are not looked at."""
        if user.uid == 0:
            return True
        shift = 6 if user.uid == self.uid else 3 if self.gid in user.gids else 0
        return (self.mode >> shift) & wanted == wanted


@dataclass(frozen=True, slots=True)
class Port:
    """The viewers' port of the settings."""

    state: str
    """`free`, `relay` (one answers there), `other` (another program listens), `unusable`."""
    holders: Sequence[str] = ()
    """Who listens, as far as it can be seen."""
    error: str = ""
    """Why it is unusable."""


@dataclass(frozen=True, slots=True)
class Bot:
    """One bot, by its name."""

    app: str
    state: str
    last_us: int | None


@dataclass(frozen=True, slots=True)
class RunningRelay:
    """What the relay that answers says of itself. Fields are None where it wants a token for that."""

    version: str | None = None
    epoch: str | None = None
    trouble: str | None = None
    head_epoch: str | None = None
    """The epoch of its newest line. An epoch is in the journal's file from its first line on, so until a relay that was
    restarted has one, the file knows only this."""
    tls: bool | None = None
    """It speaks TLS; None: that was not looked at."""
    other_certificate: bool = False
    """It shows a certificate that the one of the settings does not make trusted."""


@dataclass(frozen=True, slots=True)
class LogSocket:
    """The traders' socket."""

    node: Node | None
    """None: there is no file."""
    way: Sequence[Node]
    """The directories that lead to it, as far as they are there, from the top."""
    listening: bool | None = None
    """Somebody listens; None: it cannot be told."""


@dataclass(frozen=True, slots=True)
class JournalFile:
    """The journal's file and its disk."""

    node: Node | None
    way: Sequence[Node]
    """The directories that lead to it, as far as they are there, from the top; the last one is where it is, or the
    nearest that is there."""
    directory_there: bool = True
    refusal: str = ""
    """Why its file must not be used: not ours, newer, links, other owners."""
    held_by: int | None = None
    """The process that has its lock; 0: one that is not known."""
    file_system: str = ""
    waits_for_others: bool = False
    total: int | None = None
    free: int | None = None
    size: int = 0
    """Bytes of the file and what is beside it."""
    keep_free: int = 0
    """Bytes of the file system that are to stay free."""
    log_bytes: int = 0
    log_share: int = 0
    """Bytes that the write-ahead log may take."""
    readers: Sequence[str] = ()
    """Other programs that read in it now."""
    newest_us: int | None = None
    epoch: str | None = None
    bots: Sequence[Bot] | None = None
    made_us: int | None = None


@dataclass(frozen=True, slots=True)
class Package:
    """A package that the relay needs."""

    name: str
    version: str | None
    """None: it is not installed."""
    bound: str
    """The lowest version that is allowed."""


@dataclass(frozen=True, slots=True)
class UnitFacts:
    """What systemd says of the service, and of the socket unit that starts it."""

    name: str
    manager: tuple[str, ...]
    """The command that asks its manager."""
    shown: Mapping[str, str]
    """Properties of the service, by name."""
    socket: Mapping[str, str] = field(default_factory=dict)
    """Properties of the socket unit; empty: there is none."""
    listens: Sequence[str] = ()
    """Addresses that the socket unit holds, while it is active."""
    environment: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)
    """Options of `logrelay serve` in the unit, by the name of the setting."""
    secret_words: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By the path of one of these files: what it holds."""
    secret_files: Sequence[Node] = ()
    """Files of settings that hold a secret."""

    @property
    def systemctl(self) -> str:
        """The command as it is typed."""
        return " ".join(self.manager)

    @property
    def runs(self) -> bool:
        """The service is active, or will be in a moment."""
        return self.shown.get("ActiveState") in ("active", "activating", "reloading")


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that is known."""

    effective: Effective
    user: User
    """Who the relay runs as."""
    now_us: int
    port: Port
    socket: LogSocket
    journal: JournalFile | None
    """None: it is in memory."""
    relay: RunningRelay | None = None
    """None: none answers at the port."""
    unit: UnitFacts | None = None
    alerts_error: str = ""
    """What is missing for the alerts that are set."""
    config_error: str = ""
    """What `serve` would say before it opens anything, although each setting is right by itself."""
    listen_error: str = ""
    """A user or a group that is named and is not there."""
    tls_error: str = ""
    tls_warning: str = ""
    tokens_error: str = ""
    secret_words: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By the path of one of these files: what it holds."""
    secret_files: Sequence[Node] = ()
    """Files that hold a secret in plain text."""
    trader: User | None = None
    """The user of a bot, where one is known."""
    group_members: int | None = None
    """Users in the group of the log socket besides the relay's own; None: it is not known."""
    trader_places: Sequence[tuple[str, bool]] = ()
    """Where a trader of this environment looks, and whether a socket is there."""
    clock_synchronised: bool | None = None
    packages: Sequence[Package] = ()
    descriptors: int | None = None
    """How many files the relay may have open."""
    memory: int | None = None
    """Bytes that its unit may take; None: no limit."""
