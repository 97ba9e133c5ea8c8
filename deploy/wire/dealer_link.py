"""The client's ZeroMQ socket: connecting, sending, waiting."""

import time
from collections.abc import Sequence
from socket import gaierror, getaddrinfo

import zmq

from loopdit.deploy.messages import ErrorCode, WireError
from loopdit.deploy.protocol import MAX_HEADER_BYTES, Frame
from loopdit.deploy.security.curve import CurveKeys
from loopdit.deploy.security.endpoints import host_and_port
from loopdit.deploy.wire.handshakes import Handshakes

MAX_REPLY_BYTES = 16 * 1024 * 1024
_RECONNECT_MS = 50
_RECONNECT_MAX_MS = 500
# See server_lines: room for a whole observation.
_BUFFER_BYTES = 1 << 20
_LOOK_MS = 20
# As plain integers: pyzmq's own turn into themselves for microseconds, each time.
_EVENTS, _POLLIN, _NOBLOCK = int(zmq.EVENTS), int(zmq.POLLIN), int(zmq.NOBLOCK)
_RCVTIMEO = int(zmq.RCVTIMEO)


class DealerLink:
    """A DEALER that is connected to `endpoint`, with `keys` to the server of `server_key`.

    Raises WireError for what is no endpoint, and for a host that nobody knows.
    """

    def __init__(self, endpoint: str, keys: CurveKeys | None, server_key: bytes) -> None:
        # The shared context: one of its own could block for ever when a client is forgotten
        # unclosed.
        self._socket = zmq.Context.instance().socket(zmq.DEALER)
        self._handshakes = Handshakes(self._socket, endpoint, secured=keys is not None)
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
            connect(self._socket, endpoint)
        except BaseException:
            self.close()
            raise

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
                self._handshakes.require_accepted()
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
            self._handshakes.close()
            self._socket.close(linger=round(linger_s * 1e3))

    def _wait_watchful(self, deadline_s: float) -> bool:
        """Whether a message comes by `deadline_s`, with an eye on failing handshakes."""
        while not self._socket.poll(min(_LOOK_MS, _ms_until(deadline_s)), zmq.POLLIN):
            self._handshakes.require_accepted()
            if time.monotonic() >= deadline_s:
                return False
        return True


def connect(socket: "zmq.Socket[bytes]", endpoint: str) -> None:
    """Raises WireError for what is no endpoint, and for a host that nobody knows: ZeroMQ would ask
    for it again and again, in silence."""
    host, port = "", 0
    try:
        if not endpoint.startswith("ipc://"):
            host, port = host_and_port(endpoint)
            getaddrinfo(host, port)
        socket.connect(endpoint)
    except gaierror as error:
        raise WireError(
            ErrorCode.TIMEOUT, f"{endpoint}: no host is known as {host!r} ({error.strerror})."
        ) from None
    except (zmq.ZMQError, ValueError):  # a name that cannot be one is a ValueError, too
        raise WireError(
            ErrorCode.TIMEOUT,
            f"{endpoint!r} is not an address to connect to. Give one like tcp://127.0.0.1:5555.",
        ) from None


def _ms_until(deadline_s: float) -> int:
    return max(0, round((deadline_s - time.monotonic()) * 1e3))
