"""The file of the tokens: how it is read, changed and guarded.

Owns: the file's form and version, its safety (who may own it, who may read it, no links), and changes that are whole or
not at all. It must not know who shows tokens. Blocks; for a command, or at a start and where the file has changed.
Read `access/token_use` next.

    {"version":1,"tokens":[{"name":"phone","id":"...","sha256":"...","created":1769162400,"expires":null,
                            "level":"INFO","app":["scalper*"],"source":[]}]}

What is not understood is refused as a whole, an unknown key too: it could be a limit that a newer version made.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from logrelay.access.tokens import DIGEST_BYTES, MAX_TOKENS, Token, check_name, parse_limit
from logrelay.errors import ConfigError, TokenFileError
from logrelay.fanout.filters import LEVEL_NAMES
from logrelay.model import RANKS

VERSION = 1
"""Of the file's form. A higher one is refused."""

MAX_BYTES = 4 << 20
"""Of a file that is read: the most that `MAX_TOKENS` with all their globs can take, and room."""

MODE = 0o600
LOCK_WAIT_S = 5.0
"""How long a command waits for another one that changes the file, which takes milliseconds."""
LOCK_STEP_S = 0.02

_KEYS = {"name", "id", "sha256", "created", "expires", "level", "app", "source"}
_NAMES = {RANKS[name.lower()]: name for name in LEVEL_NAMES}

Signature = tuple[int, int, int, int]
"""What changes when a file is replaced or written to: inode, size, times of the last change and of the last status."""


def signature(path: str) -> Signature | None:
    """Return what tells one state of the file from another; None: there is none to be seen."""
    try:
        status = Path(path).lstat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def read_tokens(path: str) -> tuple[Token, ...] | None:
    """Return the tokens of a file; None: there is no file.

    Raises TokenFileError for whatever is not a whole, private file of a version that is known: nobody is let in by a
    file that is not understood.
    """
    data = read_private(path)
    return None if data is None else _parsed(path, data)


def change_tokens(path: str, change: Callable[[tuple[Token, ...]], tuple[Token, ...]]) -> tuple[Token, ...]:
    """Have the file hold what `change` makes of its tokens, and return that.

    One command at a time; a relay that reads meanwhile sees the old file or the new one. `change` may raise, and then
    nothing is written. Raises TokenFileError.
    """
    directory = Path(path).parent
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(directory):
            tokens = change(read_tokens(path) or ())
            write_private(path, _rendered(tokens))
    except OSError as error:
        raise TokenFileError(
            f"the token file {path} cannot be written: {error.strerror or error}; run this as the user of the relay, "
            "or as root"
        ) from error
    return tokens


def read_private(path: str) -> bytes | None:
    """Return the bytes of a file that only its owner may read or write; None: there is none. Raises TokenFileError."""
    try:
        # O_NONBLOCK: whatever lies there, a pipe too, must not keep us waiting.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        hint = "it is a symbolic link, which is not followed" if error.errno == errno.ELOOP else error.strerror
        raise TokenFileError(f"the token file {path} cannot be read: {hint}") from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise TokenFileError(f"the token file {path} is no regular file; move away what is there")
        if status.st_uid not in _trusted_owners(path):
            raise TokenFileError(
                f"the token file {path} belongs to another user (uid {status.st_uid}), who could put tokens into it; "
                "it has to belong to the user of the relay or to root"
            )
        if status.st_mode & 0o077:
            raise TokenFileError(
                f"others may read or write the token file {path} (mode {stat.S_IMODE(status.st_mode):04o}): chmod 600"
            )
        chunks, size = [], 0
        while chunk := os.read(fd, MAX_BYTES + 1):
            chunks.append(chunk)
            size += len(chunk)
            if size > MAX_BYTES:
                raise TokenFileError(f"the token file {path} is longer than {MAX_BYTES >> 20} MiB: it is none of ours")
        return b"".join(chunks)
    except OSError as error:
        raise TokenFileError(f"the token file {path} cannot be read: {error.strerror or error}") from error
    finally:
        os.close(fd)


