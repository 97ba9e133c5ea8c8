"""The server's side of shared memory: lanes, for clients of the same user on the same machine.

A lane is a Unix socket whose datagrams carry the headers, and a memory that the client made, sealed
against shrinking and passed over the socket, in which its frames lie. The kernel frees both when
either side dies, so nothing is ever left to unlink. What lets a client in: it runs as the server's
user (the kernel says so), and knows the token that WELCOME told it over ZeroMQ, where keys and
limits were already checked.
"""

import array
import contextlib
import fcntl
import hmac
import logging
import mmap
import os
import secrets
import select
import socket
import struct
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from loopdit.deploy.messages import ErrorCode, WireError, error
from loopdit.deploy.protocol import Frame, encode
from loopdit.deploy.wire.lane_datagram import INLINE, MAX_DATAGRAM_BYTES, pack, unpack

MAX_LANES = 256
MAX_MEMORY_BYTES = 1 << 30
TOKEN_BYTES = 16
AVAILABLE = hasattr(os, "memfd_create")  # on Linux
_LOG = logging.getLogger(__name__)
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


@dataclass
class _Lane:
    number: int
    socket: socket.socket
    memory: memoryview | None = None  # not yet, until it was introduced


class Lanes:
    """The lanes of one server, each by a number of its own. `address` is what WELCOME says."""

    def __init__(self) -> None:
        self._token = secrets.token_bytes(TOKEN_BYTES)
        name = f"loopdit-{secrets.token_hex(8)}"
        self.address = f"{name}/{self._token.hex()}"
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._door.setblocking(False)
        self._door.bind(f"\0{name}")
        self._door.listen(16)
        self._poll = select.epoll()
        self._poll.register(self._door, select.EPOLLIN)
        # Numbered anew, not by descriptor: those are used again, and an answer that was still
        # under way would reach another client.
        self._lanes: dict[int, _Lane] = {}
        self._of_descriptor: dict[int, _Lane] = {}
        self._last_number = 0

    def fileno(self) -> int:
        """A descriptor that is readable when `receive` has something to do."""
        return self._poll.fileno()

    def receive(self) -> Generator[tuple[int, Sequence[Frame]]]:
        """The next message of each lane that has one, with the lane's number. One without frames
        says that the lane has ended."""
        for descriptor, _ in self._poll.poll(0):
            lane = self._of_descriptor.get(descriptor)
            if lane is None:
                self._accept()
            elif lane.memory is None:
                self._introduce(lane)
            else:
                frames = self._next_message(lane, lane.memory)
                if frames is not None:
                    yield lane.number, frames

    def send(self, number: int, frames: Sequence[Frame]) -> bool:
        """Whether it was taken: not by a lane that is gone or does not read."""
        lane = self._lanes.get(number)
        if lane is None:
            return False
        header, *tensors = frames
        places = [(INLINE, memoryview(frame).nbytes) for frame in tensors]
        try:
            lane.socket.send(pack(header, places, tensors))
        except OSError:
            self._end(lane)
            return False
        return True

    def close(self) -> None:
        """End all of them."""
        for lane in list(self._lanes.values()):
            self._end(lane)
        self._door.close()
        self._poll.close()

    def _next_message(self, lane: _Lane, memory: memoryview) -> Sequence[Frame] | None:
        try:
            datagram = lane.socket.recv(MAX_DATAGRAM_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            datagram = b""
        if not datagram:
            self._end(lane)
            return ()
        try:
            return unpack(datagram, memory)
        except WireError as fault:
            self.send(lane.number, encode(error(fault.code, str(fault), 0)))
            return None

    def _end(self, lane: _Lane) -> None:
        """Its memory goes when nobody looks at a frame in it any more."""
        del self._lanes[lane.number]
        del self._of_descriptor[lane.socket.fileno()]
        lane.socket.close()

    def _accept(self) -> None:
        try:
            lane, _ = self._door.accept()
        except OSError:
            return
        raw = lane.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, user, _ = _CREDENTIALS.unpack(raw)
        if user not in (0, os.geteuid()) or len(self._lanes) >= MAX_LANES:
            lane.close()
            return
        lane.setblocking(False)
        self._last_number += 1
        accepted = _Lane(self._last_number, lane)
        self._lanes[accepted.number] = self._of_descriptor[lane.fileno()] = accepted
        self._poll.register(lane, select.EPOLLIN)

    def _introduce(self, lane: _Lane) -> None:
        """The first datagram: the token, and the memory beside it."""
        try:
            token, descriptors = _receive_with_descriptor(lane.socket)
        except BlockingIOError:
            return
        except OSError:
            token, descriptors = b"", []
        try:
            if not hmac.compare_digest(token, self._token) or len(descriptors) != 1:
                raise WireError(ErrorCode.MALFORMED, "it came without the token or a memory.")
            lane.memory = _map(descriptors[0])
            # Answered, so that the client knows before it sends frames into the dark.
            lane.socket.send(b"\1")
        except (WireError, OSError, ValueError) as fault:
            _LOG.warning("refused a lane of shared memory: %s", fault)
            self._end(lane)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)


def _receive_with_descriptor(lane: socket.socket) -> tuple[bytes, list[int]]:
    room = socket.CMSG_SPACE(array.array("i").itemsize * 4)
    message, ancillary, _, _ = lane.recvmsg(TOKEN_BYTES + 1, room, socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    return message, list(descriptors)


def _map(descriptor: int) -> memoryview:
    """A memory for reading. Raises WireError unless it cannot shrink: reading what was cut off
    would kill this process."""
    seals = 0
    with contextlib.suppress(OSError):  # no memfd at all
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    if not seals & fcntl.F_SEAL_SHRINK:
        raise WireError(ErrorCode.MALFORMED, "its memory is not sealed against shrinking")
    size = os.fstat(descriptor).st_size
    if not 0 < size <= MAX_MEMORY_BYTES:
        raise WireError(ErrorCode.TOO_BIG, f"its memory has {size} bytes")
    return memoryview(mmap.mmap(descriptor, size, prot=mmap.PROT_READ))
