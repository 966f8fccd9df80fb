"""Reading a config file: nothing is waited for but at the start, and nothing is endless."""

from __future__ import annotations

import os
from threading import Thread

import pytest

from logrelay.config_file import MOST_BYTES, read_config_file


def test_a_regular_file_is_read_always(tmp_path):
    """Up to the bound."""
    path = tmp_path / "r.toml"
    for content in (b"", b"port = 1\n", b"#" * MOST_BYTES):
        path.write_bytes(content)
        assert [read_config_file(str(path), regular_only=regular) for regular in (True, False)] == [content] * 2
    path.write_bytes(b"#" * (MOST_BYTES + 1))
    with pytest.raises(OSError, match="more than 1 MiB"):
        read_config_file(str(path), regular_only=True)


def test_a_pipe_is_read_at_the_start_and_refused_later(tmp_path):
    """Nobody writes into it when it is refused: waiting would be for ever."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (str(pipe), "/dev/null", "/dev/zero"):
        with pytest.raises(OSError, match="no regular file"):
            read_config_file(path, regular_only=True)
    writer = Thread(target=pipe.write_bytes, args=(b"port = 1\n",))
    writer.start()
    assert read_config_file(str(pipe), regular_only=False) == b"port = 1\n"
    writer.join()
    assert read_config_file("/dev/null", regular_only=False) == b""
    with pytest.raises(OSError, match="more than 1 MiB"):
        read_config_file("/dev/zero", regular_only=False)


def test_a_directory_is_no_file_of_settings(tmp_path):
    """In either way."""
    for regular in (True, False):
        with pytest.raises(OSError):
            read_config_file(str(tmp_path), regular_only=regular)
