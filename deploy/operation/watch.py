"""What a `Console` shows: a server that answers robots, or one that owns the control loop."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np
from prometheus_client.core import Metric

from loopdit.deploy.operation import metrics
from loopdit.deploy.operation.counts import Counts
from loopdit.deploy.operation.live_view import LiveView
from loopdit.deploy.operation.recorder import Recorder
from loopdit.deploy.serving.server import PolicyServer


class Watch(Protocol):
    """From any thread."""

    @property
    def running(self) -> bool:
        """Whether there is somebody to answer a ping."""
        ...

    @property
    def warming(self) -> bool:
        """Whether there is nobody yet, because the policy warms up."""
        ...

    @property
    def stopped(self) -> bool:
        """Whether the emergency stop is pressed."""
        ...

    def metrics(self) -> Sequence[Metric]:
        """What was counted."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """What `live.js` shows, in plain JSON types."""
        ...

    def frame(self, camera: str) -> np.ndarray | None:
        """The latest frame (H, W, 3) uint8 of a camera, where there is one."""
        ...


class ReplyWatch:
    """The `Watch` of a server that answers robots."""

    def __init__(
        self, server: PolicyServer, counts: Counts, live: LiveView, recorder: Recorder | None
    ) -> None:
        self._server = server
        self._counts = counts
        self._live = live
        self._recorder = recorder

    @property
    def running(self) -> bool:
        """Whether there is somebody to answer a ping."""
        return self._server.running

    @property
    def warming(self) -> bool:
        """Whether there is nobody yet, because the policy warms up."""
        return not self._server.begun

    @property
    def stopped(self) -> bool:
        """Whether the emergency stop is pressed."""
        return self._counts.stop.pressed

    def metrics(self) -> Sequence[Metric]:
        """What was counted."""
        found = metrics.answered(self._counts, self._server.limited)
        if self._recorder is not None:
            found += metrics.recording(self._recorder.recorded)
        return found

    def to_dict(self) -> dict[str, Any]:
        """What `live.js` shows, in plain JSON types."""
        counts = self._counts
        return {
            "stop": {"pressed": counts.stop.pressed, "reason": counts.stop.reason},
            "errors": dict(counts.errors),
            "deadline_misses": counts.deadline_misses,
            "recorded": None if self._recorder is None else asdict(self._recorder.recorded),
            "control": None,
            **self._live.to_dict(),
        }

    def frame(self, camera: str) -> np.ndarray | None:
        """The latest frame of a camera, where there is one."""
        return self._live.frames.images.get(camera)
