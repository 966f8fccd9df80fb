"""URLs of NATS servers: their form, the secret in them, and what anybody may see of them.

Owns: the pattern, and the parts of such a URL. It must not connect, nor know other settings. Pure. Read `loading` next.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote

PATTERN = r"(?:nats|tls)://(?:[^\s@/,]+@)?(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?/?"
"""What may be given. In user, password and token other characters are written as in any URL: `%40` for an at sign."""
ALLOWED = "like nats://host:4222, or tls://user:password@host:4222"
DEFAULT_PORT = 4222

_PARTS = re.compile(r"(nats|tls)://(?:([^\s@/,]+)@)?([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?/?")


@dataclass(frozen=True, slots=True)
class NatsUrl:
    """One server, and who we are there."""

    scheme: str
    address: str
    """Host and port."""
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    @property
    def public(self) -> str:
        """The URL without what is secret."""
        return f"{self.scheme}://{self.address}"

    @property
    def has_secret(self) -> bool:
        """Tell whether somebody who reads the URL could pose as us."""
        return self.password is not None or self.token is not None


def parse(url: str) -> NatsUrl:
    """Take a URL apart. Raises ValueError, whose text has nothing of it."""
    match = _PARTS.fullmatch(url)
    if match is None:
        raise ValueError("not the URL of a NATS server")
    scheme, given, host, port = match.groups()
    address = f"{host}:{port or DEFAULT_PORT}"
    if given is None:
        return NatsUrl(scheme, address)
    user, colon, password = given.partition(":")
    if not colon:
        return NatsUrl(scheme, address, token=unquote(user))
    return NatsUrl(scheme, address, unquote(user), unquote(password))


def public(urls: object) -> object:
    """Return URLs, or none, as anybody may see them."""
    return tuple(parse(url).public for url in urls) if isinstance(urls, tuple) else urls
