"""What the server answers: every message in, the replies and the next inference out.

Pure but for the clock it is given: no sockets, no threads, no compute. The shell around it
(`server.py`) feeds it messages and finished inferences, and sends what it returns.
"""

from collections.abc import Mapping, Sequence
from itertools import count

import msgspec
import numpy as np

from loopdit.datasets.spec import Observation
from loopdit.deploy.clock import Clock
from loopdit.deploy.jpeg_frames import checked
from loopdit.deploy.messages import (
    Bye,
    ErrorCode,
    Estop,
    EstopAck,
    Hello,
    Message,
    Obs,
    Ping,
    Pong,
    Reset,
    ResetAck,
    WireError,
    error,
)
from loopdit.deploy.protocol import MAX_HEADER_BYTES, Frame, decode
from loopdit.deploy.quick_check import QuickCheck
from loopdit.deploy.robot.guide import GUIDE
from loopdit.deploy.robot.safety.watchdog import EmergencyStop
from loopdit.deploy.serving.answers import Job, chunk_for, microseconds
from loopdit.deploy.serving.batching import least_s, next_batch
from loopdit.deploy.serving.observation_check import check_observation
from loopdit.deploy.serving.offer import Offer
from loopdit.deploy.serving.planner import Rung
from loopdit.deploy.serving.served_policy import Inference, Outcome, ReplicaLost
from loopdit.deploy.serving.sessions import Refusal, Request, Sessions

ACTION = "action"
# A request whose replica is lost is computed by another; one that has lost two may be the reason.
_MAX_LOST = 2
PROBE_AFTER_S = 10.0


class Reply(msgspec.Struct, frozen=True):
    """A message to send to a connection."""

    peer: bytes
    message: Message
    tensors: Mapping[str, np.ndarray] = {}


