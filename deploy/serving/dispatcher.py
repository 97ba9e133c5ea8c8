"""What the server answers: every message in, the replies and the next inference out.

Pure but for the clock it is given: no sockets, no threads, no compute. The shell around it
(`server.py`) feeds it messages and finished inferences, and sends what it returns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from loopdit.datasets.spec import Observation
from loopdit.deploy.clock import Clock
from loopdit.deploy.messages import (
    PROTOCOL_VERSION,
    Bye,
    Chunk,
    ErrorCode,
    Hello,
    Message,
    Obs,
    Ping,
    Pong,
    Reset,
    ResetAck,
    Timing,
    Welcome,
    WireError,
    error,
)
from loopdit.deploy.protocol import MAX_HEADER_BYTES, decode
from loopdit.deploy.serving.observation_check import check_observation
from loopdit.deploy.serving.served_policy import Inference, ServedPolicy
from loopdit.deploy.serving.sessions import Refusal, Request, Sessions
from loopdit.errors import ConfigError, ObservationError

MAX_STEPS = 1000
ACTION = "action"


@dataclass(frozen=True)
class Reply:
    """A message to send to a connection."""

    peer: bytes
    message: Message
    tensors: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])


@dataclass(frozen=True)
class Job:
    """One inference to run."""

    request: Request
    loops: int
    steps: int
    started_s: float


class Dispatcher:
    """All the server's state between messages.

    Raises ConfigError if `default_loops` or `default_steps` (0: the policy's) are not on offer.
    """

    def __init__(
        self, policy: ServedPolicy, clock: Clock, default_loops: int = 0, default_steps: int = 0
    ) -> None:
        self._spec = policy.spec
        self._model_id = policy.model_id
        self._horizon = policy.horizon
        self._loops = tuple(policy.loops)
        self.default_loops = default_loops or max(policy.loops)
        self.default_steps = default_steps or policy.steps
        try:
            self._check_compute(self.default_loops, self.default_steps)
        except WireError as fault:
            raise ConfigError(str(fault)) from None
        self._clock = clock
        self._started_s = clock.now
        self._sessions = Sessions()
        self._job: Job | None = None
        self._ended_s: float | None = None
        self.answered = 0
        self.refused = 0
        # Room for the honest mistake (float64 images): it deserves DTYPE, not TOO_BIG.
        declared = sum(_nbytes(t.shape, t.dtype) for t in policy.spec.observations)
        self.max_bytes = 8 * declared + MAX_HEADER_BYTES

    @property
    def busy(self) -> bool:
        """Whether a job is out and not yet finished."""
        return self._job is not None

    @property
    def sessions(self) -> int:
        """Open sessions."""
        return len(self._sessions)

    @property
    def next_deadline_s(self) -> float:
        """When `expire` next has something to say."""
        return self._sessions.next_deadline_s

    def receive(self, peer: bytes, frames: Sequence[bytes]) -> list[Reply]:
        """Answer a message at once, or let its observation wait for compute. Never raises."""
        received_s = self._clock.now
        try:
            message, tensors = decode(frames, self.max_bytes)
        except WireError as fault:
            return [self._refuse(peer, fault)]
        try:
            return self._handle(peer, message, tensors, received_s)
        except WireError as fault:
            # A replayed seq has its one answer already, so this one names none.
            fault.seq = 0 if fault.code == ErrorCode.REPLAYED else message.seq
            return [self._refuse(peer, fault)]

    def expire(self) -> list[Reply]:
        """Refuse what can no longer be computed in time."""
        return self._refusals(self._sessions.expire(self._clock.now))

    def next_job(self) -> Job | None:
        """The inference to run now; None while one runs or nothing waits. Call `expire` first."""
        if self._job is not None:
            return None
        request = self._sessions.take()
        if request is not None:
            loops = request.obs.loops or self.default_loops
            steps = request.obs.steps or self.default_steps
            self._job = Job(request, loops, steps, self._clock.now)
        return self._job

    def finish(self, outcome: Inference | Exception, ended_s: float) -> list[Reply]:
        """The answer to the job that was out: its chunk, or why there is none."""
        job, self._job, self._ended_s = self._job, None, ended_s
        if job is None:
            raise RuntimeError("no job is out.")
        request, obs = job.request, job.request.obs
        refusal = self._sessions.finished(request)
        if refusal is not None:
            return self._refusals([refusal])
        if isinstance(outcome, ObservationError):  # what it was told, not what it computed
            asked = WireError(ErrorCode.UNSUPPORTED, str(outcome), obs.seq)
            return [self._refuse(request.peer, asked)]
        fault = self._inference_fault(outcome)
        if isinstance(outcome, Exception) or fault:
            return [self._refuse(request.peer, WireError(ErrorCode.INTERNAL, fault, obs.seq))]
        self.answered += 1
        timing = Timing(
            queue=_us(job.started_s - request.ready_s),
            decode=_us(request.ready_s - request.received_s),
            encode=outcome.encode_us,
            denoise=outcome.denoise_us,
            send=_us(self._clock.now - ended_s),
        )
        chunk = Chunk(
            seq=obs.seq,
            epoch=obs.epoch,
            step=obs.step,
            observed_ns=obs.observed_ns,
            loops=outcome.loops,
            steps=outcome.steps,
            model_id=self._model_id,
            timing_us=timing,
        )
        return [Reply(request.peer, chunk, {ACTION: outcome.actions})]

    def lost(self, peer: bytes) -> None:
        """A connection is gone: nobody is left to answer."""
        self._sessions.drop(peer, ErrorCode.CLOSING, "")

    def close(self, reason: str) -> list[Reply]:
        """Refuse everything that waits or is in compute, and say BYE to every session."""
        peers, replies = self._sessions.peers, list[Reply]()
        if self._job is not None:
            request, self._job = self._job.request, None
            replies.append(
                self._refuse(request.peer, WireError(ErrorCode.CLOSING, reason, request.obs.seq))
            )
        for peer in peers:
            replies += self._refusals(self._sessions.drop(peer, ErrorCode.CLOSING, reason))
            replies.append(Reply(peer, Bye(seq=0, reason=reason)))
        return replies

    def _handle(
        self, peer: bytes, message: Message, tensors: Observation, received_s: float
    ) -> list[Reply]:
        match message:
            case Obs():
                return self._observe(peer, message, tensors, received_s)
            case Ping():
                return [Reply(peer, self._pong(message.seq))]
            case Hello():
                return self._hello(peer, message, received_s)
            case Reset():
                refusals = self._sessions.reset(peer, message.epoch, message.seed, received_s)
                ack = ResetAck(seq=message.seq, epoch=message.epoch, seed=message.seed)
                return [*self._refusals(refusals), Reply(peer, ack)]
            case Bye():
                return self._refusals(
                    self._sessions.drop(peer, ErrorCode.CLOSING, "the client said BYE.")
                )
            case _:
                kind = type(message).__name__.upper()
                raise WireError(ErrorCode.UNKNOWN_KIND, f"{kind} is for clients, not servers.")

    def _hello(self, peer: bytes, hello: Hello, now: float) -> list[Reply]:
        if not hello.protocol_min <= PROTOCOL_VERSION <= hello.protocol_max:
            raise WireError(
                ErrorCode.VERSION,
                f"the client speaks protocol {hello.protocol_min} to {hello.protocol_max}, the "
                f"server {PROTOCOL_VERSION}. Use the same loopdit on both sides.",
            )
        digest = self._spec.digest()
        if hello.spec_digest not in ("", digest):
            raise WireError(
                ErrorCode.SPEC_MISMATCH,
                f"the client was made for spec {hello.spec_digest[:32]}, the served policy "
                f"({self._model_id}) has spec {digest}. Serve the bundle the client was made for.",
            )
        epoch, refusals = self._sessions.open(peer, hello.session, now)
        welcome = Welcome(
            seq=hello.seq,
            protocol=PROTOCOL_VERSION,
            session=hello.session,
            epoch=epoch,
            model_id=self._model_id,
            horizon=self._horizon,
            loops=self._loops,
            default_loops=self.default_loops,
            default_steps=self.default_steps,
            spec_digest=digest,
            spec=self._spec.to_dict(),
        )
        return [*self._refusals(refusals), Reply(peer, welcome)]

    def _observe(
        self, peer: bytes, obs: Obs, observation: Observation, received_s: float
    ) -> list[Reply]:
        self._sessions.admit(peer, obs, received_s)
        self._check_compute(obs.loops or self.default_loops, obs.steps or self.default_steps)
        check_observation(self._spec, observation)
        now = self._clock.now
        return self._refusals(self._sessions.submit(peer, obs, observation, received_s, now))

    def _check_compute(self, loops: int, steps: int) -> None:
        if loops not in self._loops:
            offered = ", ".join(str(n) for n in self._loops)
            raise WireError(
                ErrorCode.UNSUPPORTED, f"loops={loops} is not served. Ask for one of: {offered}."
            )
        if not 1 <= steps <= MAX_STEPS:
            raise WireError(
                ErrorCode.UNSUPPORTED, f"steps={steps} is not served. Ask for 1 to {MAX_STEPS}."
            )

    def _pong(self, seq: int) -> Pong:
        now = self._clock.now
        return Pong(
            seq=seq,
            model_id=self._model_id,
            busy_us=_us(now - self._job.started_s) if self._job else 0,
            idle_us=_us(now - self._ended_s) if self._ended_s is not None else 0,
            queued=self._sessions.waiting,
            sessions=len(self._sessions),
            answered=self.answered,
            refused=self.refused,
            uptime_us=_us(now - self._started_s),
        )

    def _inference_fault(self, outcome: Inference | Exception) -> str:
        """Why this outcome must not reach a robot; empty if it may."""
        if isinstance(outcome, Exception):
            first_line = (str(outcome).splitlines() or [""])[0]
            return f"the policy raised {type(outcome).__name__}: {first_line}"
        actions, expected = outcome.actions, (self._horizon, *self._spec.action.shape)
        if actions.shape != expected or actions.dtype != np.float32:
            return (
                f"the policy made {actions.dtype} actions {actions.shape}, not float32 {expected}."
            )
        return "" if np.isfinite(actions).all() else "the policy made actions that are not finite."

    def _refuse(self, peer: bytes, fault: WireError) -> Reply:
        self.refused += 1
        return Reply(peer, error(fault.code, str(fault), fault.seq))

    def _refusals(self, refusals: list[Refusal]) -> list[Reply]:
        return [self._refuse(r.peer, WireError(r.code, r.message, r.seq)) for r in refusals]


def _nbytes(shape: tuple[int, ...], dtype: str) -> int:
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize


def _us(seconds: float) -> int:
    return max(0, round(seconds * 1e6))
