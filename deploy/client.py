"""The robot's side: an observation in, an action chunk out, over wire v1.

    with PolicyClient("tcp://127.0.0.1:5555") as policy:
        chunk = policy.infer({"images.front": rgb, "proprio": joints})
        robot.play(chunk.actions)  # (H, A) float32, raw units

A policy may be given the last `policy.spec.history` observations in one: keep them with an
`observation_history.ObservationHistory`, which is the same for a policy without history. One whose
spec has `committed` is told which actions are in flight: see `committed`.
Imports numpy, pyzmq and msgspec only. One client belongs to one thread.
"""

import contextlib
import operator
import secrets
import time
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import numpy as np
import zmq

from loopdit import __version__
from loopdit.datasets.spec import Observation, PolicySpec
from loopdit.deploy.messages import (
    PROTOCOL_VERSION,
    Bye,
    Chunk,
    Error,
    ErrorCode,
    Hello,
    Message,
    Obs,
    Ping,
    Pong,
    Reset,
    ResetAck,
    Welcome,
    WireError,
)
from loopdit.deploy.protocol import MAX_HEADER_BYTES, decode, encode
from loopdit.errors import ConfigError

Answer = TypeVar("Answer", Welcome, Chunk, ResetAck, Pong)

_MAX_REPLY_BYTES = 16 * 1024 * 1024
_LAST_WORDS_MS = 50
_RECONNECT_MS = 50
_MAX_BUDGET_S = 3600.0
_RECONNECT_MAX_MS = 500


@dataclass(frozen=True)
class ChunkReply:
    """An action chunk and what it took.

    `actions` (H, A) float32 in raw units. `timing_us` is the server's split (queue, decode, encode,
    denoise, send); `latency_s` is what this client waited, wire included.
    """

    actions: np.ndarray
    loops: int
    steps: int
    timing_us: dict[str, int]
    latency_s: float
    model_id: str


class PolicyClient:
    """A session with a policy server, opened here.

    Attributes from the server's welcome: `spec`, `model_id`, `horizon`, `loops` (the counts it
    offers), `default_loops`, `steps` (its default). `timeout_s` may be changed.
    A `spec` given here refuses another policy with a SpecMismatch that names the fields.
    Every method raises WireError, a ServerError with a `code` (ConfigError for a number it cannot
    send). After any of them the client can be used again, and greets a server that came back.
    """

    def __init__(
        self,
        endpoint: str = "tcp://127.0.0.1:5555",
        timeout_s: float = 5.0,
        spec: PolicySpec | None = None,
    ) -> None:
        if not 0 < timeout_s <= _MAX_BUDGET_S:
            raise ConfigError(f"timeout_s={timeout_s} must be above 0, at most {_MAX_BUDGET_S:g}.")
        self.endpoint = endpoint
        self.timeout_s = timeout_s
        self._spec_digest = ""  # not yet: a server would refuse by digest, and name no field
        self._session_id = secrets.randbits(63)
        self._seq = 0
        self._epoch = 0
        self._seed = 0
        self._step = 0
        self._socket = _connect(endpoint)
        try:
            welcome = self._hello(self._deadline())
            self.spec = PolicySpec.from_dict(welcome.spec)
            if spec is not None:
                spec.require_equal(
                    self.spec,
                    mine="the robot",
                    theirs=f"the policy served at {endpoint}",
                    remedy="Serve the bundle the robot was set up for.",
                )
        except BaseException:
            self._socket.close(linger=0)
            raise
        self.horizon = welcome.horizon
        # From now on a server that comes back with another spec is refused.
        self._spec_digest = welcome.spec_digest

    def __enter__(self) -> "PolicyClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def infer(
        self,
        observation: Observation,
        *,
        loops: int = 0,
        steps: int = 0,
        seed: int = 0,
        instruction: str = "",
        budget_s: float | None = None,
    ) -> ChunkReply:
        """The chunk for `observation`; loops=0 and steps=0 leave the choice to the server.

        `budget_s`: compute must begin within this of the server's receiving it, or it is refused
        with LATE. The same observation, loops, steps and seed give the same actions.
        Raises ObservationError before anything is sent, WireError otherwise.
        """
        arrays = {name: np.asarray(value) for name, value in observation.items()}
        self.spec.check_observation(arrays)
        asked_s = time.monotonic()
        obs = Obs(
            seq=0,
            epoch=0,
            step=self._step,
            observed_ns=time.monotonic_ns(),
            budget_us=_budget_us(budget_s),
            loops=_count("loops", loops),
            steps=_count("steps", steps),
            seed=_count("seed", seed),
            instruction=instruction,
        )
        chunk, tensors = self._request(obs, Chunk, arrays)
        self._step += 1
        actions = tensors.get("action")
        if actions is None or actions.shape != (self.horizon, *self.spec.action.shape):
            raise WireError(
                ErrorCode.MALFORMED, f"{self.endpoint} answered without a whole action chunk."
            )
        return ChunkReply(
            actions=actions.copy(),  # its own memory, writable
            loops=chunk.loops,
            steps=chunk.steps,
            timing_us=msgspec.structs.asdict(chunk.timing_us),
            latency_s=time.monotonic() - asked_s,
            model_id=chunk.model_id,
        )

    def reset(self, seed: int = 0) -> None:
        """A new episode: chunks of the old one die, and `seed` is mixed into every later seed."""
        self._seed = _count("seed", seed)
        self._request(Reset(seq=0, epoch=0, seed=self._seed), ResetAck)

    def ping(self) -> dict[str, int | str]:
        """How the server is, answered even while it computes: see protocol.Pong."""
        pong, _ = self._request(Ping(seq=0), Pong)
        return {k: v for k, v in msgspec.structs.asdict(pong).items() if k != "seq"}

    def close(self) -> None:
        """Say BYE and free the socket."""
        if not self._socket.closed:
            if self._epoch:
                with contextlib.suppress(zmq.Again):  # nobody is connected to hear it
                    self._socket.send_multipart(encode(Bye(seq=self._next_seq())), zmq.NOBLOCK)
            self._socket.close(linger=_LAST_WORDS_MS)

    def _request(
        self, message: Obs | Reset | Ping, answer: type[Answer], arrays: Observation | None = None
    ) -> tuple[Answer, dict[str, np.ndarray]]:
        """Send and wait, opening the session anew (once) when the server no longer knows it."""
        if self._socket.closed:
            raise RuntimeError("this PolicyClient is closed.")
        deadline_s = self._deadline()
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

    def _hello(self, deadline_s: float) -> Welcome:
        hello = Hello(
            seq=0,
            protocol_min=PROTOCOL_VERSION,
            protocol_max=PROTOCOL_VERSION,
            session=self._session_id,
            client=f"loopdit-python {__version__}",
            spec_digest=self._spec_digest,
        )
        welcome, _ = self._exchange(hello, Welcome, deadline_s)
        if welcome.protocol != PROTOCOL_VERSION:
            raise WireError(
                ErrorCode.VERSION,
                f"{self.endpoint} chose protocol {welcome.protocol}; this client speaks "
                f"{PROTOCOL_VERSION}. Use the same loopdit on both sides.",
            )
        self._epoch = welcome.epoch
        self.model_id = welcome.model_id
        self.loops = welcome.loops
        self.default_loops = welcome.default_loops
        self.steps = welcome.default_steps
        return welcome

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
        self._forget_old_messages()
        self._socket.setsockopt(zmq.SNDTIMEO, _ms_until(deadline_s))
        try:
            self._socket.send_multipart(encode(message, arrays))
        except zmq.Again:
            raise self._timeout("is policy-serve running there") from None
        while self._socket.poll(_ms_until(deadline_s), zmq.POLLIN):
            reply, tensors = self._receive()
            if isinstance(reply, Bye):
                self._epoch = 0
                raise WireError(
                    ErrorCode.CLOSING, f"the server at {self.endpoint} left: {reply.reason}", seq
                )
            if isinstance(reply, Error) and reply.seq in (seq, 0):
                raise WireError(reply.code, f"{self.endpoint}: {reply.message}", seq)
            if isinstance(reply, answer) and reply.seq == seq:
                return reply, tensors
            # Anything else answers a request that was given up: its time has passed.
        raise self._timeout("has policy-serve died, or does its policy need a longer timeout_s")

    def _receive(self) -> tuple[Message, dict[str, np.ndarray]]:
        try:
            return decode(self._socket.recv_multipart(zmq.NOBLOCK), _MAX_REPLY_BYTES)
        except WireError as error:
            raise WireError(error.code, f"{self.endpoint}: {error}", error.seq) from None

    def _forget_old_messages(self) -> None:
        """Late answers to requests that were given up; a BYE among them ends the session."""
        while self._socket.poll(0, zmq.POLLIN):
            reply, _ = self._receive()
            if isinstance(reply, Bye):
                self._epoch = 0

    def _timeout(self, question: str) -> WireError:
        # What the server received is unknown now: greet it anew before the next request.
        self._epoch = 0
        return WireError(
            ErrorCode.TIMEOUT,
            f"no answer from {self.endpoint} within {self.timeout_s:g} s: {question}?",
        )

    def _next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def _deadline(self) -> float:
        return time.monotonic() + self.timeout_s


