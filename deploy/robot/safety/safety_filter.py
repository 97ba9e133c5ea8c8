"""Between policy and robot: each action through its guards, and what is done when none may pass.

    an emergency stop, or a watchdog that has run out   -> the fallback: hold, or go to a pose
    no action at this step                              -> hold
    finite -> range -> rate -> workspace -> gripper

The workspace comes after the rate, because it is the harder limit: a command that would leave the
box is cut whatever that asks of the arm's acceleration. Holding after a stop, too, is at once, and
passes no guard. Until the policy has said a first action there is none at all: where a robot is
must not be made up.

Each guard that changes an action counts it, and logs when it begins to. Pure but for the log.

Shapes: A action dim.
"""

import logging
from collections import Counter
from dataclasses import dataclass

import numpy as np

from loopdit.datasets.spec import PROPRIO, Observation, PolicySpec
from loopdit.deploy.robot.safety.config import SafetyLimits
from loopdit.deploy.robot.safety.guards import (
    FiniteGuard,
    GripperGuard,
    Guard,
    RangeGuard,
    RateGuard,
    WorkspaceGuard,
)
from loopdit.deploy.robot.safety.watchdog import EmergencyStop, Watchdog

_LOG = logging.getLogger(__name__)
WATCHDOG, EMERGENCY_STOP = "watchdog", "emergency_stop"
_STOPS = {WATCHDOG, EMERGENCY_STOP}
_POSITION = ("x", "y", "z")


@dataclass(frozen=True)
class Safe:
    """What a robot gets: the action (A,) float32, None before there was a first one; the guards
    that changed it, and what has stopped it ("" where nothing has)."""

    action: np.ndarray | None
    changed_by: tuple[str, ...]
    stopped_by: str


class SafetyFilter:
    """See the module. `acted` counts the steps at which each guard changed an action, and the
    times that the watchdog and the emergency stop took effect."""

    def __init__(self, limits: SafetyLimits) -> None:
        self._limits = limits
        self._finite = FiniteGuard(limits)
        self._workspace = WorkspaceGuard(limits) if limits.workspace_low is not None else None
        rest: list[Guard] = [RangeGuard(limits), RateGuard(limits)]
        if self._workspace is not None:
            rest.append(self._workspace)
        if limits.grippers and limits.gripper_debounce:
            rest.append(GripperGuard(limits))
        self._guards: list[Guard] = [self._finite, *rest]
        self._watchdog = Watchdog(limits.watchdog_periods)
        self._stop = EmergencyStop()
        self._acting: set[str] = set()
        self.acted: Counter[str] = Counter()

    @property
    def stopped_by(self) -> str:
        """EMERGENCY_STOP, WATCHDOG, or "" while it moves."""
        if self._stop.pressed:
            return EMERGENCY_STOP
        return WATCHDOG if self._watchdog.stopped else ""

    @property
    def pressed(self) -> bool:
        """Whether the emergency stop is."""
        return self._stop.pressed

    @property
    def reason(self) -> str:
        """Why it was pressed."""
        return self._stop.reason

    def measured(self, commanded_position: np.ndarray) -> None:
        """Where the command is (3,) m, before the action of this step: see `commanded_position`."""
        if self._workspace is not None:
            self._workspace.measured(commanded_position)

    def step(self, action: np.ndarray | None, fresh: bool) -> Safe:
        """The action (A,) of the policy for this step, None where it has none. `fresh`: it is of a
        chunk that has not run out."""
        held = self._finite.held()
        if action is not None and held is None and not np.isfinite(action).all():
            action = None
        self._watchdog.step(fresh and action is not None)
        stopped_by = self.stopped_by
        self._note({stopped_by} - {""}, among=_STOPS)
        wanted = self._wanted(action, held, stopped_by)
        if wanted is None:
            return Safe(None, (), stopped_by)
        changed: list[str] = []
        if not (stopped_by and self._limits.stop_pose is None):
            for guard in self._guards:
                safe = guard.applied(wanted)
                if not np.array_equal(safe, wanted):
                    changed.append(guard.name)
                wanted = safe
        self._note(set(changed), among={guard.name for guard in self._guards})
        self.acted.update(changed)
        for guard in self._guards:
            guard.executed(wanted)
        return Safe(wanted.astype(np.float32), tuple(changed), stopped_by)

    def missed(self, steps: int) -> None:
        """Control steps that passed without `step`: nothing fresh was done in them."""
        for _ in range(steps):
            self._watchdog.step(fresh=False)

    def begin(self) -> None:
        """Another episode begins: its first chunk may take its time. A stop stays."""
        if not self.stopped_by:
            self._watchdog.reset()
        for guard in self._guards:
            guard.reset()

    def press(self, reason: str) -> None:
        """Emergency stop, from the next step on."""
        self._stop.press(reason)

    def reset(self) -> None:
        """Somebody has looked: the stop is released, the watchdog begins anew."""
        self._stop.release()
        self._watchdog.reset()
        self._acting.clear()
        for guard in self._guards:
            guard.reset()

    def _wanted(
        self, action: np.ndarray | None, held: np.ndarray | None, stopped_by: str
    ) -> np.ndarray | None:
        """(A,) float64, before the guards; None where nothing is known to be safe."""
        pose = self._limits.stop_pose
        if not stopped_by:
            return held if action is None else np.asarray(action, float)
        if pose is None or held is None:
            return held
        shifts = self._limits.shifts
        target = pose.copy()
        target[shifts.elements] = 0.0
        position = None if self._workspace is None else self._workspace.position
        if position is not None:
            target[shifts.translation] = pose[shifts.translation] - position
        return target

    def _note(self, acting: set[str], among: set[str]) -> None:
        """Say who begins to act; a stop is counted then."""
        began = acting - self._acting
        self.acted.update(began & _STOPS)
        for name in sorted(began):
            reason = f": {self._stop.reason}" if name == EMERGENCY_STOP else ""
            _LOG.warning("safety: %s acts%s", name, reason)
        self._acting = (self._acting - among) | acting


def commanded_position(observation: Observation, spec: PolicySpec) -> np.ndarray | None:
    """Where the command was (3,) m when `observation` was made: the measured x y z, and how far the
    command was ahead of it where proprio says so. None where proprio has no x y z."""
    labels = spec.proprio.labels
    if not set(_POSITION) <= set(labels):
        return None
    proprio = np.asarray(observation[PROPRIO], float).reshape(-1, len(labels))[-1]
    felt = dict(zip(labels, proprio, strict=True))
    return np.array([felt[axis] + felt.get(f"{axis}_command_ahead", 0.0) for axis in _POSITION])
