"""The client's side of shared memory: see `lanes.py`.

The memory has a few slots, taken in turn, each with room for one observation. So an observation
that waits or is computed is not written over by the next ones, unless its request was given up.
"""

import array
import fcntl
import math
import mmap
import os
import select
import socket
import time
from collections.abc import Sequence

import numpy as np

from loopdit.deploy.messages import ErrorCode, WireError
from loopdit.deploy.protocol import Frame
from loopdit.deploy.wire.lane_datagram import (
    INLINE,
    MAX_DATAGRAM_BYTES,
    MAX_INLINE_BYTES,
    pack,
    unpack,
)

AVAILABLE = hasattr(os, "memfd_create")
_SLOTS = 4
_ALIGN = 64  # of each frame: a cache line, and more than any element needs
_INTRODUCTION_S = 1.0
_SPARE_BYTES = 64 * 1024  # for what an observation may have beside the spec's tensors
_NO_MEMORY = memoryview(b"")


class LaneLink:
    """A lane to the server that said `address` in its WELCOME, for observations of at most
    `max_tensors` tensors of `max_bytes` together.

    Raises OSError where it is not to be had: the server is elsewhere, or another user's.
    """

    def __init__(self, address: str, max_bytes: int, max_tensors: int) -> None:
        name, _, token = address.partition("/")
        self._slot_bytes = _aligned(max_bytes + max_tensors * _ALIGN + _SPARE_BYTES)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._socket.settimeout(_INTRODUCTION_S)
            self._socket.connect(f"\0{name}")
            memory = _sealed_memory(_SLOTS * self._slot_bytes)
            try:
                self._memory = mmap.mmap(memory, _SLOTS * self._slot_bytes)
                descriptors = array.array("i", [memory])
                beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)]
                self._socket.sendmsg([bytes.fromhex(token)], beside)
            finally:
                os.close(memory)
            if self._socket.recv(1) != b"\1":
                raise ConnectionRefusedError("the server does not let this client in")
        except (OSError, ValueError) as error:
            self._socket.close()
            raise OSError(str(error)) from error
        self._bytes = np.frombuffer(self._memory, np.uint8)
        self._next_slot = 0
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def send(self, frames: Sequence[Frame], deadline_s: float) -> bool:
        """Whether the server has room for it, by `deadline_s` (monotonic)."""
        header, *tensors = frames
        at = self._next_slot * self._slot_bytes
        end = at + self._slot_bytes
        self._next_slot = (self._next_slot + 1) % _SLOTS
        places: list[tuple[int, int]] = []
        inline: list[Frame] = []
        for frame in tensors:
            size = memoryview(frame).nbytes
            if size <= MAX_INLINE_BYTES:
                places.append((INLINE, size))
                inline.append(frame)
            elif at + size > end:
                raise WireError(
                    ErrorCode.TOO_BIG, f"more than the {self._slot_bytes} bytes of an observation."
                )
            else:
                self._bytes[at : at + size] = np.frombuffer(frame, np.uint8)
                places.append((at, size))
                at = _aligned(at + size)
        try:
            self._socket.settimeout(max(1e-3, deadline_s - time.monotonic()))
            self._socket.send(pack(header, places, inline))
        except TimeoutError:
            return False
        except OSError as error:
            raise WireError(ErrorCode.CLOSING, f"its lane ended: {error.strerror}") from None
        return True

    def has_message(self) -> bool:
        """Whether one is there now, or the lane has ended."""
        return bool(self._poll.poll(0))

    def receive(self, deadline_s: float) -> Sequence[Frame] | None:
        """The frames of the next message; None where there is none by `deadline_s` (monotonic).

        Raises WireError: CLOSING when the server is gone, MALFORMED.
        """
        left_s = deadline_s - time.monotonic()
        try:
            self._socket.settimeout(max(0.0, left_s))
            datagram = self._socket.recv(MAX_DATAGRAM_BYTES)
        except (TimeoutError, BlockingIOError):
            return None
        except OSError:
            datagram = b""
        if not datagram:
            raise WireError(ErrorCode.CLOSING, "the server is gone: its lane ended.")
        return unpack(datagram, _NO_MEMORY)

    def close(self, linger_s: float = 0.0) -> None:
        """Free the memory; what was sent has arrived."""
        self._socket.close()


def _aligned(size: int) -> int:
    return math.ceil(size / _ALIGN) * _ALIGN


def _sealed_memory(size: int) -> int:
    """The descriptor of a memory that nobody can cut short: a server would die of reading it."""
    memory = os.memfd_create("loopdit", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(memory, size)
    fcntl.fcntl(
        memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    )
    return memory
