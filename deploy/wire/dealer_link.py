"""The client's ZeroMQ socket: connecting, sending, waiting, and why a handshake failed."""

import contextlib
import struct
import time
from collections.abc import Sequence

import zmq

from loopdit.deploy.messages import ErrorCode, WireError
from loopdit.deploy.protocol import MAX_HEADER_BYTES, Frame
from loopdit.deploy.security.curve import CurveKeys

MAX_REPLY_BYTES = 16 * 1024 * 1024
_RECONNECT_MS = 50
_RECONNECT_MAX_MS = 500
# See server_lines: room for a whole observation.
_BUFFER_BYTES = 1 << 20
_FAILURES = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
# A server that is being stopped fails a handshake, too, but not twice in a row.
_FAILURES_TO_BELIEVE = 2
_LOOK_MS = 20
# As plain integers: pyzmq's own turn into themselves for microseconds, each time.
_EVENTS, _POLLIN, _NOBLOCK = int(zmq.EVENTS), int(zmq.POLLIN), int(zmq.NOBLOCK)
_RCVTIMEO = int(zmq.RCVTIMEO)
_EVENT = struct.Struct("=H")  # how an event's message begins


class DealerLink:
    """A DEALER that is connected to `endpoint`, with `keys` to the server of `server_key`.

    Raises WireError for what is no endpoint.
    """

    def __init__(self, endpoint: str, keys: CurveKeys | None, server_key: bytes) -> None:
        self._endpoint = endpoint
        self._secured = keys is not None
        # The shared context: one of its own could block for ever when a client is forgotten
        # unclosed.
        self._socket = zmq.Context.instance().socket(zmq.DEALER)
        self._monitor = self._socket.get_monitor_socket(_FAILURES)
        self._failures = 0
        self._heard = False  # of a server: until then, watch the handshakes
        self._socket.setsockopt(zmq.LINGER, 0)
        # Queue only for a live connection: an observation must not wait for a server to be started.
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_REPLY_BYTES + MAX_HEADER_BYTES)
        self._socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS)
        self._socket.setsockopt(zmq.SNDBUF, _BUFFER_BYTES)
        # Only where it is meant: "localhost" must find a server on 127.0.0.1.
        self._socket.setsockopt(zmq.IPV6, int("[" in endpoint))
        if keys is not None:
            keys.secure_client(self._socket, server_key)
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise WireError(
                ErrorCode.TIMEOUT,
                f"{endpoint!r} is not an address to connect to ({error.strerror}). "
                "Give one like tcp://127.0.0.1:5555.",
            ) from None

    def send(self, frames: Sequence[Frame], deadline_s: float) -> bool:
        """Whether it was taken by `deadline_s` (monotonic). Raises WireError(HANDSHAKE) as soon as
        it is seen that the two sides do not accept each other."""
        while True:
            try:
                self._socket.send_multipart(frames, _NOBLOCK)
                return True
            except zmq.Again:
                # Not a send that blocks: a connection that is refused can be written to for a
                # moment, time and again.
                self._socket.poll(min(_LOOK_MS, _ms_until(deadline_s)), zmq.POLLOUT)
                self._look_at_failures()
            if time.monotonic() >= deadline_s:
                return False

    def has_message(self) -> bool:
        """Whether one is there now."""
        return bool(int(self._socket.get(_EVENTS)) & _POLLIN)

    def receive(self, deadline_s: float) -> Sequence[Frame] | None:
        """The frames of the next message; None where there is none by `deadline_s` (monotonic).
        Raises as `send`."""
        if not self._heard and not self._wait_watchful(deadline_s):
            return None
        self._socket.set(_RCVTIMEO, _ms_until(deadline_s))
        try:
            frames = self._socket.recv_multipart()
        except zmq.Again:
            return None
        self._heard = True
        return frames

    def close(self, linger_s: float = 0.0) -> None:
        """Free the socket; what was sent has `linger_s` to leave."""
        if not self._socket.closed:
            with contextlib.suppress(zmq.ZMQError):
                self._socket.disable_monitor()
            self._monitor.close(linger=0)
            self._socket.close(linger=round(linger_s * 1e3))

    def _wait_watchful(self, deadline_s: float) -> bool:
        """Whether a message comes by `deadline_s`, with an eye on failing handshakes."""
        while not self._socket.poll(min(_LOOK_MS, _ms_until(deadline_s)), zmq.POLLIN):
            self._look_at_failures()
            if time.monotonic() >= deadline_s:
                return False
        return True

    def _look_at_failures(self) -> None:
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


def _ms_until(deadline_s: float) -> int:
    return max(0, round((deadline_s - time.monotonic()) * 1e3))
