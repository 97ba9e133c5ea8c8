"""The policy server's sockets and threads; what it answers is decided in `dispatcher.py`.

Two threads. The I/O thread owns the socket and the dispatcher and never computes, so HELLO, PING
and RESET are answered while an inference runs. The inference thread runs one job at a time. They
exchange jobs and outcomes through queues; a byte on a socket pair wakes the I/O thread.
"""

import contextlib
import ipaddress
import logging
import math
import queue
import socket
import threading
from urllib.parse import urlsplit

import zmq

from loopdit.deploy.clock import Clock, MonotonicClock
from loopdit.deploy.protocol import encode
from loopdit.deploy.serving.dispatcher import Dispatcher, Job, Reply
from loopdit.deploy.serving.served_policy import Inference, ServedPolicy
from loopdit.errors import ConfigError, ObservationError, ServerError

DEFAULT_ENDPOINT = "tcp://127.0.0.1:5555"
_LOG = logging.getLogger(__name__)
# Messages read before finished work is looked at again, so that a flood delays nobody's chunk.
_BURST = 64
# A dead client host is noticed by its connection, not by its silence.
_HEARTBEAT_MS = 500
_HEARTBEAT_TIMEOUT_MS = 3000
# How long a stopping server waits for its last words to leave, and for a running inference.
_LAST_WORDS_MS = 100
_LAST_INFERENCE_S = 2.0


