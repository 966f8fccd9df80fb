"""Whether an installed relay works: it is active, answers, and lets the bots in.

Owns: the three questions asked at the end of an installation, and the words of what is wrong. It must not change
anything. Read `cli/systemd_install` next.
"""

from __future__ import annotations

import http.client
import ssl
import subprocess
import sys
from collections.abc import Iterable

from logrelay.config.settings import authority, connectable
from logrelay.installation.machine import is_answered, properties
from logrelay.installation.plan import SERVICE, Places

ANSWER_TIMEOUT_S = 20.0
"""A relay that is active answers within milliseconds; this is for a machine that does much else."""

_CONNECT = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"


def findings(places: Places, address: tuple[str, int], traders: Iterable[str]) -> list[str]:
    """Return what is wrong, each with what to do about it; empty: nothing. Blocks until the relay has answered."""
    found = []
    state = properties(places, SERVICE, "ActiveState", "Result")
    if state["ActiveState"] not in ("active", "reloading"):
        ctl = " ".join(places.systemctl)
        found.append(f"{SERVICE} is {state['ActiveState']} (result: {state['Result']}); see: {ctl} status {SERVICE}")
        return found
    answer = ask(address)
    if answer is not None:
        found.append(answer)
    ingest = f"{places.runtime}/ingest.sock"
    if not is_answered(ingest):
        found.append(f"nobody listens on {ingest}; LOGRELAY_SOCKET in {places.settings} may name another place")
    for trader in traders:
        why = why_not_as(trader, ingest)
        if why is not None:
            found.append(f"{trader} cannot connect to {ingest}: {why}; its group has to be logrelay: id {trader}")
    return found


def ask(address: tuple[str, int]) -> str | None:
    """Ask the relay at an address for its health; return what is wrong with the answer, or None.

    A relay that wants a token, or is in trouble with its journal, answers too.
    """
    host, port = connectable(address[0]), address[1]
    where = authority(host, port)
    last = ""
    for secure in (False, True):
        context = ssl._create_unverified_context() if secure else None  # noqa: S323, SLF001  (asked of this machine)
        asked: http.client.HTTPConnection = (
            http.client.HTTPSConnection(host, port, timeout=ANSWER_TIMEOUT_S, context=context)
            if secure
            else http.client.HTTPConnection(host, port, timeout=ANSWER_TIMEOUT_S)
        )
        try:
            asked.request("GET", "/healthz")
            response = asked.getresponse()
            text = response.read(2000).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            last = str(error) or type(error).__name__
            continue
        finally:
            asked.close()
        if response.status == http.HTTPStatus.SERVICE_UNAVAILABLE:
            return f"the relay on {where} is in trouble: {' '.join(text.split())}"
        return None
    return f"nobody answers on {where}: {last}"


def why_not_as(user: str, path: str) -> str | None:
    """Connect to a Unix socket as another user; return why that is not possible, or None. Only root can ask."""
    import grp  # noqa: PLC0415
    import pwd  # noqa: PLC0415

    try:
        entry = pwd.getpwnam(user)
        groups = [entry.pw_gid, *(group.gr_gid for group in grp.getgrall() if user in group.gr_mem)]
        done = subprocess.run(  # noqa: S603  (our own interpreter)
            [sys.executable, "-I", "-c", _CONNECT, path],
            user=entry.pw_uid,
            group=entry.pw_gid,
            extra_groups=groups,
            capture_output=True,
            text=True,
            timeout=ANSWER_TIMEOUT_S,
            cwd="/",
            check=False,
        )
    except KeyError:
        return "there is no such user"
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it failed"])[-1]
