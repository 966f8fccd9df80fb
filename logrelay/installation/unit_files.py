"""The texts of the unit files: the packaged ones, with what an installation puts in their place.

Owns: which packaged text is changed where (the directory of the commands, the trader, the network of a relay that
systemd hands its sockets, the kind of reload), the mark by which a file is known to be as it was written, and the
texts of versions before. It must not know where a file goes, nor read any but the packaged ones. Read
`installation/reachable` next.
"""

from __future__ import annotations

import hashlib
import re
from importlib import resources

PACKAGED_BIN = "/opt/logrelay/venv/bin/"
"""Directory of the commands in the packaged unit files."""

PACKAGED_TRADER = "robo-trader"
"""The trader's user in the packaged unit files."""

INGEST_SOCKET = "/run/logrelay/ingest.sock"
USER_INGEST_SOCKET = "%t/logrelay/ingest.sock"
"""The log socket of a user's relay: `%t` is the user's runtime directory."""

NOTIFY_RELOAD = 253
"""The first systemd that knows Type=notify-reload, with which `systemctl reload` waits until everything is read."""

_ACTIVATED = """\
# Network: none. systemd opens both sockets (logrelay.socket) and hands them over; connections that come in on them are
# served all the same. What has to connect out, to NATS or to whoever gets alerts, needs a drop-in: docs/operations.md.
PrivateNetwork=yes
RestrictAddressFamilies=AF_UNIX
IPAddressDeny=any
"""

_MARK = "# As written by logrelay systemd install. sha256 of the lines above: "

_EARLIER = frozenset(
    {
        "4c8d391a174b74cb", "7962628578196f22", "829b84884728f51e", "ec30a5ea28427765",
        "70efa5984009fb97", "ef696e56f063bb43",
        "7bf9afd719a37503",
    }
)  # fmt: skip
"""What `systemd print` gave in versions before, by the first digits of its SHA-256: such a file holds nothing of the
operator's own. First services, then sockets, then users."""


def packaged(name: str) -> str:
    """Return a packaged file as it is."""
    return resources.files("logrelay").joinpath("units", name).read_text("utf-8")


def service(bin_directory: str, *, activated: bool, systemd: int) -> str:
    """Return the service; `activated`: its sockets come from systemd. `systemd` is the version it is for."""
    text = packaged("logrelay.service").replace(PACKAGED_BIN, f"{bin_directory}/")
    if activated:
        text = _replaced(text, "After=logrelay.socket\n", "Requires=logrelay.socket\nAfter=logrelay.socket\n")
        network = re.search(r"^# Network: .*\nRestrictAddressFamilies=.*\n", text, re.MULTILINE)
        assert network is not None, "the packaged service has these lines"
        text = text.replace(network[0], _ACTIVATED)
    return _reloading(text, systemd)


def user_service(bin_directory: str, *, activated: bool, systemd: int) -> str:
    """Return the service for the manager of a user."""
    text = packaged("logrelay.user.service").replace(PACKAGED_BIN, f"{bin_directory}/")
    if activated:
        text = _replaced(text, "After=logrelay.socket\n", "Requires=logrelay.socket\nAfter=logrelay.socket\n")
    return _reloading(text, systemd)


def _reloading(text: str, systemd: int) -> str:
    if systemd < NOTIFY_RELOAD:
        return text
    text = _replaced(text, "Type=notify\n", "Type=notify-reload\n")
    return re.sub(r"^(# .*\n)?ExecReload=.*\n", "", text, flags=re.MULTILINE)


def _replaced(text: str, old: str, new: str) -> str:
    assert old in text, f"the packaged service has the line {old!r}"
    return text.replace(old, new)


def listen_drop_in(address: str, *, ingest: str, everywhere: bool) -> str:
    """Return the drop-in of the socket unit that has viewers connect to `address`, as systemd writes addresses.

    `everywhere`: the address is there at any time, like loopback; another one may come up after the socket.
    """
    free = "" if everywhere else "# The address may come up later than this socket.\nFreeBind=yes\n"
    return (
        "# Where viewers connect. The list is emptied first, so the traders' socket stands here again.\n"
        f"[Socket]\nListenStream=\nListenStream={ingest}\nListenStream={address}\n{free}"
    )


def users(traders: dict[str, bool]) -> str:
    """Return the file for systemd-sysusers; `traders` says of each whether the file is to make that user."""
    kept = [line for line in packaged("logrelay.sysusers").splitlines() if PACKAGED_TRADER not in line]
    for name, is_made in sorted(traders.items()):
        if is_made:
            kept.append(f'u {name} - "trading bot"')
        kept.append(f"m {name} logrelay")
    return "\n".join(kept) + "\n"


def read_traders(text: str) -> dict[str, bool]:
    """Return the traders of such a file, and of each whether the file makes that user."""
    made = set(re.findall(r"^u (\S+) ", text, re.MULTILINE))
    return {name: name in made for name in re.findall(r"^m (\S+) logrelay$", text, re.MULTILINE)}


def marked(text: str) -> str:
    """Return a text with the mark by which `is_ours` knows it."""
    return f"{text}{_MARK}{_digest(text)}\n"


def is_ours(text: str) -> bool:
    """Tell whether a file is as it was written by this or an earlier version: nobody's own lines are in it."""
    body, mark, digest = text.rpartition(_MARK)
    if mark:
        return digest.strip() == _digest(body)
    text = re.sub(
        r"^ExecStart=\S*/logrelay serve$", f"ExecStart={PACKAGED_BIN}logrelay serve", text, flags=re.MULTILINE
    )
    if re.search(r"^u logrelay ", text, re.MULTILINE):
        # Another trader's name stood in the place of ours, and the line that makes the user was left out.
        return set(text.splitlines()) - {f"m {name} logrelay" for name in read_traders(text)} <= set(
            packaged("logrelay.sysusers").splitlines()
        )
    return _digest(text) in _EARLIER


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
