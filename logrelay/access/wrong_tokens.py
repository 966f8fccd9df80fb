"""What is done about wrong tokens: a delay that grows with each, and few words about many.

Owns: the table of addresses that showed wrong tokens, how long their answers wait, and when the operator is told. It
must not know sockets or tokens. No I/O; time is an argument. Read `viewers/access_policy` next.

The delay is not what keeps a guesser out; the length of the token is, which no number of guesses gets through. It keeps
guesses from being cheap, and the log from filling up. So a good token is never delayed, from whatever address it comes:
behind one address there may be a household, with the owner in it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

MAX_ADDRESSES = 4096
"""Addresses remembered, less than a megabyte; beyond it the one that has been quiet for longest is forgotten."""

FIRST_DELAY_S = 0.1
"""For the first wrong token, which may be a typing mistake; each one more doubles it."""

MAX_DELAY_S = 5.0
"""Below the time that a connection has for its request and the answer to it."""

MAX_DOUBLINGS = 16
"""After so many the delay is beyond its limit by far; more would only make numbers large."""

FORGET_AFTER_S = 600.0
"""An address that has shown no wrong token for so long begins anew."""

MAX_WAITING_EACH = 4
"""Answers that wait for one address; who asks for more at once is answered at once, with 429."""

MAX_WAITING = 128
"""The same for all addresses together: each holds a connection."""

TELL_EVERY_S = 60.0
"""The operator is told at once, and then so often at most, with the number of what came between."""

IPV6_PREFIX = 64
"""Bits of an IPv6 address that belong to one subscriber, who may choose the others."""


class _Guesser:
    """One address: its wrong tokens, and the answers to them that wait."""

    __slots__ = ("_answered", "_count", "last")

    def __init__(self) -> None:
        self.last = float("-inf")
        """Monotonic time of its last wrong token."""
        self._count = 0
        self._answered: deque[float] = deque()
        """Monotonic times at which the waiting answers go out; they rise."""

    def note(self, mono: float) -> float | None:
        """Count a wrong token; return how long its answer is to wait, or None: too many wait already."""
        self.last = mono
        self._count += 1
        while self._answered and self._answered[0] <= mono:
            self._answered.popleft()
        if len(self._answered) >= MAX_WAITING_EACH:
            return None
        return min(FIRST_DELAY_S * 2.0 ** min(self._count - 1, MAX_DOUBLINGS), MAX_DELAY_S)

    def answer_at(self, at: float) -> None:
        """Note when the answer goes out."""
        self._answered.append(at)


class WrongTokens:
    """The table. `mono` is monotonic time in seconds everywhere."""

    def __init__(self) -> None:
        self.total = 0
        """Wrong tokens so far."""
        self._guessers: OrderedDict[str, _Guesser] = OrderedDict()
        self._waiting: deque[float] = deque()
        self._unreported = 0
        self._unreported_addresses: set[str] = set()
        self._last_address = ""
        self._told = float("-inf")

    def note(self, address: str | None, mono: float) -> float | None:
        """Note a wrong token; return the seconds that its answer has to wait, or None: too many wait already."""
        key = address_key(address)
        self.total += 1
        self._unreported += 1
        self._last_address = key
        if len(self._unreported_addresses) < MAX_ADDRESSES:
            self._unreported_addresses.add(key)
        guesser = self._guessers.pop(key, None)
        if guesser is None or mono - guesser.last > FORGET_AFTER_S:
            guesser = _Guesser()
        self._guessers[key] = guesser
        while len(self._guessers) > MAX_ADDRESSES:
            self._guessers.popitem(last=False)
        delay_s = guesser.note(mono)
        self._waiting = deque(at for at in self._waiting if at > mono)
        if delay_s is None or len(self._waiting) >= MAX_WAITING:
            return None
        guesser.answer_at(mono + delay_s)
        self._waiting.append(mono + delay_s)
        return delay_s

    @property
    def addresses(self) -> int:
        """How many addresses are remembered."""
        return len(self._guessers)

    def take_message(self, mono: float) -> str | None:
        """Return what the operator is to be told now; None: nothing, or not yet."""
        if not self._unreported or mono - self._told < TELL_EVERY_S:
            return None
        count, addresses = self._unreported, len(self._unreported_addresses)
        self._told, self._unreported = mono, 0
        self._unreported_addresses = set()
        if count == 1:
            return f"a wrong token was shown from {self._last_address}; it was refused"
        places = self._last_address if addresses == 1 else f"{addresses} addresses, {self._last_address} the last"
        return f"{count} wrong tokens were shown from {places}; they were refused"


@lru_cache(MAX_ADDRESSES)
def address_key(address: str | None) -> str:
    """Return what wrong tokens from an address are counted under."""
    if address is None:
        return "local"
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    host_bits = parsed.max_prefixlen - IPV6_PREFIX
    return f"{IPv6Address(int(parsed) >> host_bits << host_bits)}/{IPV6_PREFIX}"
