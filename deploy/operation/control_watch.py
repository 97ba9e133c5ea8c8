"""What a console shows of control mode: what the loop publishes, heard as any robot hears it, and
the cameras of what it was last told is seen.

A thread of its own subscribes to ACTION and STATUS; of what is seen the loop leaves a reference.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import msgspec
import numpy as np
import zmq
from prometheus_client.core import Metric

from loopdit.datasets.spec import PolicySpec
from loopdit.deploy.messages import WireError
from loopdit.deploy.operation import metrics
from loopdit.deploy.operation.control_recorder import ControlRecorder
from loopdit.deploy.operation.live_view import FRAMES_PERIOD_S, Frames
from loopdit.deploy.robot.control.controller import Acted
from loopdit.deploy.robot.control.messages import CONTROL_WIRE, Action, Status
from loopdit.deploy.robot.control.seen_history import Seen
from loopdit.deploy.robot.control.sockets import ControlEndpoints
from loopdit.deploy.robot.safety.safety_filter import EMERGENCY_STOP, WATCHDOG
from loopdit.deploy.security.curve import CurveKeys

_SHOWN_S = 4.0  # of actions
_LOOK_MS = 100
_MAX_BYTES = 1 << 16
_WHY = {
    EMERGENCY_STOP: "the emergency stop is pressed",
    WATCHDOG: "the watchdog, no fresh action came; a RESET lets it go on",
}


class ControlWatch:
    """A `Watch`, from here until `close`, of the loop that publishes at `endpoints`."""

    def __init__(
        self,
        endpoints: ControlEndpoints,
        spec: PolicySpec,
        rate_hz: float,
        recorder: ControlRecorder | None = None,
    ) -> None:
        self._recorder = recorder
        self._spec = spec
        self._rate_hz = rate_hz
        self._actions: deque[np.ndarray] = deque(maxlen=max(2, round(_SHOWN_S * rate_hz)))
        self._source, self._heard_s = "", -1.0
        self._status: Status | None = None
        self._seen: Seen | None = None
        self._frames, self._shown_s = Frames(0, {}), -math.inf
        self._closing = False
        self._thread = threading.Thread(
            target=self._listen,
            args=(endpoints.actions, *endpoints.keys),
            name="control-watch",
            daemon=True,
        )
        self._thread.start()

    @property
    def running(self) -> bool:
        """It ends with its process, and this with it."""
        return True

    @property
    def warming(self) -> bool:
        """Whether nothing has been heard of it yet."""
        return self._status is None and self._heard_s < 0

    @property
    def stopped(self) -> bool:
        """Whether the emergency stop is pressed."""
        return self._source == EMERGENCY_STOP

    def metrics(self) -> Sequence[Metric]:
        """Of the last STATUS, and what was recorded."""
        found = [] if self._status is None else metrics.controlled(self._status)
        if self._recorder is not None:
            found += metrics.recording(self._recorder.recorded)
        return found

    def to_dict(self) -> dict[str, Any]:
        """What `live.js` shows, in plain JSON types."""
        action = self._spec.action
        names = action.labels or tuple(str(i) for i in range(action.shape[0]))
        units = action.units or ("",) * len(names)
        played = np.array(self._actions.copy(), float)
        trace = {
            "age_s": len(played) / self._rate_hz,
            "actions": np.round(played, 5).tolist(),
        }
        status = self._status
        return {
            "stop": {"pressed": self.stopped, "reason": _WHY.get(self._source, "")},
            "errors": {},
            "recorded": None if self._recorder is None else asdict(self._recorder.recorded),
            "control": None if status is None else msgspec.to_builtins(_named(status)),
            "cameras": [camera.name for camera in self._spec.cameras],
            "frames": self._newest_frames().number,
            "actions": [
                {"label": name, "unit": unit} for name, unit in zip(names, units, strict=True)
            ],
            "period_s": 1 / self._rate_hz,
            "silent_s": round(time.monotonic() - self._heard_s, 2) if self._heard_s > 0 else None,
            "session": "",
            "chunks": [],
            "traces": [trace] if len(played) else [],
        }

    def frame(self, camera: str) -> np.ndarray | None:
        """The latest frame of a camera, where there is one."""
        return self._frames.images.get(camera)

    def seen(self, seen: Seen) -> None:
        """See `ControlObserver`."""
        self._seen = seen

    def acted(self, step: int, acted: Acted) -> None:
        """See `ControlObserver`; what is published is heard."""

    def close(self) -> None:
        """Listen no more."""
        self._closing = True
        self._thread.join()

    def _newest_frames(self) -> Frames:
        """As often as a page shows them."""
        seen, now = self._seen, time.monotonic()
        if seen is not None and now - self._shown_s >= FRAMES_PERIOD_S:
            cameras = [c.name for c in self._spec.cameras if c.name in seen.observation]
            images = {name: seen.observation[name] for name in cameras}
            self._frames, self._shown_s = Frames(self._frames.number + 1, images), now
        return self._frames

    def _listen(self, endpoint: str, own: CurveKeys | None, server_key: bytes) -> None:
        with zmq.Context() as context, context.socket(zmq.SUB) as heard:
            heard.setsockopt(zmq.LINGER, 0)
            heard.setsockopt(zmq.IPV6, int("[" in endpoint))
            if own is not None:
                own.secure_client(heard, server_key)
            heard.subscribe(b"")
            heard.connect(endpoint)
            while not self._closing:
                if not heard.poll(_LOOK_MS):
                    continue
                try:
                    message, tensors = CONTROL_WIRE.decode(heard.recv_multipart(), _MAX_BYTES)
                except WireError:  # of a newer version: what is not understood is not shown
                    continue
                if isinstance(message, Action):
                    self._actions.append(tensors["action"].copy())
                    self._source, self._heard_s = message.source, time.monotonic()
                elif isinstance(message, Status):
                    self._status = message


def _named(status: Status) -> dict[str, Any]:
    found = msgspec.structs.asdict(status)
    return found | {name: msgspec.structs.asdict(found[name]) for name in ("late_us", "chunk_us")}
