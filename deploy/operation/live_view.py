"""What the live page shows: the last chunks of one session, its cameras, its times.

Written in the server's I/O thread, read by those that answer browsers. Frames are copied only while
somebody looks, and at most five times a second. With several sessions it follows one, until that
one has been silent for some seconds.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from loopdit.datasets.spec import PolicySpec
from loopdit.deploy.clock import Clock
from loopdit.deploy.messages import Chunk
from loopdit.deploy.operation.counts import is_late
from loopdit.deploy.serving.answers import Job
from loopdit.deploy.serving.dispatcher import Reply
from loopdit.deploy.serving.sessions import Request

FRAMES_PERIOD_S = 0.2
WATCHED_S = 3.0  # after it was last asked, nobody looks any more
_FOLLOWED_S = 3.0
_CHUNKS = 240  # whose times are kept
_TRACES = 6  # whose actions are kept


@dataclass(frozen=True)
class Frames:
    """The cameras of one observation; `number` counts them."""

    number: int
    images: Mapping[str, np.ndarray]  # by camera, (H, W, 3) uint8


@dataclass(frozen=True)
class _Trace:
    began_s: float  # when its observation was received
    actions: np.ndarray  # (H, A)


class LiveView:
    """An `Observer`, and the JSON that it makes of what it saw."""

    def __init__(self, spec: PolicySpec, clock: Clock) -> None:
        self._spec = spec
        self._clock = clock
        self._followed, self._heard_s = -1, -math.inf
        self._times: deque[dict[str, Any]] = deque(maxlen=_CHUNKS)
        self._traces: deque[_Trace] = deque(maxlen=_TRACES)
        self._watched_s = self._frames_s = -math.inf
        self.frames = Frames(0, {})
        self._number = 0

    def replying(self, replies: Sequence[Reply], job: Job | None) -> None:
        """Note the chunks of the followed session."""
        if job is None:
            return
        now = self._clock.now
        for reply in replies:
            message = reply.message
            if not isinstance(message, Chunk):
                continue
            request = request_of(reply, job)
            if now - self._heard_s > _FOLLOWED_S and request.session != self._followed:
                self._followed = request.session
                self._times.clear()
                self._traces.clear()
            if request.session == self._followed:
                self._heard_s = now
                self._note(request, message, reply, is_late(reply, job, now), now)

    def turned(self, epochs: Mapping[int, int]) -> None:
        """Another session is followed as soon as this one has ended."""
        if self._followed not in epochs:
            self._heard_s = -math.inf

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, for `live.js`. Who asks is taken to be looking for a while."""
        self._watched_s = now = self._clock.now
        action, period_s = self._spec.action, self._spec.control_period_s
        silent_s = now - self._heard_s
        names = action.labels or tuple(str(i) for i in range(action.shape[0]))
        return {
            "cameras": [camera.name for camera in self._spec.cameras],
            "frames": self.frames.number,
            "actions": [
                {"label": name, "unit": unit}
                for name, unit in zip(names, action.units or [""] * len(names), strict=True)
            ],
            "period_s": period_s,
            "session": f"{self._followed:x}"[:6] if self._followed >= 0 else "",
            "silent_s": round(silent_s, 2) if math.isfinite(silent_s) else None,
            "chunks": list(self._times),
            "traces": [
                {
                    "age_s": round(now - trace.began_s, 4),
                    "actions": np.round(trace.actions.astype(float), 5).tolist(),
                }
                for trace in list(self._traces)
            ],
        }

    def _note(self, request: Request, chunk: Chunk, reply: Reply, late: bool, now: float) -> None:
        self._number += 1
        self._times.append(
            {
                "n": self._number,
                "loops": chunk.loops,
                "steps": chunk.steps,
                "us": msgspec.structs.astuple(chunk.timing_us),
                "late": late,
            }
        )
        self._traces.append(_Trace(request.received_s, next(iter(reply.tensors.values()))))
        looked_at = now - self._watched_s < WATCHED_S
        if looked_at and now - self._frames_s >= FRAMES_PERIOD_S:
            self._frames_s = now
            images = {
                camera.name: np.array(newest(request.observation[camera.name], self._spec))
                for camera in self._spec.cameras
                if camera.name in request.observation
            }
            self.frames = Frames(self.frames.number + 1, images)


def request_of(reply: Reply, job: Job) -> Request:
    """The one that this reply to a job answers."""
    return next(
        request
        for request in job.requests
        if request.peer == reply.peer and request.obs.seq == reply.message.seq
    )


def newest(tensor: np.ndarray, spec: PolicySpec) -> np.ndarray:
    """The present one, of a tensor that may have a history."""
    return tensor[-1] if spec.history > 1 else tensor
