"""From facts to findings: every fault in a table, and nothing is found in the facts of a healthy installation."""

from __future__ import annotations

import re
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from logrelay.config.loading import Effective
from logrelay.config.settings import GIB, MIB, SETTINGS, Config
from logrelay.doctor.diagnosis import QUESTIONS, diagnose
from logrelay.doctor.facts import Bot, Facts, JournalFile, LogSocket, Node, Package, Port, RunningRelay, UnitFacts, User
from logrelay.doctor.finding import exit_code

NOW = 1_769_162_400_000_000
RELAY = User("logrelay", 900, frozenset({900}))
TRADER = User("bot", 1000, frozenset({1000, 900}))
STRANGER = User("eve", 1001, frozenset({1001}))


def directory(path, mode=0o755, uid=0, gid=0):
    return Node(path, stat.S_IFDIR | mode, uid, gid)


def file(path, mode=0o600, uid=900, gid=900):
    return Node(path, stat.S_IFREG | mode, uid, gid)


RUN = [directory("/"), directory("/run"), directory("/run/logrelay", 0o755, 900, 900)]
STATE = [directory("/"), directory("/var"), directory("/var/lib"), directory("/var/lib/logrelay", 0o700, 900, 900)]
SOCKET = Node("/run/logrelay/ingest.sock", stat.S_IFSOCK | 0o660, 900, 900)
CONFIG = Config(socket="/run/logrelay/ingest.sock", journal="/var/lib/logrelay/journal.db")
UNIT = UnitFacts(
    "logrelay.service",
    ("systemctl",),
    {
        "LoadState": "loaded", "ActiveState": "active", "SubState": "running", "NRestarts": "0", "Result": "success",
        "UnitFileState": "enabled", "NeedDaemonReload": "no", "ProtectHome": "yes", "PrivateTmp": "yes",
        "ProtectSystem": "strict", "StateDirectory": "logrelay", "RuntimeDirectory": "logrelay", "ReadWritePaths": "",
    },
)  # fmt: skip


def effective(config=CONFIG, unknown=(), **origins):
    return Effective(config, {setting.name: "default" for setting in SETTINGS} | origins, unknown)


JOURNAL = JournalFile(
    file("/var/lib/logrelay/journal.db"), STATE, file_system="ext4", total=100 * GIB, free=50 * GIB, size=MIB,
    keep_free=256 * MIB, log_bytes=MIB, log_share=32 * MIB, newest_us=NOW, epoch="abc123", held_by=77,
    bots=[Bot("scalper", "connected", NOW)], made_us=NOW,
)  # fmt: skip
HEALTHY = Facts(
    effective=effective(), user=RELAY, now_us=NOW, port=Port("relay"), socket=LogSocket(SOCKET, RUN, listening=True),
    journal=JOURNAL, relay=RunningRelay("0.1.0", "abc123"), unit=UNIT, trader=TRADER, group_members=1,
    trader_places=[("/run/logrelay/ingest.sock", True)], clock_synchronised=True,
    packages=[Package("click", "8.1.7", "8.1")], descriptors=16384, memory=640 * MIB,
)  # fmt: skip
STOPPED = replace(HEALTHY, relay=None, port=Port("free"), unit=None, journal=replace(JOURNAL, held_by=None),
                  socket=LogSocket(None, RUN))  # fmt: skip


def with_config(facts=HEALTHY, **changes):
    return replace(facts, effective=effective(replace(CONFIG, **changes)))


def with_journal(facts=HEALTHY, **changes):
    return replace(facts, journal=replace(JOURNAL, **changes))


def with_socket(facts=HEALTHY, **changes):
    return replace(facts, socket=replace(HEALTHY.socket, **changes))


def with_unit(facts=HEALTHY, **shown):
    return replace(facts, unit=replace(UNIT, shown=UNIT.shown | shown))


SOCKET_UNIT = replace(UNIT, socket={"UnitFileState": "enabled"}, listens=["127.0.0.1:8765"])

