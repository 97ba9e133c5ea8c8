"""The robot's side: an observation in, an action chunk out, over wire v1.

    with PolicyClient("tcp://127.0.0.1:5555") as policy:
        chunk = policy.infer({"images.front": rgb, "proprio": joints})
        robot.play(chunk.actions)  # (H, A) float32, raw units

A policy may be given the last `policy.spec.history` observations in one: keep them with an
`observation_history.ObservationHistory`, which is the same for a policy without history. One whose
spec has `committed` is told which actions are in flight: see `committed`.
Imports numpy, pyzmq and msgspec only. Threads may share a client: they take turns. For asyncio
there is `async_client.AsyncPolicyClient`.
"""

import contextlib
import operator
import secrets
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from loopdit import __version__
from loopdit.datasets.spec import Observation, PolicySpec
from loopdit.deploy.jpeg_frames import JPEG, encoded, require_available
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
from loopdit.deploy.quick_check import QuickCheck
from loopdit.deploy.robot.guide import check_with_guide
from loopdit.deploy.security.curve import client_keys
from loopdit.deploy.security.endpoints import reaches_only_this_machine
from loopdit.deploy.wire import lane_link
from loopdit.deploy.wire.dealer_link import MAX_REPLY_BYTES, DealerLink
from loopdit.deploy.wire.lane_link import LaneLink
from loopdit.deploy.wire.link import Link
from loopdit.errors import ConfigError

Answer = TypeVar("Answer", Welcome, Chunk, ResetAck, Pong)

_LAST_WORDS_S = 0.05
_GREET_AGAIN_S = 1.0
_MAX_BUDGET_S = 3600.0


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
    `keys` (this client's NAME.key_secret) and `server_key` (the server's NAME.key) are files, for a
    server that wants to see keys. `shared_memory`: hand over frames without copying them through
    sockets, where the server runs on this machine and offers it. `jpeg_quality` (1 to 100): send
    frames as JPEG, for a slow link; 0: as they are. `link` is used in place of a
    connection to `endpoint`, such as `PolicyServer.connect()` gives within the server's process.
    Every method raises WireError, a ServerError with a `code` (ConfigError for a setting it cannot
    send). After any of them the client can be used again, and greets a server that came back.
    """

    def __init__(
        self,
        endpoint: str = "tcp://127.0.0.1:5555",
        timeout_s: float = 5.0,
        spec: PolicySpec | None = None,
        *,
        keys: str | Path = "",
        server_key: str | Path = "",
        shared_memory: bool = True,
        jpeg_quality: int = 0,
        link: Link | None = None,
    ) -> None:
        if not 0 < timeout_s <= _MAX_BUDGET_S:
            raise ConfigError(f"timeout_s={timeout_s} must be above 0, at most {_MAX_BUDGET_S:g}.")
        if not 0 <= _count("jpeg_quality", jpeg_quality) <= 100:
            raise ConfigError(f"jpeg_quality={jpeg_quality} must be 1 to 100, or 0 for raw frames.")
        if jpeg_quality:
            require_available()
        self._jpeg_quality = jpeg_quality
        self.endpoint = endpoint
        self.timeout_s = timeout_s
        self._spec_digest = ""  # not yet: a server would refuse by digest, and name no field
        self._session_id = secrets.randbits(63)
        self._seq = 0
        self._epoch = 0
        self._seed = 0
        self._step = 0
        self._lock = threading.RLock()
        self._closed = False
        near = link is None and reaches_only_this_machine(endpoint)
        self._wants_lane = near and shared_memory and lane_link.AVAILABLE
        self._lane: LaneLink | None = None
        self._direct: Link = link or DealerLink(endpoint, *client_keys(keys, server_key))
        try:
            welcome = self._hello(self._deadline())
            self.spec = PolicySpec.from_dict(welcome.spec)
            self._check = QuickCheck(self.spec)
            if spec is not None:
                spec.require_equal(
                    self.spec,
                    mine="the robot",
                    theirs=f"the policy served at {endpoint}",
                    remedy="Serve the bundle the robot was set up for.",
                )
        except BaseException:
            self._drop_lane()
            self._direct.close()
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

        `budget_s`: the chunk is wanted within this of the server's receiving it. What is left to
        the server is chosen to be in time, and what cannot be is refused with LATE. The same
        observation, loops, steps and seed give the same actions. A guide may be
        beside the tensors that the spec names (`robot/guide.py`).
        Raises ObservationError before anything is sent, WireError otherwise.
        """
        if not isinstance(instruction, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"instruction={instruction!r} is no text. Leave it out for none.")
        arrays = {name: np.asarray(value) for name, value in observation.items()}
        if not self._check.passes(arrays):
            check_with_guide(arrays, self.spec)
        asked_s = time.monotonic()
        jpeg: tuple[str, ...] = ()
        if self._jpeg_quality:
            arrays, jpeg = encoded(arrays, self.spec, self._jpeg_quality)
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
            jpeg=jpeg,
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
        """Say BYE and free the sockets."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._epoch:
                with contextlib.suppress(WireError):  # nobody is connected to hear it
                    bye = encode(Bye(seq=self._next_seq()))
                    self._link.send(bye, time.monotonic())
            self._drop_lane()
            self._direct.close(_LAST_WORDS_S)

    @property
    def transport(self) -> str:
        """What observations go over: "shared memory", or the scheme of the endpoint."""
        return "shared memory" if self._lane else self.endpoint.partition("://")[0]

    @property
    def _link(self) -> Link:
        return self._lane or self._direct

    def _request(
        self, message: Obs | Reset | Ping, answer: type[Answer], arrays: Observation | None = None
    ) -> tuple[Answer, dict[str, np.ndarray]]:
        """Send and wait, opening the session anew (once) when the server no longer knows it."""
        with self._lock:
            if self._closed:
                raise RuntimeError("this PolicyClient is closed.")
            deadline_s = self._deadline()
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
            session=self._session_id,
            client=f"loopdit-python {__version__}",
            spec_digest=self._spec_digest,
        )
        welcome = self._welcome(hello, deadline_s)
        if welcome.protocol != PROTOCOL_VERSION:
            raise WireError(
                ErrorCode.VERSION,
                f"{self.endpoint} chose protocol {welcome.protocol}; this client speaks "
                f"{PROTOCOL_VERSION}. Use the same loopdit on both sides.",
            )
        if self._jpeg_quality and JPEG not in welcome.encodings:
            raise WireError(
                ErrorCode.UNSUPPORTED,
                f"{self.endpoint} takes no JPEG frames. Leave jpeg_quality= out, or install Pillow "
                f"where policy-serve runs.",
            )
        self._epoch = welcome.epoch
        self.model_id = welcome.model_id
        self.loops = welcome.loops
        self.default_loops = welcome.default_loops
        self.steps = welcome.default_steps
        return welcome

    def _welcome(self, hello: Hello, deadline_s: float) -> Welcome:
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
            raise WireError(error.code, f"{self.endpoint}: {error}", error.seq) from None
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
            f"no answer from {self.endpoint} within {self.timeout_s:g} s: {question}?",
        )

    def _next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def _deadline(self) -> float:
        return time.monotonic() + self.timeout_s


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
