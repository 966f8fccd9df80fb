"""The traders' door: a Unix socket, its connections, and the rhythm in which they are read.

Owns: the listening socket and its file, the wire protocol's connections, coalesced reading and acks. It must not
know the journal, the hub or the viewers: what arrives goes to an `Intake`. Read `wire` next for the bytes, then
`traders` for what becomes of the frames.

`asyncio.Protocol` and not streams, for a reason: when a trader is killed while acks to it are unread, the kernel
reports ECONNRESET after the last byte, and a StreamReader then throws away what it had already read.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
import sys
from asyncio import BaseEventLoop
from pathlib import Path
from typing import Any, Protocol, cast

from logrelay.errors import ListenError
from logrelay.ingest import frames as wire
from logrelay.ingest.read_coalescing import rest_after

MAX_PATH_BYTES = 107
"""sun_path in unix(7) has 108 bytes, the last one NUL."""

BACKLOG = 1024
"""Traders waiting to be accepted; a connect beyond it fails at once with EAGAIN and is tried again."""

HELLO_TIMEOUT_S = 10.0
"""A connection that says nothing holds a place among `max_traders`."""

ACK_INTERVAL_S = 0.020
"""An ack wakes a thread in the trader. Twenty milliseconds of unacked lines cost it a few kilobytes;
fifty wake-ups a second cost it nothing that can be measured."""

PRIVATE_MODE = 0o700
"""In a directory such as /tmp anybody may have made ours before us: it has to be ours, and nobody else's to write."""
ACK_RETRY_S = 0.5
"""Pause before an ack is tried again for which a trader's socket had no room."""

SOCKET_MODE = 0o660
DIRECTORY_MODE = 0o750
"""Made only when missing: the trader's group may pass, others not."""


class Intake(Protocol):
    """Who the frames are for. Called on the event loop."""

    def hello(self, connection: Connection, hello: wire.Hello) -> int:
        """Return the seq of the run that is in the journal; it goes out in the welcome."""

    def frames(self, connection: Connection, frames: list[wire.Frame]) -> list[bytes]:
        """Take frames; return answers to send."""

    def refused(self, connection: Connection, reason: str) -> None:
        """The connection sent something unusable and is being closed."""

    def ended(self, connection: Connection) -> None:
        """The connection is over, after its last frames."""

    def tick(self) -> int:
        """Everything that was readable has been read: commit it. Returns how many viewers it will go to."""