FAULTS = [
    ("unknown_variable", replace(HEALTHY, effective=effective(unknown=("LOGRELAY_PROT",))), 0, "LOGRELAY_PORT?"),
    ("settings", replace(HEALTHY, config_error="host is not loopback"), 2, "not loopback"),
    ("no_such_user_or_group", replace(HEALTHY, listen_error="there is no group"), 3, "no group"),
    ("port_taken", replace(STOPPED, port=Port("other", ["process 5 (nginx)"])), 3, "process 5 (nginx)"),
    ("port_taken", replace(STOPPED, port=Port("other")), 3, "as root this says which one"),
    ("address_unusable", replace(STOPPED, port=Port("unusable", error="no address")), 3, "no address"),
    ("another_relay", replace(HEALTHY, relay=RunningRelay("1", "zzz999")), 3, "has another journal"),
    ("another_relay", with_journal(node=None, epoch=None, held_by=None), 3, "has another journal"),
    ("tls_differs", replace(HEALTHY, relay=RunningRelay("1", "abc123", tls=True)), 0, "LOGRELAY_TLS_CERT and LOGREL"),
    (
        "tls_differs",
        with_config(replace(HEALTHY, relay=RunningRelay("1", "abc123", tls=False)), tls_cert="/c.pem"), 0,
        "does not speak TLS",
    ),
    (
        "tls_differs",
        with_config(
            replace(HEALTHY, relay=RunningRelay("1", "abc123", tls=True, other_certificate=True)), tls_cert="/c.pem"
        ), 0, "another certificate than /c.pem",
    ),
    ("relay_trouble", replace(HEALTHY, relay=RunningRelay("1", "abc123", "the disk is full")), 7, "disk is full"),
    ("plain_text", with_config(host="0.0.0.0"), 0, "in plain text"),
    ("certificate_unusable", replace(HEALTHY, tls_error="key and certificate"), 2, "key and certificate"),
    ("certificate_time", replace(HEALTHY, tls_warning="it has expired"), 7, "expired"),
    ("certificate_time", replace(HEALTHY, tls_warning="it expires soon"), 0, "soon"),
    ("token_readable", replace(HEALTHY, secret_files=[file("/etc/r.toml", 0o640)]), 7, "/etc/r.toml holds a token"),
    ("token_readable", replace(HEALTHY, unit=replace(UNIT, secret_files=[file("/e", 0o604)])), 7, "mode 0604"),
    ("token_file", replace(HEALTHY, tokens_error="not private"), 2, "not private"),
    ("not_a_socket", with_socket(node=file("/run/logrelay/ingest.sock")), 3, "is not a socket"),
    ("stale_socket", with_socket(listening=False), 0, "nobody listens"),
    ("socket_in_use", replace(STOPPED, socket=HEALTHY.socket), 3, "another relay listens"),
    ("socket_directory", with_socket(way=[*RUN[:2], directory("/run/logrelay", 0o777)]), 3, "mode 0777"),
    ("socket_not_looked_for", replace(STOPPED, trader_places=[("/a", False)]), 0, "no trader looks for"),
    ("socket_shadowed", replace(STOPPED, trader_places=[("/a", True), (CONFIG.socket, True)]), 0, "/a is found before"),
    ("socket_unreachable", replace(HEALTHY, trader=STRANGER), 7, "eve may not write"),
    (
        "socket_unreachable",
        with_socket(way=[*RUN[:2], directory("/run/logrelay", 0o700, 900, 900)]), 7, "may not pass /run/logrelay",
    ),
    ("socket_for_nobody", replace(HEALTHY, trader=None, group_members=0), 0, "nobody else is in the group"),
    ("journal_refused", with_journal(refusal="it is a link"), 4, "it is a link"),
    ("journal_unreachable", with_journal(way=[directory("/"), directory("/x", 0o700), *STATE[3:]]), 4, "may not pass"),
    ("journal_directory", with_journal(way=[*STATE[:3], directory("/d", 0o755)]), 4, "may not write to /d"),
    ("journal_directory", with_journal(way=STATE[:3], directory_there=False, node=None, epoch=None), 3, "make a dir"),
    ("journal_not_writable", with_journal(node=file("/j", 0o600, 0, 0)), 4, "owner 0"),
    ("journal_in_use", replace(STOPPED, journal=JOURNAL), 4, "(process 77)"),
    ("journal_in_use", with_journal(STOPPED, held_by=0), 4, "not to be seen"),
    ("journal_on_network", with_journal(file_system="nfs4", waits_for_others=True), 0, "(nfs4)"),
    ("disk_low", with_journal(free=127 * MIB), 7, "127 MiB of the file system"),
    ("disk_low", with_journal(free=0, keep_free=102_400), 7, "are free, 100 KiB are to stay free"),
    ("disk_small", with_journal(free=600 * MIB), 0, "LOGRELAY_KEEP_BYTES to"),
    ("log_pinned", with_journal(log_bytes=65 * MIB, readers=["process 9 (sqlite3)"]), 7, "process 9 (sqlite3)"),
    ("no_bot_seen", with_journal(bots=[]), 0, "since 2026-01-23 10:00 UTC"),
    ("bot_missing", with_journal(bots=[Bot("scalper", "gone", NOW)]), 0, "'scalper' is gone"),
    ("bot_missing", with_journal(bots=[Bot("scalper", "crashed", NOW)]), 0, "'scalper' has crashed"),
    ("bot_not_up", with_config(expect=("scalper", "other")), 7, "'other' should always be up"),
    (
        "bot_not_up",
        with_config(with_journal(bots=[Bot("scalper", "gone", NOW)]), expect=("scalper",)), 7, "and is gone",
    ),
    ("clock_behind", replace(HEALTHY, now_us=NOW - 400_000_000), 7, "set the clock"),
    ("clock_not_synchronised", replace(HEALTHY, clock_synchronised=False), 0, "not synchronised"),
    ("package_missing", replace(HEALTHY, packages=[Package("click", None, "8.1")]), 2, "click is not installed"),
    ("package_missing", replace(HEALTHY, alerts_error="sending alerts needs Apprise"), 2, "needs Apprise"),
    ("package_old", replace(HEALTHY, packages=[Package("click", "8.0.9", "8.1")]), 7, "8.1 is the oldest"),
    ("few_descriptors", replace(HEALTHY, descriptors=1024), 0, "LimitNOFILE=4416"),
    ("little_memory", replace(HEALTHY, memory=64 * MIB), 0, "64 MiB of memory"),
    ("unit_missing", with_unit(LoadState="not-found"), 7, "systemd has no unit"),
    ("unit_restarts", with_unit(SubState="auto-restart", ExecMainStatus="4"), 7, "exit code was 4"),
    ("unit_restarts", with_unit(NRestarts="4"), 7, "4 times"),
    ("unit_failed", with_unit(ActiveState="failed", Result="exit-code", ExecMainStatus="2"), 7, "exit code 2"),
    ("unit_stopped", with_unit(replace(STOPPED, unit=UNIT), ActiveState="inactive"), 0, "is not running"),
    ("unit_not_enabled", with_unit(UnitFileState="disabled"), 0, "after a reboot"),
    ("unit_changed", with_unit(NeedDaemonReload="yes"), 0, "daemon-reload"),
    (
        "overridden_by_socket",
        replace(HEALTHY, unit=SOCKET_UNIT, effective=effective(port="LOGRELAY_PORT")), 0,
        "LOGRELAY_PORT changes nothing",
    ),
    ("journal_hidden", with_config(journal="/home/x/j.db"), 7, "ProtectHome="),
    ("journal_read_only", with_config(journal="/srv/x/j.db"), 7, "ReadWritePaths=/srv/x"),
]  # fmt: skip