def _ms_until(deadline_s: float) -> int:
    return max(0, round((deadline_s - time.monotonic()) * 1e3))


def _count(name: str, value: int) -> int:
    """As a plain integer (numpy's are not), within what the wire carries."""
    try:
        number = operator.index(value)
    except TypeError:
        raise ConfigError(f"{name}={value!r} is not a whole number.") from None
    if not 0 <= number < 2**63:
        raise ConfigError(f"{name}={value} must be from 0 to 2**63 - 1.")
    return number


def _budget_us(budget_s: float | None) -> int:
    if budget_s is None:
        return 0
    if not 0 < budget_s <= _MAX_BUDGET_S:
        raise ConfigError(f"budget_s={budget_s} must be above 0 and at most {_MAX_BUDGET_S:g}.")
    return max(1, round(budget_s * 1e6))


def _connect(endpoint: str) -> "zmq.Socket[bytes]":
    # The shared context: one of its own could block for ever when a client is forgotten unclosed.
    dealer = zmq.Context.instance().socket(zmq.DEALER)
    dealer.setsockopt(zmq.LINGER, 0)
    # Queue only for a live connection: an observation must not wait for a server to be started.
    dealer.setsockopt(zmq.IMMEDIATE, 1)
    dealer.setsockopt(zmq.MAXMSGSIZE, _MAX_REPLY_BYTES + MAX_HEADER_BYTES)
    dealer.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
    dealer.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS)
    # Only where it is meant: "localhost" must find a server on 127.0.0.1.
    dealer.setsockopt(zmq.IPV6, int("[" in endpoint))
    try:
        dealer.connect(endpoint)
    except zmq.ZMQError as error:
        dealer.close()
        raise WireError(
            ErrorCode.TIMEOUT,
            f"{endpoint!r} is not an address to connect to ({error.strerror}). "
            "Give one like tcp://127.0.0.1:5555.",
        ) from None
    return dealer
