"""Who is connected and whose observation is next: sessions, their slots, and the order of work.

Pure: time is an argument, nothing here sends or computes. Each session has one slot, in which the
newest observation replaces an older one that still waits. Sessions take turns in rounds: in each
everybody who waits is served once, the earliest deadline first, however often somebody sends. A
RESET opens a new epoch, and what belongs to an older one is refused. Whatever leaves this module
without being computed leaves as a Refusal, so that every request is answered exactly once.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from loopdit.deploy.messages import ErrorCode, Obs, WireError

MAX_SESSIONS = 256
# A session this long without a message gives way to a new one when the table is full.
IDLE_S = 30.0


# A struct is made in an eighth of the time of a frozen dataclass: one is made for each observation.
class Request(msgspec.Struct, frozen=True):
    """An observation that waits for, or is in, compute."""

    peer: bytes
    session: int
    obs: Obs
    observation: Mapping[str, np.ndarray]
    noise_seed: int
    received_s: float
    ready_s: float  # when it had been read and checked
    deadline_s: float  # when its chunk is wanted
    round: int = 0  # in which its session has its turn
    place: int = 0  # in the order of arrival
    lost: int = 0  # how often what computed it was lost
    frames_s: float = 0.0  # what it took to decode its frames, where they were JPEGs

    @property
    def order(self) -> tuple[int, float, int]:
        """The smallest is served first."""
        return self.round, self.deadline_s, self.place


@dataclass(frozen=True)
class Refusal:
    """A request that will not be computed: which one, of whom, and why."""

    peer: bytes
    seq: int
    code: ErrorCode
    message: str


@dataclass
class _Session:
    peer: bytes
    epoch: int
    seed: int
    last_seq: int
    seen_s: float
    served_round: int = -1


class Sessions:
    """The table of sessions; every method that can refuse a waiting request returns Refusals."""

    def __init__(self, max_sessions: int = MAX_SESSIONS, idle_s: float = IDLE_S) -> None:
        self._max_sessions = max_sessions
        self._idle_s = idle_s
        self._sessions: dict[int, _Session] = {}
        self._of_peer: dict[bytes, int] = {}
        self._waiting: dict[int, Request] = {}
        self._round = 0
        self._places = 0

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def waiting(self) -> int:
        """Requests that wait for compute."""
        return len(self._waiting)

    @property
    def peers(self) -> list[bytes]:
        """The connection of each session."""
        return [session.peer for session in self._sessions.values()]

    @property
    def epochs(self) -> dict[int, int]:
        """The present epoch of each session."""
        return {session_id: session.epoch for session_id, session in self._sessions.items()}

    def silent_since(self, then_s: float) -> list[bytes]:
        """The connections that sent nothing after that."""
        return [s.peer for s in self._sessions.values() if s.seen_s <= then_s]

    def next_expiry_s(self, least_s: Callable[[Request], float]) -> float:
        """When `expire` next has something to refuse; infinity if never."""
        return min((r.deadline_s - least_s(r) for r in self._waiting.values()), default=math.inf)

    def open(self, peer: bytes, session_id: int, now: float) -> tuple[int, list[Refusal]]:
        """Open a session (epoch 1) or resume it on this connection (next epoch); the epoch.

        Raises WireError(OVERLOAD) when the table is full of sessions in use.
        """
        refusals: list[Refusal] = []
        if self._of_peer.get(peer, session_id) != session_id:
            refusals += self.drop(peer, ErrorCode.STALE_EPOCH, "its connection opened a session.")
        session = self._sessions.get(session_id)
        if session is None:
            refusals += self._make_room(now)
            session = _Session(peer, 0, 0, 0, now)
            self._sessions[session_id] = session
        elif session.peer != peer:
            del self._of_peer[session.peer]
            session.last_seq = 0
        self._of_peer[peer] = session_id
        session.peer, session.epoch, session.seed, session.seen_s = peer, session.epoch + 1, 0, now
        refusals += self._refuse_waiting(
            session_id, ErrorCode.STALE_EPOCH, "the session was opened again."
        )
        return session.epoch, refusals

    def reset(self, peer: bytes, epoch: int, seed: int, now: float) -> list[Refusal]:
        """Begin `epoch`. Raises WireError(NO_SESSION), or STALE_EPOCH if it is not a later one."""
        session_id, session = self._find(peer, now)
        if epoch <= session.epoch:
            raise WireError(
                ErrorCode.STALE_EPOCH,
                f"reset to epoch {epoch}; the session is in epoch {session.epoch}.",
            )
        session.epoch, session.seed = epoch, seed
        return self._refuse_waiting(session_id, ErrorCode.STALE_EPOCH, "the session was reset.")

    def admit(self, peer: bytes, obs: Obs, now: float) -> None:
        """Whether this OBS may be looked at, before any work is spent on its tensors.

        Raises WireError(NO_SESSION, REPLAYED or STALE_EPOCH).
        """
        _, session = self._find(peer, now)
        if obs.seq <= session.last_seq:
            # Not an answer to that seq, which has had or will have its one: seq 0.
            raise WireError(
                ErrorCode.REPLAYED, f"seq {obs.seq} does not follow {session.last_seq}."
            )
        session.last_seq = obs.seq
        if obs.epoch != session.epoch:
            raise WireError(
                ErrorCode.STALE_EPOCH,
                f"observation of epoch {obs.epoch}; the session is in epoch {session.epoch}.",
                obs.seq,
            )

    def submit(
        self,
        peer: bytes,
        obs: Obs,
        observation: Mapping[str, np.ndarray],
        received_s: float,
        now: float,
    ) -> list[Refusal]:
        """Put an admitted, checked observation into its session's slot; the replaced one if any."""
        session_id, session = self._find(peer, now)
        old = self._waiting.get(session_id)
        self._places += 1
        self._waiting[session_id] = Request(
            peer=peer,
            session=session_id,
            obs=obs,
            observation=observation,
            # A session without a seed gives the request's own; else no two of them collide.
            noise_seed=(session.seed << 64) | obs.seed,
            received_s=received_s,
            ready_s=now,
            deadline_s=received_s + obs.budget_us / 1e6 if obs.budget_us else math.inf,
            # A replaced request leaves its place in the line to the one that replaces it.
            round=old.round if old else max(self._round, session.served_round + 1),
            place=old.place if old else self._places,
        )
        if old is None:
            return []
        return [_superseded(old, obs.seq)]

    def expire(self, now: float, least_s: Callable[[Request], float]) -> list[Refusal]:
        """Refuse, as LATE, every waiting request whose chunk cannot be there any more: `least_s` is
        what it takes at least."""
        refusals: list[Refusal] = []
        for session_id, request in list(self._waiting.items()):
            if math.isinf(request.deadline_s):
                continue
            needed_s = least_s(request)
            if now < request.deadline_s - needed_s:
                continue
            waited_ms = (now - request.received_s) * 1e3
            takes = f", and its chunk takes {needed_s * 1e3:.1f} ms" if needed_s else ""
            refusals += self._refuse_waiting(
                session_id,
                ErrorCode.LATE,
                f"its budget of {request.obs.budget_us / 1e3:.1f} ms does not suffice: it waited "
                f"{waited_ms:.1f} ms{takes}.",
            )
        return refusals

    def in_order(self) -> list[Request]:
        """Those that wait, the next one first."""
        return sorted(self._waiting.values(), key=lambda request: request.order)

    def take(self, requests: Sequence[Request]) -> None:
        """They go to compute; the first is the one whose turn it is."""
        self._round = max(self._round, requests[0].round)
        for request in requests:
            del self._waiting[request.session]
            self._sessions[request.session].served_round = request.round

    def give_back(self, request: Request, begun: bool = True) -> list[Refusal]:
        """It was taken, and what was to compute it (or had `begun` to) was lost: it waits again,
        where it was in the line, unless it may not be answered or a newer one waits."""
        refusal = self.finished(request)
        if refusal is not None:
            return [refusal]
        newer = self._waiting.get(request.session)
        if newer is not None:
            return [_superseded(request, newer.obs.seq)]
        self._waiting[request.session] = msgspec.structs.replace(request, lost=request.lost + begun)
        return []

    def refuse_waiting(
        self, why: Callable[[Request], str | None], code: ErrorCode
    ) -> list[Refusal]:
        """Refuse those that `why` has a reason for."""
        reasons = [(session_id, why(request)) for session_id, request in self._waiting.items()]
        return [
            refusal
            for session_id, reason in reasons
            if reason is not None
            for refusal in self._refuse_waiting(session_id, code, reason)
        ]

    def finished(self, request: Request) -> Refusal | None:
        """After compute: None if its chunk may be sent, else why it may not."""
        session = self._sessions.get(request.session)
        if session and session.peer == request.peer and session.epoch == request.obs.epoch:
            return None
        message = "the session was reset while it was computed."
        return Refusal(request.peer, request.obs.seq, ErrorCode.STALE_EPOCH, message)

    def drop(self, peer: bytes, code: ErrorCode, reason: str) -> list[Refusal]:
        """Forget a connection's session, if it has one."""
        session_id = self._of_peer.pop(peer, None)
        if session_id is None:
            return []
        refusals = self._refuse_waiting(session_id, code, reason)
        del self._sessions[session_id]
        return refusals

    def _find(self, peer: bytes, now: float) -> tuple[int, _Session]:
        session_id = self._of_peer.get(peer)
        if session_id is None:
            raise WireError(ErrorCode.NO_SESSION, "no session on this connection: send HELLO.")
        session = self._sessions[session_id]
        session.seen_s = now
        return session_id, session

    def _refuse_waiting(self, session_id: int, code: ErrorCode, reason: str) -> list[Refusal]:
        request = self._waiting.pop(session_id, None)
        return [] if request is None else [Refusal(request.peer, request.obs.seq, code, reason)]

    def _make_room(self, now: float) -> list[Refusal]:
        if len(self._sessions) < self._max_sessions:
            return []
        oldest = min(self._sessions.values(), key=lambda session: session.seen_s)
        if now - oldest.seen_s < self._idle_s:
            raise WireError(
                ErrorCode.OVERLOAD, f"{self._max_sessions} sessions are in use, the most it takes."
            )
        return self.drop(oldest.peer, ErrorCode.OVERLOAD, "the session gave way to a new one.")


def _superseded(old: Request, newer: int) -> Refusal:
    message = f"a newer observation (seq {newer}) took its place."
    return Refusal(old.peer, old.obs.seq, ErrorCode.SUPERSEDED, message)
