"""Who is connected and whose observation is next: sessions, their slots, and the order of work.

Pure: time is an argument, nothing here sends or computes. Each session has one slot, in which the
newest observation replaces an older one that still waits. Sessions take turns. A RESET opens a new
epoch, and what belongs to an older one is refused. Whatever leaves this module without being
computed leaves as a Refusal, so that every request is answered exactly once.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from loopdit.deploy.messages import ErrorCode, Obs, WireError

MAX_SESSIONS = 256
# A session this long without a message gives way to a new one when the table is full.
IDLE_S = 30.0


@dataclass(frozen=True)
class Request:
    """An observation that waits for, or is in, compute."""

    peer: bytes
    session: int
    obs: Obs
    observation: Mapping[str, np.ndarray]
    noise_seed: int
    received_s: float
    ready_s: float  # when it had been read and checked
    deadline_s: float


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


class Sessions:
    """The table of sessions; every method that can refuse a waiting request returns Refusals."""

    def __init__(self, max_sessions: int = MAX_SESSIONS, idle_s: float = IDLE_S) -> None:
        self._max_sessions = max_sessions
        self._idle_s = idle_s
        self._sessions: dict[int, _Session] = {}
        self._of_peer: dict[bytes, int] = {}
        # In the order of their turns. Python's dict keeps a replaced request's place in the
        # line, and a session that was served joins again at its end: round robin.
        self._waiting: dict[int, Request] = {}

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
    def next_deadline_s(self) -> float:
        """When `expire` next has something to refuse; infinity if never."""
        return min((r.deadline_s for r in self._waiting.values()), default=math.inf)

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
        )
        if old is None:
            return []
        message = f"a newer observation (seq {obs.seq}) took its place."
        return [Refusal(old.peer, old.obs.seq, ErrorCode.SUPERSEDED, message)]

    def expire(self, now: float) -> list[Refusal]:
        """Refuse, as LATE, every waiting request whose budget is gone."""
        late = [s for s, request in self._waiting.items() if now >= request.deadline_s]
        refusals: list[Refusal] = []
        for session_id in late:
            request = self._waiting[session_id]
            waited_ms = (now - request.received_s) * 1e3
            refusals += self._refuse_waiting(
                session_id,
                ErrorCode.LATE,
                f"its budget of {request.obs.budget_us / 1e3:.1f} ms was gone after "
                f"{waited_ms:.1f} ms, before compute began.",
            )
        return refusals

    def take(self) -> Request | None:
        """The next request to compute (call `expire` first), or None."""
        if not self._waiting:
            return None
        return self._waiting.pop(next(iter(self._waiting)))

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