def write_private(path: str, data: bytes) -> None:
    """Put `data` in the place of a file, whole or not at all, readable by its owner alone. Raises OSError.

    Written by root, the file belongs to whom the one before did, else to the owner of the directory: to the relay's
    user, who has to be able to read it.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)
    try:
        with os.fdopen(fd, "wb") as file:
            if os.geteuid() == 0:
                owner = _owner(target)
                os.fchown(fd, owner.st_uid, owner.st_gid)
            os.fchmod(fd, MODE)
            file.write(data)
            file.flush()
            os.fsync(fd)
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_directory(target.parent)


def _trusted_owners(path: str) -> set[int]:
    """Return who may own the file: we, root, and for root also the owner of the directory, the user of the relay."""
    mine = os.geteuid()
    return {0, mine} if mine else {0, Path(path).parent.stat().st_uid}


def _owner(target: Path) -> os.stat_result:
    """Return the status of the regular file that is there, else of its directory."""
    with contextlib.suppress(OSError):
        status = target.lstat()
        if stat.S_ISREG(status.st_mode):
            return status
    return target.parent.stat()


def _sync_directory(directory: Path) -> None:
    """Have a rename last through a power cut."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the lock of all who change the file. It lies on the directory, so that no file is left behind."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        end = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise TokenFileError(
                        f"another command has been changing the tokens in {directory} for {LOCK_WAIT_S:.0f} s; "
                        "try again when it has ended"
                    ) from None
            time.sleep(LOCK_STEP_S)
        yield
    finally:
        os.close(fd)


def _rendered(tokens: tuple[Token, ...]) -> bytes:
    rows = [
        {
            "name": token.name,
            "id": token.id,
            "sha256": token.digest.hex(),
            "created": token.created_s,
            "expires": token.expires_s,
            "level": _NAMES[token.limit.level],
            "app": list(token.limit.apps),
            "source": list(token.limit.sources),
        }
        for token in tokens
    ]
    return json.dumps({"version": VERSION, "tokens": rows}, indent=1).encode() + b"\n"


def _parsed(path: str, data: bytes) -> tuple[Token, ...]:
    try:
        shape = json.loads(data)
    except (ValueError, RecursionError):
        raise _damaged(path, "it is not JSON") from None
    if not isinstance(shape, dict) or not isinstance(shape.get("version"), int):
        raise _damaged(path, "it has no version")
    if shape["version"] != VERSION:
        raise TokenFileError(
            f"the token file {path} has version {shape['version']}, and this logrelay knows version {VERSION} only; "
            "use the logrelay that made it"
        )
    rows = shape.get("tokens")
    if not isinstance(rows, list) or shape.keys() != {"version", "tokens"}:
        raise _damaged(path, "it has no list of tokens, or more than that")
    if len(rows) > MAX_TOKENS:
        raise _damaged(path, f"it has {len(rows)} tokens; at most {MAX_TOKENS} are allowed")
    tokens = tuple(_token(path, number, row) for number, row in enumerate(rows, 1))
    for field in ("name", "digest", "id"):
        if len({getattr(token, field) for token in tokens}) < len(tokens):
            raise _damaged(path, f"two tokens have the same {field}")
    return tokens


def _token(path: str, number: int, row: object) -> Token:
    def wrong(what: str) -> TokenFileError:
        return _damaged(path, f"token {number}: {what}")

    if not isinstance(row, dict) or row.keys() != _KEYS:
        raise wrong(f"it does not have exactly the keys {', '.join(sorted(_KEYS))}")
    texts = (row["name"], row["id"], row["sha256"], row["level"])
    if not all(isinstance(text, str) for text in texts) or not row["id"]:
        raise wrong("name, id, sha256 or level is no text")
    for key in ("app", "source"):
        if not isinstance(row[key], list) or not all(isinstance(glob, str) for glob in row[key]):
            raise wrong(f"{key} is no list of texts")
    for key, may_miss in (("created", False), ("expires", True)):
        if type(row[key]) is not int and not (may_miss and row[key] is None):
            raise wrong(f"{key} is no whole number of seconds since 1970")
    try:
        digest = bytes.fromhex(row["sha256"])
        name = check_name(row["name"])
        limit = parse_limit(row["level"], row["app"], row["source"])
    except (ValueError, ConfigError) as error:
        raise wrong(str(error)) from None
    if len(digest) != DIGEST_BYTES:
        raise wrong("sha256 does not have 32 bytes")
    return Token(name, digest, row["id"], limit, row["created"], row["expires"])


def _damaged(path: str, what: str) -> TokenFileError:
    return TokenFileError(
        f"the token file {path} is damaged, so no token of it is taken: {what}; restore it, or move it away and make "
        "the tokens anew"
    )
