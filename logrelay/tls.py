"""The certificate of the viewers' port: read, checked, and read again while the relay runs.

Owns: `TlsFiles`, the TLS context made of two files, the words of what is wrong with them, and when a certificate is
valid. It must not know who serves with it; time is an argument. Read `viewers/server` next.

Both files are read into a new context each time, and every handshake takes the newest good one. So a pair that does not
fit, or half of a new pair, changes nothing, and open connections keep what they were opened with.
"""

from __future__ import annotations

import ssl
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from logrelay.errors import ConfigError

FORBIDDEN_KEY_BITS = 0o037
"""What the mode of the key's file must not have: nothing for others, and no writing for its group. A group may read:
that is how a system shares keys with services."""

TLS12_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""With forward secrecy and authenticated encryption. TLS 1.3 has no others anyway."""


RENEW_DAYS = 14
"""A certificate that is valid for less than this should have been renewed: the usual services do so thirty days before
its end, and whoever does it by hand needs some days' notice."""

_DAY_S = 86_400


class Validity(NamedTuple):
    """From when to when a certificate is valid, in seconds since 1970."""

    begins: float
    ends: float


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

    def warning(self, now_s: float) -> str | None:
        """Say what will keep clients away from the certificate at the wall clock `now_s`; None: nothing that is seen.

        The relay serves with it all the same: clients decide whether they take it.
        """
        validity = read_validity(Path(self._cert))
        if validity is None:
            return None
        ends = f"{datetime.fromtimestamp(validity.ends, UTC):%Y-%m-%d %H:%M} UTC"
        if now_s < validity.begins:
            begins = f"{datetime.fromtimestamp(validity.begins, UTC):%Y-%m-%d %H:%M} UTC"
            return (
                f"the TLS certificate {self._cert} is not valid before {begins}: clients refuse it; look at the clock"
            )
        if now_s >= validity.ends:
            return (
                f"the TLS certificate {self._cert} has expired ({ends}): clients refuse it; renew it, then send SIGHUP"
            )
        if now_s >= validity.ends - RENEW_DAYS * _DAY_S:
            return f"the TLS certificate {self._cert} expires soon ({ends}); renew it, then send SIGHUP"
        return None

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
        if mode & FORBIDDEN_KEY_BITS and not _has(Path(key), _CERTIFICATE):
            raise ConfigError(
                f"the TLS key {key} has mode {mode:04o}, so others could read or change it; allowed: at most 0640. "
                f"Do: chmod 600 {key}"
            )
        # A key with a passphrase must not ask for it on a terminal that a service does not have.
        context.load_cert_chain(cert, key, password=lambda: "")
    except ssl.SSLError as error:
        raise ConfigError(
            f"the TLS certificate {cert} and the key {key} cannot be used: {_mistake(Path(cert), Path(key), error)}"
        ) from None
    except OSError as error:
        name = error.filename or f"{cert} or {key}"
        raise ConfigError(f"the TLS file {name} cannot be read: {error.strerror or error}") from None
    return context


# --- what is wrong with two files -------------------------------------------------------------------------------------

_CERTIFICATE = "-----BEGIN CERTIFICATE-----"
_KEY = "PRIVATE KEY-----"
_LOCKED = ("-----BEGIN ENCRYPTED PRIVATE KEY-----", "Proc-Type: 4,ENCRYPTED")
"""How a key with a passphrase begins (RFC 5958), and what the older form has in its second line (RFC 1421)."""


def _mistake(cert: Path, key: Path, error: ssl.SSLError) -> str:
    """Say what is wrong with two files that OpenSSL does not take: one of the usual mistakes, else its own words."""
    if error.reason == "KEY_VALUES_MISMATCH":
        return "they do not belong to each other: the key is that of another certificate"
    if not _has(cert, _CERTIFICATE) and _has(cert, _KEY) and _has(key, _CERTIFICATE):
        return "they are swapped: the first has a private key in it, the second a certificate"
    if not _has(cert, _CERTIFICATE):
        return f"{cert} has no certificate in PEM form; it begins with {_CERTIFICATE}"
    if any(_has(key, mark) for mark in _LOCKED):
        return (
            f"{key} has a passphrase, which nobody could type when a service starts; take it off: "
            f"openssl pkey -in {key} -out NEW-KEY, and chmod 600 NEW-KEY"
        )
    if not _has(key, _KEY):
        return f"{key} has no private key in PEM form; its first line ends with {_KEY}"
    return f"{error.reason or error}; both have to be PEM, and whole"


def _has(path: Path, mark: str) -> bool:
    try:
        return mark in path.read_text("ascii", "replace")
    except OSError:
        return False


# --- when a certificate is valid --------------------------------------------------------------------------------------

_SEQUENCE, _EXPLICIT_VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18
"""Tags of DER (X.690); what a certificate is made of says RFC 5280, section 4.1."""

_TIMES = {_UTC_TIME: "%y%m%d%H%M%SZ", _GENERALIZED_TIME: "%Y%m%d%H%M%SZ"}

_END_CERTIFICATE = "-----END CERTIFICATE-----"


def read_validity(cert: Path) -> Validity | None:
    """Return when the first certificate of a PEM file is valid; None where that cannot be read. Never raises."""
    try:
        text = cert.read_text("ascii", "replace")
        first = text[text.index("-----BEGIN CERTIFICATE-----") : text.index(_END_CERTIFICATE) + len(_END_CERTIFICATE)]
        return _validity_of(ssl.PEM_cert_to_DER_cert(first))
    except (OSError, ValueError, IndexError):
        return None


def _validity_of(der: bytes) -> Validity:
    _, at, _ = _element(der, 0)  # Certificate
    _, at, _ = _element(der, at)  # TBSCertificate
    tag, _, end = _element(der, at)
    if tag == _EXPLICIT_VERSION:
        at = end
    for _ in ("serialNumber", "signature", "issuer"):
        at = _element(der, at)[2]
    tag, at, _ = _element(der, at)
    if tag != _SEQUENCE:
        raise ValueError("no validity")
    times = []
    for _ in range(2):
        tag, start, at = _element(der, at)
        moment = datetime.strptime(der[start:at].decode("ascii"), _TIMES.get(tag, "")).replace(tzinfo=UTC)
        times.append(moment.timestamp())
    return Validity(*times)


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Return tag, begin and end of the content of the element at `at`."""
    tag, size, start = der[at], der[at + 1], at + 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(der[at + 2 : start], "big")
    return tag, start, start + size
