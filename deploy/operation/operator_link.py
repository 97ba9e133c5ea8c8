"""The operator's line to a server: how it is, its emergency stop, its watchdog; from any thread.

The same messages as any client's, over a link within the process or a socket: what they are
answered with comes from the thread that answers robots, so it says whether that one lives. They
need no session. Imports numpy, pyzmq and msgspec only.
"""

import threading
import time
from itertools import count
from typing import TypeVar

from loopdit.deploy.messages import (
    Error,
    ErrorCode,
    Estop,
    EstopAck,
    Message,
    Ping,
    Pong,
    Reset,
    ResetAck,
    WireError,
)
from loopdit.deploy.protocol import decode, encode
from loopdit.deploy.wire.link import Link

_MAX_BYTES = 1 << 16
_Answer = TypeVar("_Answer", Pong, EstopAck, ResetAck)


class OperatorLink:
    """`server` names it in errors. Every call raises WireError: TIMEOUT where no answer comes
    within `timeout_s`, else what it was answered."""

    def __init__(self, link: Link, server: str = "the server", timeout_s: float = 1.0) -> None:
        self._link = link
        self._server = server
        self._timeout_s = timeout_s
        self._seqs = count(1)
        self._lock = threading.Lock()

    def ping(self) -> Pong:
        """How the server is."""
        with self._lock:
            return self._exchange(Ping(next(self._seqs)), Pong)

    def stop(self, pressed: bool, reason: str = "") -> EstopAck:
        """Press the emergency stop, or release it; how it is then."""
        with self._lock:
            return self._exchange(Estop(next(self._seqs), pressed, reason), EstopAck)

    def reset(self) -> ResetAck:
        """Somebody has looked: in control mode, a watchdog's stop is lifted."""
        with self._lock:
            return self._exchange(Reset(next(self._seqs), epoch=0), ResetAck)

    def close(self) -> None:
        """Leave."""
        self._link.close()

    def _exchange(self, message: Message, answer: type[_Answer]) -> _Answer:
        deadline_s = time.monotonic() + self._timeout_s
        if self._link.send(encode(message), deadline_s):
            while (frames := self._link.receive(deadline_s)) is not None:
                reply, _ = decode(frames, _MAX_BYTES)
                if reply.seq != message.seq:  # the answer to a question that was given up
                    continue
                if isinstance(reply, answer):
                    return reply
                if isinstance(reply, Error):
                    raise WireError(reply.code, f"{self._server}: {reply.message}", reply.seq)
        raise WireError(
            ErrorCode.TIMEOUT, f"no answer from {self._server} within {self._timeout_s:g} s."
        )
