"""Which installations a user without rights of its own can run, on real directories."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from logrelay.installation.reachable import is_hidden, obstacle


@pytest.fixture
def tmp_path():
    """A directory that everybody may pass, on the way to which everything may be passed: pytest's own is closed."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def program(tmp_path):
    (tmp_path / "venv" / "bin").mkdir(parents=True, mode=0o755)
    path = tmp_path / "venv" / "bin" / "python"
    path.write_text("")
    path.chmod(0o755)
    return path


def look(path):
    return obstacle([str(path)], hidden=lambda _step: False)


def test_a_program_that_everybody_can_read_is_fine(program, tmp_path):
    """Also through a link."""
    (tmp_path / "link").symlink_to("venv/bin/../bin/python")

    assert look(program) is None
    assert look(tmp_path / "link") is None


def test_a_directory_on_the_way_that_is_closed_is_named(program, tmp_path):
    """The one that keeps others out, with its mode; also behind a link."""
    (tmp_path / "link").symlink_to(program)
    (tmp_path / "venv").chmod(0o700)

    for path in (program, tmp_path / "link"):
        assert f"{tmp_path / 'venv'} has mode 0700" in look(path)


def test_a_file_that_is_closed_or_missing_is_named(program, tmp_path):
    """A module that only root can read stops the service as well."""
    program.chmod(0o640)
    assert f"{program} has mode 0640" in look(program)
    program.unlink()
    assert f"{program} cannot be looked at: No such file" in look(program)


@pytest.mark.parametrize(
    ("path", "hidden"), [("/root", True), ("/root/x", True), ("/home/eve/v", True), ("/rooted", False), ("/opt", False)]
)
def test_what_the_units_hide_is_known(path, hidden):
    """ProtectHome= and PrivateTmp= hide whole directories, whatever their modes."""
    assert is_hidden(path) == hidden
    assert (obstacle([path], hidden=is_hidden) is not None and "service may not see" in obstacle([path])) == hidden
