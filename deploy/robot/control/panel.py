"""The buttons of a server: emergency stop, release, reset. For a person, or a program that watches.

    python -m loopdit.deploy.robot.control.panel stop
    python -m loopdit.deploy.robot.control.panel release tcp://127.0.0.1:5555

`stop` and `release` work in both modes of `policy-serve`, `reset` lifts a watchdog's stop in
control mode. Imports numpy, pyzmq and msgspec only.
"""

import sys
import time
from typing import TypeVar

import zmq

from loopdit.deploy.messages import (
    Error,
    ErrorCode,
    Estop,
    EstopAck,
    Message,
    Reset,
    ResetAck,
    WireError,
)
from loopdit.deploy.protocol import decode, encode
from loopdit.errors import LoopditError

DEFAULT_ADDRESS = "tcp://127.0.0.1:5555"

Answer = TypeVar("Answer", EstopAck, ResetAck)


class Panel:
    """A connection to a server. Raises WireError (TIMEOUT) where none answers within `timeout_s`:
    then nothing is known, and the robot's own button is the one to press."""

    def __init__(self, address: str = DEFAULT_ADDRESS, timeout_s: float = 1.0) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._seq = 0
        self._socket = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.IPV6, int("[" in address))
        self._socket.connect(address)

    def __enter__(self) -> "Panel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def stop(self, reason: str) -> EstopAck:
        """Press the emergency stop."""
        return self._ask(Estop(self._next(), True, reason), EstopAck)

    def release(self) -> EstopAck:
        """Release it: robots may move again."""
        return self._ask(Estop(self._next(), False), EstopAck)

    def reset(self) -> ResetAck:
        """Somebody has looked: a watchdog's stop is lifted."""
        return self._ask(Reset(self._next(), epoch=0), ResetAck)

    def close(self) -> None:
        """Free the socket."""
        self._socket.close()

    def _next(self) -> int:
        self._seq += 1
        return self._seq

    def _ask(self, message: Message, answer: type[Answer]) -> Answer:
        self._socket.send_multipart(encode(message))
        deadline_s = time.monotonic() + self._timeout_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            if not self._socket.poll(round(left_s * 1e3) + 1):
                break
            reply, _ = decode(self._socket.recv_multipart(), 0)
            if reply.seq != message.seq:
                continue
            if isinstance(reply, Error):
                raise WireError(reply.code, f"{self._address}: {reply.message}", reply.seq)
            if isinstance(reply, answer):
                return reply
        raise WireError(
            ErrorCode.TIMEOUT,
            f"no answer from {self._address} within {self._timeout_s:g} s. Press the robot's own "
            f"button.",
        )


def main() -> None:
    """`stop`, `release` or `reset`, and an address where it is not the usual one."""
    usage = "panel: error: say stop, release or reset, and maybe the server's address."
    if not 2 <= len(sys.argv) <= 3:
        sys.exit(usage)
    address = sys.argv[2] if len(sys.argv) == 3 else DEFAULT_ADDRESS
    try:
        with Panel(address) as panel:
            match sys.argv[1]:
                case "stop":
                    done = panel.stop("the panel")
                case "release":
                    done = panel.release()
                case "reset":
                    done = panel.reset()
                case _:
                    sys.exit(usage)
    except LoopditError as error:
        sys.exit(f"panel: error: {error}")
    sys.stdout.write(f"{sys.argv[1]}: {done}\n")


if __name__ == "__main__":
    main()