def test_nothing_is_found_where_all_is_well():
    """Under systemd, with a socket unit or without, not started, one whose journal is elsewhere."""
    assert diagnose(HEALTHY) == []
    assert diagnose(STOPPED) == []
    assert diagnose(replace(HEALTHY, unit=SOCKET_UNIT, trader=None, group_members=None)) == []
    elsewhere = replace(
        with_unit(ReadWritePaths="/srv/x -/srv/y"), effective=effective(replace(CONFIG, journal="/srv/y/j"))
    )
    assert diagnose(elsewhere) == []
    assert diagnose(replace(HEALTHY, journal=None, effective=effective(replace(CONFIG, journal=":memory:")))) == []
    assert diagnose(with_config(host="0.0.0.0", trusted_proxy=("10.0.0.1",))) == []
    enabled_by_socket = replace(
        SOCKET_UNIT, shown=UNIT.shown | {"UnitFileState": "indirect"}, socket={"UnitFileState": "enabled"}
    )
    assert diagnose(replace(HEALTHY, unit=enabled_by_socket)) == []


@pytest.mark.parametrize(
    ("code", "facts", "ends", "said"), FAULTS, ids=[f"{n}-{fault[0]}" for n, fault in enumerate(FAULTS)]
)
def test_every_fault_is_found_with_a_remedy(code, facts, ends, said):
    """By its name, with the exit code and words that help; a fault brings no finding that is not about it."""
    findings = diagnose(facts)
    assert code in [one.code for one in findings]
    assert exit_code(findings) == ends
    mine = [one for one in findings if one.code == code]
    assert any(said in f"{one.text}; {one.remedy}" for one in mine), mine
    for one in findings:
        assert one.remedy
        assert one.text
        assert not one.text.endswith(".")
    allowed = {"journal_directory": {"another_relay"}, "journal_in_use": set(), "little_memory": set()}
    assert {one.code for one in findings} - {code} <= allowed.get(code, set())


def test_every_finding_there_is_has_a_row_above_and_one_in_the_docs():
    """A question that nobody has seen find something may find nothing."""
    root = Path(__file__).parents[3]
    source = "".join(path.read_text("utf-8") for path in (root / "logrelay" / "doctor").glob("*_findings.py"))
    codes = set(re.findall(r'(?:error|problem|warning|rank)\(\s*"(\w+)"', source))
    assert codes == {fault[0] for fault in FAULTS}
    assert len(codes) >= 40
    page = (root / "docs" / "doctor.md").read_text("utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == codes


def test_every_question_is_asked():
    """All that are written down in the modules of questions."""
    assert len(set(QUESTIONS)) == len(QUESTIONS) == 17