class PolicyServer:
    """Serves one policy. Binding happens here; nothing is answered before `start`.

    Raises ConfigError for an endpoint that is not loopback TCP or for defaults that the policy
    does not offer, ServerError when the port is taken. `endpoint` says the port in use (for 0,
    the one that was free); `default_loops` and `default_steps`, what is run for a client that
    does not say.
    """

    def __init__(
        self,
        policy: ServedPolicy,
        endpoint: str = DEFAULT_ENDPOINT,
        default_loops: int = 0,
        default_steps: int = 0,
        clock: Clock | None = None,
    ) -> None:
        address = loopback_endpoint(endpoint)
        self._policy = policy
        self._clock = clock or MonotonicClock()
        self._dispatcher = Dispatcher(policy, self._clock, default_loops, default_steps)
        self.default_loops = self._dispatcher.default_loops
        self.default_steps = self._dispatcher.default_steps
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[tuple[Inference | Exception, float]] = queue.SimpleQueue()
        self._stopping = False
        self._failure: BaseException | None = None
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        try:
            _configure(self._socket, address, self._dispatcher.max_bytes)
            _bind(self._socket, address)
        except BaseException:
            self._context.destroy(linger=0)
            raise
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._io_thread = threading.Thread(target=self._io, name="policy-io", daemon=True)
        self._inference_thread = threading.Thread(
            target=self._infer, name="policy-inference", daemon=True
        )

    def __enter__(self) -> "PolicyServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether it answers."""
        return self._io_thread.is_alive()

    def start(self) -> None:
        """Begin to answer."""
        self._inference_thread.start()
        self._io_thread.start()

    def stop(self) -> None:
        """Refuse what waits (CLOSING), tell every client BYE, and give the port back.

        Waits briefly for a running inference. Raises what the I/O thread died of, if it did.
        """
        self._stopping = True
        self._wake()
        if self._io_thread.ident is not None:
            self._io_thread.join()
            self._jobs.put(None)
            self._inference_thread.join(_LAST_INFERENCE_S)
        self._context.destroy(linger=_LAST_WORDS_MS)
        self._woken.close()
        # An inference that outlived the wait will still write to the waker.
        if not self._inference_thread.is_alive():
            self._waker.close()
        if self._failure is not None:
            raise self._failure

    def status(self) -> str:
        """One line for a person: who is connected and what was answered."""
        d = self._dispatcher
        return f"sessions {d.sessions}, chunks {d.answered}, refused {d.refused}"

    def _io(self) -> None:
        try:
            self._serve()
        except BaseException as failure:  # kept for stop() to raise in the caller's thread
            _LOG.exception("the server's I/O thread died")
            self._failure = failure
        finally:
            self._socket.close(linger=_LAST_WORDS_MS)

    def _serve(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._woken.fileno(), zmq.POLLIN)
        while not self._stopping:
            poller.poll(self._poll_ms())
            with contextlib.suppress(BlockingIOError):
                self._woken.recv(4096)
            self._send_outcomes()
            self._receive_burst()
            self._send(self._dispatcher.expire())
            job = self._dispatcher.next_job()
            if job is not None:
                self._jobs.put(job)
        self._send_outcomes()
        self._send(self._dispatcher.close("the server is stopping."))

    def _poll_ms(self) -> int | None:
        deadline_s = self._dispatcher.next_deadline_s
        if math.isinf(deadline_s):
            return None
        # Rounded up: waking a fraction early would spin until the deadline.
        return max(0, math.ceil((deadline_s - self._clock.now) * 1e3))

    def _receive_burst(self) -> None:
        for _ in range(_BURST):
            try:
                peer, *frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._send(self._dispatcher.receive(peer, frames))

    def _send_outcomes(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._send(self._dispatcher.finish(*self._outcomes.get_nowait()))

    def _send(self, replies: list[Reply]) -> None:
        for reply in replies:
            frames = [reply.peer, *encode(reply.message, reply.tensors)]
            try:
                self._socket.send_multipart(frames, zmq.NOBLOCK)
            except zmq.ZMQError as error:
                # Gone, or not reading: one such client must not stall the others.
                if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                    raise
                self._dispatcher.lost(reply.peer)

    def _infer(self) -> None:
        while (job := self._jobs.get()) is not None:
            request = job.request
            try:
                outcome: Inference | Exception = self._policy.infer(
                    request.observation,
                    seed=request.noise_seed,
                    loops=job.loops,
                    steps=job.steps,
                    instruction=request.obs.instruction,
                )
            except ObservationError as error:  # an instruction that this policy does not know
                outcome = error
            except Exception as error:  # any: the request is answered INTERNAL, the others served
                _LOG.exception("inference failed (seq %d)", request.obs.seq)
                outcome = error
            self._outcomes.put((outcome, self._clock.now))
            self._wake()

    def _wake(self) -> None:
        # A full pipe is fine: it is awake then. A closed one: the server has stopped.
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            self._waker.send(b"\0")


def loopback_endpoint(endpoint: str) -> str:
    """`tcp://HOST:PORT` in the form that ZeroMQ binds. Raises ConfigError unless on loopback."""
    try:
        parts = urlsplit(endpoint)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError:
        scheme, host, port = "", None, None
    if scheme != "tcp" or not host or port is None:
        raise ConfigError(
            f"endpoint {endpoint!r} is not of the form tcp://HOST:PORT with a port of 0 to 65535."
        )
    if host == "localhost":
        host = "127.0.0.1"
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ConfigError(
            f"host={host} is not this machine's loopback address, and the wire is not encrypted "
            "yet: bind host=127.0.0.1 and reach it from elsewhere through an SSH tunnel."
        )
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def _configure(router: "zmq.Socket[bytes]", address: str, max_bytes: int) -> None:
    # Without ROUTER_MANDATORY a reply to a full or vanished peer is dropped without a word.
    router.setsockopt(zmq.ROUTER_MANDATORY, 1)
    router.setsockopt(zmq.LINGER, 0)
    router.setsockopt(zmq.MAXMSGSIZE, max_bytes)
    # Only where it is meant: it turns 127.0.0.1 into ::ffff:127.0.0.1.
    router.setsockopt(zmq.IPV6, int("[" in address))
    router.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
    router.setsockopt(zmq.HEARTBEAT_TIMEOUT, _HEARTBEAT_TIMEOUT_MS)


def _bind(router: "zmq.Socket[bytes]", address: str) -> None:
    try:
        router.bind(address)
    except zmq.ZMQError as error:
        port = address.rpartition(":")[2]
        if error.errno == zmq.EADDRINUSE:
            other = int(port) + 1 if int(port) < 65535 else 5555
            raise ServerError(
                f"port {port} is in use at {address}, perhaps by another policy-serve. "
                f"Stop that program, or choose another port with port={other}."
            ) from None
        raise ServerError(
            f"cannot listen at {address}: {error.strerror}. Choose another with host= or port=."
        ) from None