class Dispatcher:
    """All the server's state between messages.

    Jobs may be out at once, as many as whoever runs them asks for; each is finished once.
    """

    def __init__(self, offer: Offer, clock: Clock) -> None:
        self.offer = offer
        self._clock = clock
        self._started_s = clock.now
        self._sessions = Sessions()
        self._jobs: dict[int, Job] = {}
        self._numbers = count(1)
        self._stop = EmergencyStop()
        self._closing = ""  # why nothing new is taken any more
        self._ended_s: float | None = None
        self.answered = 0
        self.refused = 0
        self._quick = QuickCheck(self.offer.spec)  # another policy has the same
        self.shared_memory = ""  # what WELCOME says of the lanes: see wire/lanes.py
        # Room for the honest mistake (float64 images): it deserves DTYPE, not TOO_BIG.
        declared = sum(_nbytes(t.shape, t.dtype) for t in offer.spec.observations)
        self.max_bytes = 8 * declared + MAX_HEADER_BYTES

    @property
    def busy(self) -> bool:
        """Whether a job is out and not yet finished."""
        return bool(self._jobs)

    @property
    def waiting(self) -> list[Request]:
        """The requests that wait for compute, the next one first."""
        return self._sessions.in_order()

    @property
    def sessions(self) -> int:
        """Open sessions."""
        return len(self._sessions)

    @property
    def epochs(self) -> dict[int, int]:
        """The present epoch of each open session, by its id."""
        return self._sessions.epochs

    @property
    def next_deadline_s(self) -> float:
        """When `expire` next has something to say."""
        return self._sessions.next_expiry_s(self._least_s)

    def receive(self, peer: bytes, frames: Sequence[Frame]) -> list[Reply]:
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
        late = self._sessions.expire(self._clock.now, self._least_s)
        if late and not self.busy:
            self.offer.planner.refused(len(late))
        return self._refusals(late)

    def next_job(self) -> Job | None:
        """The inference to run now; None if none is due. Call `expire` first, and this only where
        something is free to run it."""
        if not self._sessions.waiting:
            return None
        now = self._clock.now
        busy = {(r.session, r.obs.epoch) for job in self._jobs.values() for r in job.requests}
        batch = next_batch(self._sessions.in_order(), self.offer.planner, now, busy)
        if batch is None:
            return None
        self._sessions.take(batch.requests)
        may_stop = self.offer.may_stop and not batch.requests[0].obs.loops
        job = Job(next(self._numbers), batch.requests, batch.rung, may_stop, now, self.offer)
        self._jobs[job.number] = job
        return job

    def finish(self, job: Job, outcomes: Sequence[Outcome], ended_s: float) -> list[Reply]:
        """The answers to a job that was out: for each request its chunk, or why there is none."""
        if self._jobs.pop(job.number, None) is None:
            return []  # it was answered when the server closed
        self._ended_s = ended_s
        now = self._clock.now
        if all(isinstance(outcome, Inference) for outcome in outcomes):
            self._learn(job, outcomes, now)
        replies: list[Reply] = []
        for request, outcome in zip(job.requests, outcomes, strict=True):
            if isinstance(outcome, ReplicaLost) and request.lost + outcome.begun < _MAX_LOST:
                replies += self._refusals(self._given_back(request, outcome.begun))
            else:
                replies.append(self._answer(job, request, outcome, ended_s))
        return replies

    def replace(self, offer: Offer) -> list[Reply]:
        """Serve another policy of the same spec and horizon from now on; what is out is finished
        by the old one. Refuses what waits and asks for what the new one has not."""
        self.offer = offer

        def unserved(request: Request) -> str | None:
            try:
                offer.require(request.obs.loops, request.obs.steps)
            except WireError as fault:
                return str(fault)
            return None

        return self._refusals(self._sessions.refuse_waiting(unserved, ErrorCode.UNSUPPORTED))

    def drain(self, reason: str) -> list[Reply]:
        """Take nothing new, and refuse what waits; what is out may still be finished."""
        self._closing = reason
        return self._refusals(self._sessions.refuse_waiting(lambda _: reason, ErrorCode.CLOSING))

    def probe(self) -> list[Reply]:
        """A PONG (seq 0) that nobody asked for, to those not heard of for PROBE_AFTER_S: where it
        cannot be sent the connection is gone, and its session can be given up."""
        silent = self._sessions.silent_since(self._clock.now - PROBE_AFTER_S)
        return [Reply(peer, self._pong(0)) for peer in silent]

    def lost(self, peer: bytes) -> None:
        """A connection is gone: nobody is left to answer."""
        self._sessions.drop(peer, ErrorCode.CLOSING, "")

    def close(self, reason: str) -> list[Reply]:
        """Refuse everything that waits or is out, and say BYE to every session."""
        replies = self.drain(reason)
        for job in self._jobs.values():
            for request in job.requests:
                fault = WireError(ErrorCode.CLOSING, reason, request.obs.seq)
                replies.append(self._refuse(request.peer, fault))
        self._jobs.clear()
        for peer in self._sessions.peers:
            self._sessions.drop(peer, ErrorCode.CLOSING, reason)
            replies.append(Reply(peer, Bye(seq=0, reason=reason)))
        return replies

    def _press(self, peer: bytes, message: Estop) -> list[Reply]:
        """Press or release the emergency stop; what waits is refused, and what is in compute will
        be."""
        refusals: list[Refusal] = []
        if message.pressed:
            self._stop.press(message.reason or "a client pressed it")
            reason = self._stop.reason
            refusals = self._sessions.refuse_waiting(lambda _: reason, ErrorCode.STOPPED)
        else:
            self._stop.release()
        ack = EstopAck(seq=message.seq, pressed=self._stop.pressed, reason=self._stop.reason)
        return [*self._refusals(refusals), Reply(peer, ack)]

    def _handle(
        self, peer: bytes, message: Message, tensors: Observation, received_s: float
    ) -> list[Reply]:
        if self._closing and not isinstance(message, (Ping, Estop, Bye)):
            raise WireError(ErrorCode.CLOSING, self._closing)
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
            case Estop():
                return self._press(peer, message)
            case Bye():
                return self._refusals(
                    self._sessions.drop(peer, ErrorCode.CLOSING, "the client said BYE.")
                )
            case _:
                kind = type(message).__name__.upper()
                raise WireError(ErrorCode.UNKNOWN_KIND, f"{kind} is for clients, not servers.")

    def _hello(self, peer: bytes, hello: Hello, now: float) -> list[Reply]:
        self.offer.require_understood(hello)
        epoch, refusals = self._sessions.open(peer, hello.session, now)
        welcome = self.offer.welcome(hello, epoch, self.shared_memory)
        return [*self._refusals(refusals), Reply(peer, welcome)]

    def _observe(
        self, peer: bytes, obs: Obs, observation: Observation, received_s: float
    ) -> list[Reply]:
        self._sessions.admit(peer, obs, received_s)
        self._require_released(obs.seq)
        self.offer.require(obs.loops, obs.steps)
        shown = observation
        if obs.jpeg:
            observation, shown = checked(observation, obs.jpeg, self.offer.spec)
        if not self._quick.passes(shown):
            check_observation(self.offer.spec, shown)
        now = self._clock.now
        return self._refusals(self._sessions.submit(peer, obs, observation, received_s, now))

    def _least_s(self, request: Request) -> float:
        return least_s(request, self.offer.planner)

    def _given_back(self, request: Request, begun: bool) -> list[Refusal]:
        if self._closing:
            return [Refusal(request.peer, request.obs.seq, ErrorCode.CLOSING, self._closing)]
        if self._stop.pressed:
            return [Refusal(request.peer, request.obs.seq, ErrorCode.STOPPED, self._stop.reason)]
        return self._sessions.give_back(request, begun)

    def _learn(self, job: Job, outcomes: Sequence[Outcome], now: float) -> None:
        # One that is pulled towards a plan takes longer than those that the planner knows.
        first = outcomes[0]
        if isinstance(first, Inference) and GUIDE not in job.requests[0].observation:
            ran = Rung(max(o.loops for o in outcomes if isinstance(o, Inference)), first.steps)
            compute_s = (first.encode_us + first.denoise_us) / 1e6
            around_s = now - job.started_s - compute_s
            job.offer.planner.observe(ran, len(outcomes), compute_s, around_s)

    def _answer(self, job: Job, request: Request, outcome: Outcome, ended_s: float) -> Reply:
        refusal = self._sessions.finished(request)
        if refusal is not None:
            (reply,) = self._refusals([refusal])
            return reply
        try:
            self._require_released(request.obs.seq)
            chunk, actions = chunk_for(job, request, outcome, ended_s, self._clock.now)
        except WireError as fault:
            return self._refuse(request.peer, fault)
        self.answered += 1
        return Reply(request.peer, chunk, {ACTION: actions})

    def _require_released(self, seq: int) -> None:
        if self._stop.pressed:
            raise WireError(ErrorCode.STOPPED, f"emergency stop: {self._stop.reason}", seq)

    def _pong(self, seq: int) -> Pong:
        now = self._clock.now
        began_s = [job.started_s for job in self._jobs.values()]
        return Pong(
            seq=seq,
            model_id=self.offer.model_id,
            busy_us=microseconds(now - min(began_s)) if began_s else 0,
            idle_us=microseconds(now - self._ended_s) if self._ended_s is not None else 0,
            queued=self._sessions.waiting,
            sessions=len(self._sessions),
            answered=self.answered,
            refused=self.refused,
            uptime_us=microseconds(now - self._started_s),
        )

    def _refuse(self, peer: bytes, fault: WireError) -> Reply:
        self.refused += 1
        return Reply(peer, error(fault.code, str(fault), fault.seq))

    def _refusals(self, refusals: list[Refusal]) -> list[Reply]:
        return [self._refuse(r.peer, WireError(r.code, r.message, r.seq)) for r in refusals]


def _nbytes(shape: tuple[int, ...], dtype: str) -> int:
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
