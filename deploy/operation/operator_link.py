"""The operator's line to a server: how it is, and its emergency stop, from any thread.

The same messages as any client's, over a link within the process or a socket: what they are
answered with comes from the thread that answers robots, so it says whether that one lives.
"""

import threading
import time
from itertools import count
from typing import TypeVar

from loopdit.deploy.messages import Estop, EstopAck, Ping, Pong
from loopdit.deploy.protocol import decode, encode
from loopdit.deploy.wire.link import Link
from loopdit.errors import ServerError

_MAX_BYTES = 1 << 16
_Answer = TypeVar("_Answer", Pong, EstopAck)


class OperatorLink:
    """Every call raises ServerError where no answer comes within `timeout_s`."""

    def __init__(self, link: Link, timeout_s: float = 1.0) -> None:
        self._link = link
        self._timeout_s = timeout_s
        self._seqs = count(1)
        self._lock = threading.Lock()

    def ping(self) -> Pong:
        """How the server is."""
        with self._lock:
            return self._exchange(Ping(next(self._seqs)), Pong)

    def stop(self, pressed: bool, reason: str) -> EstopAck:
        """Press the emergency stop, or release it; how it is then."""
        with self._lock:
            return self._exchange(Estop(next(self._seqs), pressed, reason), EstopAck)

    def close(self) -> None:
        """Leave."""
        self._link.close()

    def _exchange(self, message: Ping | Estop, answer: type[_Answer]) -> _Answer:
        deadline_s = time.monotonic() + self._timeout_s
        if self._link.send(encode(message), deadline_s):
            while (frames := self._link.receive(deadline_s)) is not None:
                reply, _ = decode(frames, _MAX_BYTES)
                # Another seq: the answer to a question that was given up.
                if isinstance(reply, answer) and reply.seq == message.seq:
                    return reply
        raise ServerError(f"the server does not answer within {self._timeout_s:g} s.")
