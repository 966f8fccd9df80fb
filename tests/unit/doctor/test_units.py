"""What `systemctl show` prints, as a real one printed it, and what becomes of it."""

from __future__ import annotations

import pytest

from logrelay.doctor.units import environment_files, flags, listens, look, parse_show, read_environment, run
from logrelay.errors import ConfigError

SERVICE = """\
Restart=on-failure
NRestarts=0
ExecStart={ path=/opt/v/bin/logrelay ; argv[]=/opt/v/bin/logrelay serve --tail 7 --sync=full ; ignore_errors=no ; \
start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }
Environment=PYTHONDONTWRITEBYTECODE=1 LOGRELAY_PORT=9 "X=a b"
EnvironmentFiles=%s (ignore_errors=yes)
EnvironmentFiles=/etc/none.env (ignore_errors=yes)
User=nobody
StateDirectory=logrelay
TriggeredBy=logrelay.socket
LoadState=loaded
ActiveState=active
"""
SOCKET = """\
Listen=/run/logrelay/ingest.sock (Stream)
Listen=127.0.0.1:8765 (Stream)
ActiveState=active
UnitFileState=enabled
"""


def test_a_service_is_read_with_its_socket_its_files_and_its_options(tmp_path):
    """Files in their order after the unit's own variables; one that holds a token is remembered with its mode."""
    env = tmp_path / "logrelay.env"
    env.write_text("LOGRELAY_PORT=10\nLOGRELAY_TOKEN=abc\n")
    env.chmod(0o640)
    asked = []

    def ask(command):
        asked.append(command)
        return SERVICE % env if command[-1] == "logrelay.service" else SOCKET

    unit = look("logrelay", for_user=False, ask=ask)
    assert [command[-1] for command in asked] == ["logrelay.service", "logrelay.socket"]
    assert asked[0][:2] == ("systemctl", "show")
    assert unit.environment == {
        "PYTHONDONTWRITEBYTECODE": "1", "LOGRELAY_PORT": "10", "X": "a b", "LOGRELAY_TOKEN": "abc",
        "STATE_DIRECTORY": "/var/lib/logrelay",
    }  # fmt: skip
    assert unit.flags == {"tail": "7", "sync": "full"}
    assert unit.listens == ["/run/logrelay/ingest.sock", "127.0.0.1:8765"]
    assert [(node.path, node.rights) for node in unit.secret_files] == [(str(env), "0640")]
    assert (unit.name, unit.systemctl, unit.runs) == ("logrelay.service", "systemctl", True)
    mine = look("logrelay.service", for_user=True, ask=ask)
    assert (asked[2][:2], mine.systemctl) == (("systemctl", "--user"), "systemctl --user")


def test_what_cannot_be_asked_or_read_is_said_with_the_remedy(tmp_path):
    """No systemd, and a file that has to be there and is not."""

    def fail(_command):
        raise OSError("System has not been booted with systemd as init system (PID 1). Can't operate.")

    with pytest.raises(ConfigError, match=r"systemd cannot be asked about x.service: System has not .*; --unit is for"):
        look("x", for_user=False, ask=fail)
    needed = f"EnvironmentFiles={tmp_path}/x.env (ignore_errors=no)"
    with pytest.raises(ConfigError, match=r"x.env is not there, which x.service reads"):
        look("x", for_user=False, ask=lambda _command: needed)
    with pytest.raises(OSError, match="ended with 1"):
        run(["false"])
    assert run(["echo", "a"]) == "a\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A=1\n# B=2\n;C=3\nD\n\n E = x \n", {"A": "1", "E": "x"}),
        ("A=\"a b\"\nB='c d'\nC=it's\n", {"A": "a b", "B": "c d", "C": "it's"}),
        ('A=1\\\n2\nB="open\n', {"A": "12", "B": '"open'}),
        ("A=x#y\nA=2", {"A": "2"}),
    ],
)
def test_a_file_of_settings_is_read_as_systemd_does(text, found):
    """Comments, quotes, continued lines; the last one wins."""
    assert read_environment(text) == found


def test_properties_that_come_several_times_are_kept_together():
    """And a socket unit that is not active holds nothing."""
    shown = parse_show(SOCKET)
    assert shown["Listen"] == "/run/logrelay/ingest.sock (Stream)\n127.0.0.1:8765 (Stream)"
    assert listens(shown | {"ActiveState": "inactive"}) == []
    assert environment_files("/a b.env (ignore_errors=yes)\n/c (ignore_errors=no)") == [
        ("/a b.env", True),
        ("/c", False),
    ]
    assert flags("") == flags("{ path=/x ; argv[]=/x serve ; }") == {}
    assert flags("{ argv[]=/x serve --port ; }") == {"port": ""}
