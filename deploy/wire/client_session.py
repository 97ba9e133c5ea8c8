"""A client's session with a policy server: opened, resumed, and every request answered once or an
error.

Over whichever link there is: the one it is given, or a lane of shared memory once the server has
offered one. Knows messages and their arrays, but not what they mean to a policy.
"""

import contextlib
import secrets
import threading
import time
from collections.abc import Set
from typing import TypeVar

import msgspec
import numpy as np

from loopdit import __version__
from loopdit.datasets.spec import Observation, PolicySpec
from loopdit.deploy.messages import (
    PROTOCOL_VERSION,
    Bye,
    Chunk,
    Error,
    ErrorCode,
    Hello,
    Obs,
    Ping,
    Pong,
    Reset,
    ResetAck,
    Welcome,
    WireError,
)
from loopdit.deploy.protocol import MAX_HEADER_BYTES, decode, encode
from loopdit.deploy.wire.dealer_link import MAX_REPLY_BYTES
from loopdit.deploy.wire.lane_link import LaneLink
from loopdit.deploy.wire.link import Link
from loopdit.errors import ConfigError

Answer = TypeVar("Answer", Welcome, Chunk, ResetAck, Pong)

_LAST_WORDS_S = 0.05
_GREET_AGAIN_S = 1.0


