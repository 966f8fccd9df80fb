"""On which file systems the event loop writes nothing."""

from __future__ import annotations

import pytest

from logrelay.journal.file_systems import waits_for_others

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /mnt/far rw - nfs4 server:/export rw
31 30 8:2 / /mnt/far/near rw - xfs /dev/sdb1 rw
32 22 0:41 / /mnt/with\\040space rw - fuse.sshfs host: rw
33 22 0:42 / /mnt/of\\040old rw - xfs /dev/sdc1 rw
34 33 0:43 / /mnt/of\\040old rw - cifs //host/share rw
nonsense
"""


@pytest.mark.parametrize(
    ("path", "waits"),
    [
        ("/srv/journal.db", False),
        ("/mnt/farther/journal.db", False),
        ("/mnt/far/journal.db", True),
        ("/mnt/far/near/journal.db", False),
        ("/mnt/with space/journal.db", True),
        ("/mnt/of old/journal.db", True),
    ],
)
def test_the_innermost_mount_decides(tmp_path, path, waits):
    """Of two on one place the later one; names with spaces are written in octal."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    assert waits_for_others(path, str(mounts)) is waits


def test_where_the_system_does_not_say_it_is_not_known(tmp_path):
    assert waits_for_others("/srv/journal.db", str(tmp_path / "missing"))
    (tmp_path / "empty").write_text("")
    assert waits_for_others("/srv/journal.db", str(tmp_path / "empty"))


def test_the_list_of_this_machine_can_be_read(tmp_path):
    """Whatever it says of a temporary directory."""
    assert waits_for_others(str(tmp_path)) in (True, False)
