"""All sockets by which clients reach one server: ZeroMQ's ROUTER, and the lanes of shared memory.

Whoever serves sees peers (opaque bytes) and the frames of their messages, whatever they came over.
One thread calls everything but `wake`.
"""

import contextlib
import itertools
import queue
import select
import socket
import time
from collections.abc import Generator, Sequence

import zmq

from loopdit.deploy.messages import ErrorCode, error
from loopdit.deploy.protocol import Frame, encode, sequence_number
from loopdit.deploy.security.access import Access
from loopdit.deploy.security.curve import Admission
from loopdit.deploy.security.endpoints import check_endpoint, reaches_only_this_machine
from loopdit.deploy.security.limits import NETWORK_MESSAGES_PER_S, RateLimit
from loopdit.deploy.wire import lanes as lane
from loopdit.deploy.wire.local_link import LocalLink
from loopdit.errors import ServerError

# A dead client host is noticed by its connection, not by its silence: after 1 s of it, the system
# asks every second, three times. Not by ZeroMQ's heartbeats: with them, a client that floods and
# hangs up ends the server (libzmq 4.3.5, stream_engine_base.cpp: `Assertion failed: !_io_error`,
# when a heartbeat is due to a connection whose input was full when it broke).
_ALIVE_IDLE_S, _ALIVE_EVERY_S, _ALIVE_TIMES = 1, 1, 3
_UNACKNOWLEDGED_MS = 4000
# Room for a whole observation: with the system's default (some 200 KB) its sender sleeps halfway.
_BUFFER_BYTES = 1 << 20
# Peers of the ROUTER begin with a zero byte (libzmq names them so), these do not.
_LANE, _LOCAL = b"lane", b"local"
# As plain integers: pyzmq's own turn into themselves for microseconds, each time.
_EVENTS, _POLLIN = int(zmq.EVENTS), int(zmq.POLLIN)


