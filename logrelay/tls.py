"""The certificate of the viewers' port: read, checked, and read again while the relay runs.

Owns: `TlsFiles`, the TLS context made of two files, and the words of what is wrong with them. It must not know who
serves with it. Read `viewers/server` next.

Both files are read into a new context each time, and every handshake takes the newest good one. So a pair that does not
fit, or half of a new pair, changes nothing, and open connections keep what they were opened with.
"""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

from logrelay.errors import ConfigError

FORBIDDEN_KEY_BITS = 0o037
"""What the mode of the key's file must not have: nothing for others, and no writing for its group. A group may read:
that is how a system shares keys with services."""

TLS12_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""With forward secrecy and authenticated encryption. TLS 1.3 has no others anyway."""


class TlsFiles:
    """A certificate chain and its key, both PEM. Raises ConfigError when they cannot be used."""

    def __init__(self, cert: str, key: str) -> None:
        self._cert, self._key = cert, key
        self._newest = _context(cert, key)
        self.context = _context(cert, key)
        """What to serve with; its handshakes take the newest files that were good."""
        self.context.sni_callback = self._choose

    def reload(self) -> None:
        """Read both files again, for the handshakes from now on. Raises ConfigError; the old ones stay then."""
        self._newest = _context(self._cert, self._key)

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._newest


def tls_files(cert: str | None, key: str | None) -> TlsFiles | None:
    """Return the files where both settings are given, None where neither is. Raises ConfigError."""
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        given, missing = ("tls_cert", "tls_key") if key is None else ("tls_key", "tls_cert")
        raise ConfigError(f"{given} is set and {missing} is not; TLS needs both, plain text neither")
    return TlsFiles(cert, key)


def _context(cert: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(TLS12_CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        mode = stat.S_IMODE(Path(key).stat().st_mode)
        if mode & FORBIDDEN_KEY_BITS:
            raise ConfigError(
                f"the TLS key {key} has mode {mode:04o}, so others could read or change it; allowed: at most 0640. "
                f"Do: chmod 600 {key}"
            )
        # A key with a passphrase must not ask for it on a terminal that a service does not have.
        context.load_cert_chain(cert, key, password=lambda: "")
    except ssl.SSLError as error:
        reason = error.reason or str(error)
        raise ConfigError(
            f"the TLS certificate {cert} and the key {key} cannot be used: {reason}; both have to be PEM, belong to "
            "each other, and the key must have no passphrase"
        ) from None
    except OSError as error:
        name = error.filename or f"{cert} or {key}"
        raise ConfigError(f"the TLS file {name} cannot be read: {error.strerror or error}") from None
    return context
