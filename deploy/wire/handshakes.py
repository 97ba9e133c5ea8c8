"""Whether the two sides of a connection accept each other's keys. ZeroMQ tries on in silence, so
whoever connects listens to what its socket says of handshakes."""

import contextlib
import struct

import zmq

from loopdit.deploy.messages import ErrorCode, WireError

_FAILURES = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
# A server that is being stopped fails a handshake, too, but not twice in a row.
_FAILURES_TO_BELIEVE = 2
_EVENT = struct.Struct("=H")  # how an event's message begins


class Handshakes:
    """Of a socket that is going to connect to `endpoint`; `secured`: with keys."""

    def __init__(self, socket: "zmq.Socket[bytes]", endpoint: str, secured: bool) -> None:
        self._socket = socket
        self._endpoint = endpoint
        self._secured = secured
        self._monitor = socket.get_monitor_socket(_FAILURES)
        self._failures = 0

    def require_accepted(self) -> None:
        """Raise WireError(HANDSHAKE) where it has been seen that they do not."""
        while self._monitor.poll(0):
            (event,) = _EVENT.unpack_from(self._monitor.recv_multipart()[0])
            # It said so itself; or it wants keys and there are none, or the other way: where this
            # side sees that first, ZeroMQ does not try again, and no second failure comes.
            refused = event in (
                zmq.EVENT_HANDSHAKE_FAILED_AUTH,
                zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
            )
            self._failures += _FAILURES_TO_BELIEVE if refused else 1
        if self._failures < _FAILURES_TO_BELIEVE:
            return
        self._failures = 0
        why = (
            "it does not know this client's key, or server_key= is not its key. Put the NAME.key "
            "of this client into its curve.clients= folder, and take server_key= from its keys."
            if self._secured
            else "it wants to see a key. Make one with: policy-serve keys out=FOLDER name=NAME, "
            "and give keys= and server_key=."
        )
        raise WireError(ErrorCode.HANDSHAKE, f"{self._endpoint} refuses this client: {why}")

    def close(self) -> None:
        """Listen no more; before the socket is closed."""
        with contextlib.suppress(zmq.ZMQError):
            self._socket.disable_monitor()
        self._monitor.close(linger=0)