class ServerLines:
    """Bound here; see the module. `endpoint` is the one in use, `shared_memory` what WELCOME says
    of lanes (empty: there are none), `limited` how many messages were over a client's rate.

    Raises ConfigError for an endpoint that may not be listened at, ServerError when it is taken.
    """

    def __init__(
        self,
        endpoint: str,
        max_bytes: int,
        access: Access | None = None,
    ) -> None:
        access = access or Access()
        keys = access.keys
        address = check_endpoint(endpoint, trusted=keys is not None or access.open_to_network)
        rate = access.messages_per_s
        if not rate and not reaches_only_this_machine(address):
            rate = NETWORK_MESSAGES_PER_S
        self._limit = RateLimit(rate) if rate else None
        self.limited = 0
        self._context = zmq.Context()
        self._admission: Admission | None = None
        self._lanes: lane.Lanes | None = None
        try:
            if keys is not None:
                self._admission = Admission(self._context, keys)
            self._router = self._context.socket(zmq.ROUTER)
            configure(self._router, address, max_bytes)
            if keys is not None:
                keys.secure_server(self._router)
            bind(self._router, address)
            if access.shared_memory and lane.AVAILABLE:
                self._lanes = lane.Lanes()
        except BaseException:
            self._stop_admission()
            self._context.destroy(linger=0)
            raise
        self.endpoint = self._router.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
        self.shared_memory = self._lanes.address if self._lanes else ""
        self._woken, self._waker = socket.socketpair()
        for end in (self._woken, self._waker):
            end.setblocking(False)
        # Asked for at each message, and slow to find out.
        self._router_fd, self._woken_fd = self._router.fileno(), self._woken.fileno()
        self._poll = select.poll()
        self._poll.register(self._router_fd, select.POLLIN)
        self._poll.register(self._woken_fd, select.POLLIN)
        if self._lanes:
            self._poll.register(self._lanes.fileno(), select.POLLIN)
        self._lanes_ready, self._router_changed = False, True
        self._inbox: queue.SimpleQueue[tuple[bytes, Sequence[Frame]]] = queue.SimpleQueue()
        self._local: dict[bytes, queue.SimpleQueue[Sequence[Frame]]] = {}
        self._local_numbers = itertools.count(1)

    def connect(self) -> LocalLink:
        """A link for a client in this process, from any thread. No limit applies to it: who it
        speaks for is its own business."""
        peer = b"%s%d" % (_LOCAL, next(self._local_numbers))
        replies: queue.SimpleQueue[Sequence[Frame]] = queue.SimpleQueue()
        self._local[peer] = replies

        def post(frames: Sequence[Frame]) -> None:
            self._inbox.put((peer, frames))
            self.wake()

        return LocalLink(post, replies)

    def wait(self, timeout_s: float | None) -> None:
        """Return when there may be a message, when woken, or after `timeout_s` (None: never)."""
        # The ROUTER's descriptor says that something changed since it was last looked at, and
        # sending looks, too: whether a message is there has to be asked after each use of it.
        if self._router_changed and self._router_has_message():
            timeout_s = 0.0
        # Rounded up: waking a fraction early would spin until the deadline.
        timeout_ms = None if timeout_s is None else max(0, -int(-timeout_s * 1e3 // 1))
        for number, _ in self._poll.poll(timeout_ms):
            if number == self._woken_fd:
                with contextlib.suppress(BlockingIOError):
                    self._woken.recv(4096)
            elif number == self._router_fd:
                self._router_changed = True
            else:
                self._lanes_ready = True

    def wake(self) -> None:
        """End `wait` from any thread; of no effect once closed."""
        # A full pipe is fine: it is awake then.
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")

    def receive(self, most: int) -> Generator[tuple[bytes, Sequence[Frame]]]:
        """Messages that are there, each with its peer: at most `most` of the ROUTER and one of each
        lane. A message without frames says that its peer is gone."""
        if self._lanes and self._lanes_ready:
            self._lanes_ready = False
            for number, frames in self._lanes.receive():
                peer = b"%s%d" % (_LANE, number)
                if not frames or self._admit(peer, frames):
                    yield peer, frames
        while not self._inbox.empty():
            peer, frames = self._inbox.get()
            if not frames:
                self._local.pop(peer, None)
            yield peer, frames
        for _ in range(most if self._router_changed else 0):
            if not self._router_has_message():
                return
            peer, frames = _next_message(self._router)
            if self._admit(peer, frames):
                yield peer, frames

    def send(self, peer: bytes, frames: Sequence[Frame]) -> bool:
        """Whether it was taken: not by a peer that is gone or does not read, which must not stall
        the others."""
        if peer.startswith(_LANE):
            return self._lanes is not None and self._lanes.send(int(peer[len(_LANE) :]), frames)
        if peer.startswith(_LOCAL):
            replies = self._local.get(peer)
            if replies is not None:
                replies.put(frames)
            return replies is not None
        self._router_changed = True
        try:
            self._router.send_multipart([peer, *frames], zmq.NOBLOCK)
        except zmq.ZMQError as fault:
            if fault.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            return False
        return True

    def close(self, linger_ms: int = 0) -> None:
        """Give the address back; what was sent has `linger_ms` to leave."""
        if self._lanes:
            self._lanes.close()
        self._stop_admission()
        self._context.destroy(linger=linger_ms)
        self._woken.close()
        self._waker.close()

    def _router_has_message(self) -> bool:
        self._router_changed = bool(int(self._router.get(_EVENTS)) & _POLLIN)
        return self._router_changed

    def _admit(self, peer: bytes, frames: Sequence[Frame]) -> bool:
        if self._limit is None or self._limit.admit(peer, time.monotonic()):
            return True
        self.limited += 1
        seq = sequence_number(frames)
        self.send(
            peer,
            encode(
                error(
                    ErrorCode.OVERLOAD, "more messages than one client may send in a second.", seq
                )
            ),
        )
        return False

    def _stop_admission(self) -> None:
        if self._admission is not None:
            self._admission.stop()


def _next_message(router: "zmq.Socket[bytes]") -> tuple[bytes, list[Frame]]:
    """The peer and the frames of a message that is there. The frames are views of ZeroMQ's memory:
    to copy an observation out of it takes longer than to check it."""
    part = router.recv(zmq.NOBLOCK, copy=False)
    peer = part.bytes
    frames: list[Frame] = []
    while part.more:
        part = router.recv(zmq.NOBLOCK, copy=False)
        frames.append(part.buffer)
    return peer, frames


def configure(router: "zmq.Socket[bytes]", address: str, max_bytes: int) -> None:
    """A ROUTER for observations: `max_bytes` is the largest frame."""
    # Without ROUTER_MANDATORY a reply to a full or vanished peer is dropped without a word.
    router.setsockopt(zmq.ROUTER_MANDATORY, 1)
    router.setsockopt(zmq.LINGER, 0)
    router.setsockopt(zmq.MAXMSGSIZE, max_bytes)
    # Only where it is meant: it turns 127.0.0.1 into ::ffff:127.0.0.1.
    router.setsockopt(zmq.IPV6, int("[" in address))
    router.setsockopt(zmq.TCP_KEEPALIVE, 1)
    router.setsockopt(zmq.TCP_KEEPALIVE_IDLE, _ALIVE_IDLE_S)
    router.setsockopt(zmq.TCP_KEEPALIVE_INTVL, _ALIVE_EVERY_S)
    router.setsockopt(zmq.TCP_KEEPALIVE_CNT, _ALIVE_TIMES)
    router.setsockopt(zmq.TCP_MAXRT, _UNACKNOWLEDGED_MS)
    router.setsockopt(zmq.RCVBUF, _BUFFER_BYTES)


def bind(router: "zmq.Socket[bytes]", address: str) -> None:
    """Raises ServerError where that does not go."""
    try:
        router.bind(address)
    except zmq.ZMQError as fault:
        if fault.errno == zmq.EADDRINUSE and address.startswith("tcp://"):
            host, _, port = address.rpartition(":")
            other = int(port) + 1 if int(port) < 65535 else 5555
            raise ServerError(
                f"port {port} is in use at {address}, perhaps by another policy-serve. "
                f"Stop that program, or choose another port: {host}:{other}."
            ) from None
        raise ServerError(
            f"cannot listen at {address}: {fault.strerror}. Choose another address."
        ) from None
