"""What is wrong with the ways in: the viewers' port with its secrets, and the traders' socket.

Owns: the questions about settings, port, tokens, certificate and log socket. It must not look at the machine. Pure.
Read `doctor/journal_findings` next.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator

from logrelay.config.loading import unknown_variable_hint
from logrelay.config.settings import authority, is_loopback
from logrelay.doctor.facts import SEARCH, WRITE, Facts, Node, RunningRelay
from logrelay.doctor.finding import Finding, error, problem, warning

OTHERS_READ = 0o044
"""Of a file with a token: the group, and everybody."""


def settings(facts: Facts) -> Iterator[Finding]:
    """Variables that nobody reads, and settings that do not go together."""
    for name in facts.effective.unknown_variables:
        yield warning("unknown_variable", f"{name} is set but is not a setting", unknown_variable_hint(name))
    if facts.config_error:
        yield error("settings", "config", facts.config_error, "change the setting that it names")
    if facts.listen_error:
        yield error("no_such_user_or_group", "listen", facts.listen_error, "name one that there is, or make it")


def port(facts: Facts) -> Iterator[Finding]:
    """Who listens where the viewers are to come."""
    config, found = facts.effective.config, facts.port
    where = authority(config.host, config.port)
    who = f": {', '.join(found.holders)}" if found.holders else "; as root this says which one"
    if found.state == "other":
        yield error(
            "port_taken",
            "listen",
            f"another program listens on {where}{who}",
            "stop it, or choose another port with LOGRELAY_PORT",
        )
    elif found.state == "unusable":
        yield error("address_unusable", "listen", found.error, "choose another LOGRELAY_HOST or LOGRELAY_PORT")
    relay, journal = facts.relay, facts.journal
    if relay is not None and journal is not None:
        known = relay.epoch is not None and journal.epoch is not None
        differs = known and journal.epoch not in (relay.epoch, relay.head_epoch)
        if differs or (relay.epoch is not None and journal.node is None):
            yield error(
                "another_relay",
                "listen",
                f"the relay that answers on {where} has another journal than {config.journal}",
                "stop that relay, or give this one its own port, socket and journal",
            )
    if relay is not None and relay.tls is not None:
        yield from _tls_of_the_relay(facts, relay, where)
    if relay is not None and relay.trouble is not None:
        yield problem("relay_trouble", f"the running relay has trouble with its journal: {relay.trouble}", "cure that")


def _tls_of_the_relay(facts: Facts, relay: RunningRelay, where: str) -> Iterator[Finding]:
    """A relay that was started with other settings for TLS than these."""
    certificate = facts.effective.config.tls_cert
    if relay.tls and certificate is None:
        yield warning(
            "tls_differs",
            f"the relay that answers on {where} speaks TLS, and these settings have no certificate",
            "give the settings that it was started with: LOGRELAY_TLS_CERT and LOGRELAY_TLS_KEY; of a service, "
            "logrelay check --unit logrelay",
        )
    elif certificate is not None and not relay.tls:
        yield warning(
            "tls_differs",
            f"the relay that answers on {where} does not speak TLS, and these settings have the certificate "
            f"{certificate}",
            "restart the relay with these settings, or take LOGRELAY_TLS_CERT and LOGRELAY_TLS_KEY out",
        )
    elif relay.other_certificate and not (facts.tls_error or facts.tls_warning):
        yield warning(
            "tls_differs",
            f"the relay that answers on {where} shows another certificate than {certificate}",
            "have it read its files again (SIGHUP; systemctl reload logrelay), or name the file that it was started "
            "with as LOGRELAY_TLS_CERT",
        )


def reach(facts: Facts) -> Iterator[Finding]:
    """Plain text beyond loopback."""
    config = facts.effective.config
    if not is_loopback(config.host) and config.tls_cert is None and not config.trusted_proxy:
        yield warning(
            "plain_text",
            f"viewers from other machines come to {config.host} in plain text: whoever is on the way can read the log "
            "and the token",
            "give a certificate (LOGRELAY_TLS_CERT, LOGRELAY_TLS_KEY), or listen on 127.0.0.1 behind a VPN or a proxy",
        )


def certificate(facts: Facts) -> Iterator[Finding]:
    """A pair that does not fit, and one whose time is over or not there yet."""
    if facts.tls_error:
        yield error("certificate_unusable", "config", facts.tls_error, "put a pair of PEM files there that fit")
    if facts.tls_warning:
        rank = warning if "expires soon" in facts.tls_warning else problem
        yield rank("certificate_time", facts.tls_warning, "renew it, then: systemctl reload logrelay")


def secrets(facts: Facts) -> Iterator[Finding]:
    """Secrets that others can read, and a token file that cannot be used."""
    words = {**facts.secret_words, **(facts.unit.secret_words if facts.unit else {})}
    files = {node.path: node for node in (*facts.secret_files, *(facts.unit.secret_files if facts.unit else ()))}
    for node in files.values():
        if node.mode & OTHERS_READ:
            yield problem(
                "token_readable",
                f"{node.path} holds {' and '.join(words.get(node.path, ('a token',)))} and has mode {node.rights}: "
                "other users of this machine can read it",
                f"chmod 600 {node.path}, and replace what it holds: somebody may have read it",
            )
    if facts.tokens_error:
        yield error("token_file", "config", facts.tokens_error, "make it a private file of the relay's user")


def log_socket(facts: Facts) -> Iterator[Finding]:
    """What is in the socket's place, and whether somebody else could take it."""
    path, found = facts.effective.config.socket, facts.socket
    served = facts.relay is not None or (facts.unit is not None and bool(facts.unit.listens))
    if found.node is not None and not stat.S_ISSOCK(found.node.mode):
        yield error(
            "not_a_socket",
            "listen",
            f"{path} is there and is not a socket",
            "move it away, or choose another place with LOGRELAY_SOCKET",
        )
    elif found.node is not None and found.listening is False:
        yield warning(
            "stale_socket",
            f"nobody listens on {path}: it was left behind by a relay that was killed",
            "start the relay, which replaces it; with a socket unit: systemctl stop logrelay, then restart "
            "logrelay.socket",
        )
    elif found.listening and not served and facts.port.state in ("free", "other"):
        yield error(
            "socket_in_use",
            "listen",
            f"another relay listens on {path}, and none answers on the port of these settings",
            "stop that relay, or choose another place with LOGRELAY_SOCKET",
        )
    directory = found.way[-1] if found.way else None
    if directory is not None and _others_write(directory):
        yield error(
            "socket_directory",
            "listen",
            f"others may write to {directory.path} (mode {directory.rights}), so somebody else could take the log "
            "socket's place",
            f"chmod o-w,g-w {directory.path}, or choose another place with LOGRELAY_SOCKET",
        )