class Connection(asyncio.Protocol):
    """One trader's connection."""

    __slots__ = (
        "_ack_timer",
        "_ack_wanted",
        "_acked",
        "_decoder",
        "_door",
        "_fd",
        "_hello_timer",
        "greeted",
        "transport",
    )

    def __init__(self, door: Ingest) -> None:
        self._door = door
        self._decoder = wire.Decoder()
        self._hello_timer: asyncio.TimerHandle | None = None
        self._ack_timer: asyncio.TimerHandle | None = None
        self._ack_wanted = 0
        self._acked = 0
        self.greeted = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit the connection, or refuse it when there are too many."""
        transport = cast("asyncio.Transport", transport)  # uvloop has classes of its own
        self.transport = transport
        self._fd: int = transport.get_extra_info("socket").fileno()
        door = self._door
        if len(door.connections) >= door.max_connections or door.closing:
            self._turn_away(
                f"{len(door.connections)} traders are connected; at most {door.max_connections} are allowed"
            )
            return
        door.connections[self] = None
        self._hello_timer = door.loop.call_later(HELLO_TIMEOUT_S, self._turn_away, "no hello came")

    def data_received(self, data: bytes) -> None:
        """Decode at once, so that no later error of the socket can take the bytes away; then let it rest."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        frames = self._decoder.receive(data)
        if not self.greeted:
            if not frames:
                return
            first = frames.pop(0)
            if not isinstance(first, wire.Hello):
                reason = first.reason if isinstance(first, wire.Broken) else "the first frame must be hello"
                self._door.intake.refused(self, reason)
                self._door.read_some(self, 0)
                self.refuse(reason)
                return
            self._greet(first)
        broken = frames[-1] if frames and isinstance(frames[-1], wire.Broken) else None
        if broken:
            frames.pop()
        if any(type(frame) is wire.Hello for frame in frames):
            frames = [frame for frame in frames if type(frame) is not wire.Hello]
        if frames:
            answers = self._door.intake.frames(self, frames)
            for answer in answers:
                self._answer(answer)
        if broken:
            self._door.intake.refused(self, broken.reason)
        self._door.read_some(self, len(data))
        if broken:
            self.refuse(broken.reason)

    def _greet(self, hello: wire.Hello) -> None:
        if self._hello_timer is not None:
            self._hello_timer.cancel()
        acked = self._door.intake.hello(self, hello)
        self.greeted = True
        self._acked = self._ack_wanted = acked
        self._answer(wire.welcome(acked))

    def _answer(self, data: bytes) -> bool:
        """Send a small answer past the transport's buffer; never closes the connection, whatever happens.

        A transport that meets EPIPE closes itself, together with what a killed trader had sent and we had not read
        yet. Here the error is left for the reading side, which gets every byte first. An answer the socket has no
        room for is dropped: the trader does not read, and the next ack says everything an earlier one said.
        """
        if self.transport is None:
            return False
        try:
            return os.write(self._fd, data) == len(data)
        except OSError:
            return False

    def ack(self, seq: int, *, now: bool) -> None:
        """Tell the trader that everything up to `seq` is kept; at most once in ACK_INTERVAL_S unless `now`."""
        if seq <= self._ack_wanted and not now:
            return
        self._ack_wanted = max(self._ack_wanted, seq)
        if now:
            self._send_ack()
        elif self._ack_timer is None:
            # The first ack waits too: the lines right behind it are then acked by the same wake-up.
            self._ack_timer = self._door.loop.call_later(ACK_INTERVAL_S, self._send_ack)

    def _send_ack(self) -> None:
        if self._ack_timer is not None:
            self._ack_timer.cancel()
            self._ack_timer = None
        transport = self.transport
        if self._ack_wanted <= self._acked or transport is None or transport.is_closing():
            return
        if self._answer(wire.ack(self._ack_wanted)):
            self._acked = self._ack_wanted
        else:
            # It reads no acks now; when it does, perhaps nothing else will be committed to remind us.
            self._ack_timer = self._door.loop.call_later(ACK_RETRY_S, self._send_ack)

    def _turn_away(self, reason: str) -> None:
        if not self._door.closing:
            self._door.intake.refused(self, reason)
            self._door.schedule_tick()
        self.refuse(reason)

    def refuse(self, reason: str) -> None:
        """Answer refused and close."""
        if self.transport is not None and not self.transport.is_closing():
            self._answer(wire.refused(reason))
            self.transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self.transport is not None:
            self.transport.abort()

    def pause(self) -> None:
        """Leave the socket alone."""
        if self.transport is not None and not self.transport.is_closing() and self.transport.is_reading():
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read the socket again."""
        if self.transport is not None and not self.transport.is_closing() and not self.transport.is_reading():
            self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (the end is the end)
        """Report the end."""
        for timer in (self._hello_timer, self._ack_timer):
            if timer is not None:
                timer.cancel()
        self._hello_timer = self._ack_timer = None
        known = self._door.connections.pop(self, self) is None
        self._door.resting.pop(self, None)
        self.transport = None
        if known and self.greeted:
            self._door.intake.ended(self)
        self._door.schedule_tick()


class Ingest:
    """Listens, and calls `intake.tick()` once for all that was readable at a time."""

    def __init__(self, intake: Intake, *, max_connections: int, loop: asyncio.AbstractEventLoop) -> None:
        self.intake = intake
        self.max_connections = max_connections
        self.loop = loop
        self.connections: dict[Connection, None] = {}
        self.resting: dict[Connection, None] = {}
        """Connections whose socket is left alone until the rest is over."""
        self.closing = False
        self._server: asyncio.AbstractServer | None = None
        self._path: Path | None = None
        self._inode: tuple[int, int] | None = None
        self._tick_handle: asyncio.Handle | None = None
        self._rest_timer: asyncio.TimerHandle | None = None
        self._read_bytes = 0
        self._held = False

    # --- the rhythm --------------------------------------------------------------------------------------------

    def read_some(self, connection: Connection, size: int) -> None:
        """A connection was read: let it rest, and tick once the loop has been round all that is readable."""
        self._read_bytes += size
        connection.pause()
        self.resting[connection] = None
        self.schedule_tick()

    def schedule_tick(self) -> None:
        """Call `intake.tick` soon, once."""
        if self._tick_handle is None:
            self._tick_handle = self.loop.call_soon(self._tick)

    def _tick(self) -> None:
        self._tick_handle = None
        read, self._read_bytes = self._read_bytes, 0
        viewers = self.intake.tick()
        if self._rest_timer is None and not self._held and self.resting:
            rest = rest_after(read, viewers)
            if rest > 0:
                self._rest_timer = self.loop.call_later(rest, self._wake)
            else:
                self._wake()

    def _wake(self) -> None:
        self._rest_timer = None
        if self._held:
            return
        resting, self.resting = self.resting, {}
        for connection in resting:
            connection.resume()

    def pause_reading(self) -> None:
        """Read nothing until `resume_reading`: there is no room for more lines. Traders keep theirs."""
        if not self._held:
            self._held = True
            for connection in self.connections:
                connection.pause()
                self.resting[connection] = None

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""
        if self._held:
            self._held = False
            if self._rest_timer is None:
                self._wake()

    # --- the door ----------------------------------------------------------------------------------------------

    async def listen(self, path: str) -> None:
        """Open the socket at `path`, with mode 0660. Raises ListenError."""
        sock = self._bind(Path(path))
        await self.adopt(sock)

    async def adopt(self, sock: socket.socket) -> None:
        """Serve a listening socket that was passed in (socket activation); its file is not ours to remove."""
        # From 3.13 on asyncio removes the file by itself; ours is removed by `_unlink`, an inherited one by nobody.
        keep: Any = {}
        if sys.version_info >= (3, 13) and isinstance(self.loop, BaseEventLoop):
            keep = {"cleanup_socket": False}
        self._server = await self.loop.create_unix_server(lambda: Connection(self), sock=sock, backlog=BACKLOG, **keep)

    def _bind(self, path: Path) -> socket.socket:
        raw = os.fsencode(path)
        if len(raw) > MAX_PATH_BYTES:
            raise ListenError(
                f"socket path is {len(raw)} bytes long, at most {MAX_PATH_BYTES} are possible: {path}; "
                "choose a shorter one with --socket"
            )
        self._make_directory(path.parent)
        self._remove_stale(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # The file must never be there with a wider mode, not even for an instant.
        mask = os.umask(0o777 & ~SOCKET_MODE)
        try:
            sock.bind(str(path))
        except OSError as error:
            sock.close()
            raise _listen_error(f"cannot open the log socket {path}", error) from error
        finally:
            os.umask(mask)
        sock.setblocking(False)
        self._path = path
        status = path.stat()
        self._inode = (status.st_dev, status.st_ino)
        return sock

    @staticmethod
    def _make_directory(directory: Path) -> None:
        """Make the socket's directory; in a place where everybody may make one, insist that only we may write to it."""
        try:
            above = directory.parent.stat() if directory.parent.is_dir() else None
            public = above is not None and bool(above.st_mode & stat.S_ISVTX)
            directory.mkdir(mode=PRIVATE_MODE if public else DIRECTORY_MODE, parents=True, exist_ok=True)
            made = directory.lstat() if public else directory.stat()
        except OSError as error:
            raise _listen_error(f"cannot make the directory {directory} for the log socket", error) from error
        if public and (not stat.S_ISDIR(made.st_mode) or made.st_uid not in (os.geteuid(), 0) or made.st_mode & 0o022):
            raise ListenError(
                f"others may write to the directory {directory}, so somebody else could take the log socket's place; "
                "remove it, make it mode 0700, or choose another place with --socket"
            )

    @staticmethod
    def _remove_stale(path: Path) -> None:
        """Remove what a dead relay left behind; refuse to take the place of a live one or of another kind of file."""
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            return
        except OSError as error:
            raise _listen_error(f"cannot look at {path}", error) from error
        if not stat.S_ISSOCK(mode):
            raise ListenError(f"{path} exists and is not a socket; remove it or choose another place with --socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(str(path))
            except (ConnectionRefusedError, FileNotFoundError):
                pass
            except BlockingIOError:
                raise _in_use(path) from None
            except OSError as error:
                raise _listen_error(f"cannot tell whether {path} is in use", error) from error
            else:
                raise _in_use(path)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise _listen_error(f"cannot remove the stale log socket {path}", error) from error

    async def drain(self) -> None:
        """Stop accepting; read once more whatever traders have already sent, without waiting for more.

        Cancelling leaves some of it unread; the traders keep what is not acked.
        """
        self.closing = True
        if self._server is not None:
            self._server.close()
        self._unlink()
        self.resume_reading()
        if self._rest_timer is not None:
            self._rest_timer.cancel()
            self._rest_timer = None
        for _ in range(_DRAIN_ROUNDS):
            self._wake()
            # One turn lets the selector report what is readable, the next one runs the tick it scheduled.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await asyncio.sleep(_DRAIN_TURN_S)
            if not self.resting:
                break

    def _unlink(self) -> None:
        """Remove the socket's file if it is still the one this relay made."""
        if self._path is None:
            return
        try:
            status = self._path.lstat()
            if (status.st_dev, status.st_ino) == self._inode:
                self._path.unlink()
        except OSError:
            pass  # gone already, or the directory is: nothing is left to clean up
        self._path = None

    async def close(self) -> None:
        """Close every connection, flushing the last acks."""
        self.closing = True
        if self._server is not None:
            self._server.close()
        self._unlink()
        if self._rest_timer is not None:
            self._rest_timer.cancel()
        for connection in list(self.connections):
            connection.ack(0, now=True)
            if connection.transport is not None:
                connection.transport.close()


_DRAIN_ROUNDS = 64
"""At 256 KiB a read this empties more than a socket can hold; a trader that goes on writing must not keep us."""

_DRAIN_TURN_S = 0.002
"""Long enough for the loop to poll its sockets once; a socket with data is then resting again."""


def _in_use(path: Path) -> ListenError:
    return ListenError(f"another relay is listening on {path}; stop it, or give this one another place with --socket")


def _listen_error(what: str, error: OSError) -> ListenError:
    hint = {
        errno.EACCES: "; run as a user who may write there, or choose another place with --socket",
        errno.EROFS: "; choose a writable place with --socket",
        errno.ENOENT: "; create the directory or choose another place with --socket",
    }.get(error.errno or 0, "")
    return ListenError(f"{what}: {error.strerror or error}{hint}")