class ClientSession:
    """One session over `direct`, which is closed with it; `endpoint` is what errors call the
    server. `wants_lane`: to go on over shared memory where the server offers it. `encodings`: what
    the server has to take.

    `welcome` is the server's latest. Once `spec_digest` is set, a server that comes back with
    another spec is refused. Threads take turns. After an error it can be used again, and greets a
    server that came back.
    """

    def __init__(
        self,
        endpoint: str,
        direct: Link,
        wants_lane: bool,
        encodings: Set[str] = frozenset(),
    ) -> None:
        self.spec_digest = ""  # not yet: a server would refuse by digest, and name no field
        self._endpoint = endpoint
        self._direct = direct
        self._wants_lane = wants_lane
        self._encodings = encodings
        self._lane: LaneLink | None = None
        self._id = secrets.randbits(63)
        self._seq = 0
        self._epoch = 0  # 0: not open
        self._seed = 0
        self._timeout_s = 0.0
        self._lock = threading.RLock()
        self._closed = False

    @property
    def over_shared_memory(self) -> bool:
        """Whether it goes on over a lane."""
        return self._lane is not None

    def open(self, timeout_s: float) -> Welcome:
        """Greet the server. Raises WireError."""
        with self._lock:
            return self._hello(self._deadline(timeout_s))

    def request(
        self,
        message: Obs | Reset | Ping,
        answer: type[Answer],
        timeout_s: float,
        arrays: Observation | None = None,
    ) -> tuple[Answer, dict[str, np.ndarray]]:
        """Send and wait, opening the session anew (once) when the server no longer knows it.

        Raises WireError, ConfigError for an instruction that no header holds, RuntimeError when
        closed.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("this PolicyClient is closed.")
            deadline_s = self._deadline(timeout_s)
            if isinstance(message, Reset):
                self._seed = message.seed
            self._forget_old_messages()
            for attempt in (1, 2):
                try:
                    if not self._epoch:
                        self._hello(deadline_s)
                        if self._seed:  # which the new session does not know
                            self._exchange(Reset(0, 0, self._seed), ResetAck, deadline_s)
                    return self._exchange(message, answer, deadline_s, arrays)
                except WireError as error:
                    if error.code != ErrorCode.NO_SESSION or attempt == 2:
                        raise
                    self._epoch = 0
        raise AssertionError("unreachable: the second attempt returns or raises.")

    def close(self) -> None:
        """Say BYE and free the sockets."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._epoch:
                with contextlib.suppress(WireError):  # nobody is connected to hear it
                    self._link.send(encode(Bye(seq=self._next_seq())), time.monotonic())
            self._drop_lane()
            self._direct.close(_LAST_WORDS_S)

    @property
    def _link(self) -> Link:
        return self._lane or self._direct

    def _hello(self, deadline_s: float) -> Welcome:
        """Open the session over ZeroMQ, and go on with it over a lane where there is one."""
        self._drop_lane()
        welcome = self._greet(deadline_s)
        if self._wants_lane and welcome.shared_memory:
            spec = PolicySpec.from_dict(welcome.spec)
            sizes = [int(np.prod(t.shape)) * np.dtype(t.dtype).itemsize for t in spec.observations]
            try:
                self._lane = LaneLink(welcome.shared_memory, sum(sizes), len(sizes))
            except OSError:  # another user's server, or one beyond a tunnel: as good over ZeroMQ
                self._wants_lane = False
                return welcome
            welcome = self._greet(deadline_s)
        return welcome

    def _drop_lane(self) -> None:
        if self._lane is not None:
            self._lane.close()
            self._lane = None

    def _greet(self, deadline_s: float) -> Welcome:
        hello = Hello(
            seq=0,
            protocol_min=PROTOCOL_VERSION,
            protocol_max=PROTOCOL_VERSION,
            session=self._id,
            client=f"loopdit-python {__version__}",
            spec_digest=self.spec_digest,
        )
        welcome = self._welcomed(hello, deadline_s)
        if welcome.protocol != PROTOCOL_VERSION:
            raise WireError(
                ErrorCode.VERSION,
                f"{self._endpoint} chose protocol {welcome.protocol}; this client speaks "
                f"{PROTOCOL_VERSION}. Use the same loopdit on both sides.",
            )
        if self._encodings - {*welcome.encodings}:
            raise WireError(
                ErrorCode.UNSUPPORTED,
                f"{self._endpoint} takes no JPEG frames. Leave jpeg_quality= out, or install "
                f"Pillow where policy-serve runs.",
            )
        self._epoch = welcome.epoch
        self.welcome = welcome
        return welcome

    def _welcomed(self, hello: Hello, deadline_s: float) -> Welcome:
        """Said again and again: it may have been given to a connection that was just breaking, and
        ZeroMQ says nothing of what it loses. A server answers the last one it hears, at once."""
        while True:
            try:
                soon_s = min(deadline_s, time.monotonic() + _GREET_AGAIN_S)
                return self._exchange(hello, Welcome, soon_s)[0]
            except WireError as error:
                if error.code != ErrorCode.TIMEOUT or time.monotonic() >= deadline_s:
                    raise

    def _exchange(
        self,
        message: Hello | Obs | Reset | Ping,
        answer: type[Answer],
        deadline_s: float,
        arrays: Observation | None = None,
    ) -> tuple[Answer, dict[str, np.ndarray]]:
        seq = self._next_seq()
        message = msgspec.structs.replace(message, seq=seq)
        if isinstance(message, Reset):
            # Ours to choose, so that whatever is still under way is old from this moment on.
            self._epoch += 1
        if isinstance(message, (Obs, Reset)):
            message = msgspec.structs.replace(message, epoch=self._epoch)
        frames = encode(message, arrays)
        if isinstance(message, Obs) and len(frames[0]) > MAX_HEADER_BYTES:
            words = message.instruction
            raise ConfigError(
                f"instruction={words[:32]!r}... has {len(words)} characters; it has to fit into a "
                f"header of {MAX_HEADER_BYTES} bytes. Shorten it."
            )
        try:
            if not self._link.send(frames, deadline_s):
                raise self._timeout("is policy-serve running there")
            while received := self._link.receive(deadline_s):
                reply, tensors = decode(received, MAX_REPLY_BYTES)
                if isinstance(reply, answer) and reply.seq == seq:
                    return reply, tensors
                # To a HELLO it is no answer: the last words of the server before this one.
                if isinstance(reply, Bye) and not isinstance(message, Hello):
                    raise WireError(ErrorCode.CLOSING, f"the server left: {reply.reason}", seq)
                if isinstance(reply, Error) and reply.seq in (seq, 0):
                    raise WireError(reply.code, reply.message, seq)
                # Anything else answers a request that was given up: its time has passed.
        except WireError as error:
            if error.code in (ErrorCode.CLOSING, ErrorCode.TIMEOUT):
                self._epoch = 0
            if error.code in (ErrorCode.TIMEOUT, ErrorCode.HANDSHAKE):
                raise
            raise WireError(error.code, f"{self._endpoint}: {error}", error.seq) from None
        raise self._timeout("has policy-serve died, or does its policy need a longer timeout_s")

    def _forget_old_messages(self) -> None:
        """Late answers to requests that were given up. A BYE among them ends the session, and so
        does what is no message or the end of the lane."""
        try:
            while self._link.has_message():
                received = self._link.receive(0.0) or ()
                if isinstance(decode(received, MAX_REPLY_BYTES)[0], Bye):
                    self._epoch = 0
        except WireError:
            self._epoch = 0

    def _timeout(self, question: str) -> WireError:
        # What the server received is unknown now: greet it anew before the next request.
        self._epoch = 0
        return WireError(
            ErrorCode.TIMEOUT,
            f"no answer from {self._endpoint} within {self._timeout_s:g} s: {question}?",
        )

    def _next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def _deadline(self, timeout_s: float) -> float:
        self._timeout_s = timeout_s
        return time.monotonic() + timeout_s