def _others_write(directory: Node) -> bool:
    if directory.mode & stat.S_ISVTX:
        return False  # as in /tmp: the relay makes a directory of its own there
    return bool(directory.mode & stat.S_IWOTH)


def traders(facts: Facts) -> Iterator[Finding]:
    """Whether a bot finds the socket, and may write to it."""
    path, socket = facts.effective.config.socket, facts.socket
    places = [place for place, _ in facts.trader_places]
    if facts.unit is None and places:
        if path not in places:
            yield warning(
                "socket_not_looked_for",
                f"no trader looks for {path} by itself",
                f"set LOGRELAY_SOCKET={path} for each of them",
            )
        else:
            for place, there in facts.trader_places[: places.index(path)]:
                if there:
                    yield warning(
                        "socket_shadowed",
                        f"a socket at {place} is found before {path}",
                        "remove it, or set LOGRELAY_SOCKET for the traders",
                    )
    trader = facts.trader
    if trader is not None and socket.node is not None and stat.S_ISSOCK(socket.node.mode):
        closed = next((node for node in socket.way if not node.allows(trader, SEARCH)), None)
        if closed is not None:
            yield problem(
                "socket_unreachable",
                f"the trader's user {trader.name} may not pass {closed.path} (mode {closed.rights})",
                "give its group that right (chmod g+x), with that user in it, or choose another LOGRELAY_SOCKET",
            )
        elif not socket.node.allows(trader, WRITE):
            yield problem(
                "socket_unreachable",
                f"the trader's user {trader.name} may not write to {path} (mode {socket.node.rights}, group "
                f"{socket.node.gid})",
                f"usermod -aG {_group(facts)} {trader.name}, then start the bot anew",
            )
    elif facts.unit is not None and facts.group_members == 0 and facts.user.uid != 0:
        yield warning(
            "socket_for_nobody",
            f"no user but {facts.user.name} and root may write to {path}: nobody else is in the group of the socket",
            f"usermod -aG {_group(facts)} NAME for the user of each bot",
        )


def _group(facts: Facts) -> str:
    return facts.effective.config.socket_group or facts.user.name


QUESTIONS = (settings, port, reach, certificate, secrets, log_socket, traders)
