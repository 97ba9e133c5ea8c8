"""What is done to each action before a robot gets it: one guard for each danger.

Pure state machines over control steps: an action in, the same or a safer one out. Whether a guard
acted is whether it changed the action. Their order is in `safety_filter`.

Shapes: A action dim. Limits as in `config.SafetyLimits`.
"""

from typing import Protocol

import numpy as np

from loopdit.deploy.robot.safety.config import SafetyLimits


class Guard(Protocol):
    """`name` is what its counter and its log lines are called."""

    name: str

    def applied(self, action: np.ndarray) -> np.ndarray:
        """The action (A,) float64, made safe. Called once a step."""
        ...

    def executed(self, action: np.ndarray) -> None:
        """What was executed at this step, whatever came after this guard."""
        ...

    def reset(self) -> None:
        """Another episode begins, or a stop was lifted."""
        ...


class FiniteGuard:
    """An action with NaN or infinity in it is not trusted in any element: the robot holds."""

    name = "finite"

    def __init__(self, limits: SafetyLimits) -> None:
        self._limits = limits
        self._last: np.ndarray | None = None

    def applied(self, action: np.ndarray) -> np.ndarray:
        """As it is, or what is held."""
        if np.isfinite(action).all():
            return action
        held = self.held()
        assert held is not None, "an action that is not finite came before any other"
        return held

    def held(self) -> np.ndarray | None:
        """The action that keeps the robot where it is: no shift, and elsewhere what was executed
        last. None before that: a place must not be made up."""
        if self._last is None:
            return None
        still = self._last.copy()
        still[self._limits.shifts.elements] = 0.0
        return still

    def executed(self, action: np.ndarray) -> None:
        """To hold."""
        self._last = action

    def reset(self) -> None:
        """What was executed last still is where the robot is."""


class RangeGuard:
    """Each element within its limits: a place in its range, a shift of its size."""

    name = "range"

    def __init__(self, limits: SafetyLimits) -> None:
        self._low, self._high = limits.low, limits.high

    def applied(self, action: np.ndarray) -> np.ndarray:
        """Clipped."""
        return np.clip(action, self._low, self._high)

    def executed(self, action: np.ndarray) -> None:
        """Nothing depends on it."""

    def reset(self) -> None:
        """Nothing to forget."""


class RateGuard:
    """Velocity and acceleration of each element: of a shift it is the shift a period, of a place
    the change of it. A robot starts from rest, and a place from wherever it is told first."""

    name = "rate"

    def __init__(self, limits: SafetyLimits) -> None:
        self._period_s = limits.period_s
        self._velocity, self._acceleration = limits.velocity, limits.acceleration
        self._is_shift = np.zeros(len(limits.low), bool)
        self._is_shift[limits.shifts.elements] = True
        self._at: np.ndarray | None = None
        self._speed = np.zeros(len(limits.low))

    def applied(self, action: np.ndarray) -> np.ndarray:
        """As fast as is allowed towards what is asked."""
        wanted = self._speed_of(action)
        change = self._acceleration * self._period_s
        speed = np.clip(wanted, self._speed - change, self._speed + change)
        speed = np.clip(speed, -self._velocity, self._velocity)
        base = np.zeros_like(action) if self._at is None else self._at
        limited = np.where(self._is_shift, 0.0, base) + speed * self._period_s
        # Untouched where nothing is cut: x / p * p need not be x.
        same = (speed == wanted) | (~self._is_shift & (self._at is None))
        return np.where(same, action, limited)

    def executed(self, action: np.ndarray) -> None:
        """What later speeds are counted from."""
        self._speed = self._speed_of(action)
        self._at = action

    def reset(self) -> None:
        """It is at rest; where it is stays known."""
        self._speed = np.zeros_like(self._speed)

    def _speed_of(self, action: np.ndarray) -> np.ndarray:
        base = action if self._at is None else self._at
        return np.where(self._is_shift, action, action - base) / self._period_s


class WorkspaceGuard:
    """The commanded position stays in a box, of actions that shift it.

    Where the command is, is what was measured last plus what was commanded since: `measured` takes
    the commanded position at an observation (`commanded_position`), and shifts executed after it
    are added up. A command outside the box may only come back. Until anything was measured nothing
    moves.
    """

    name = "workspace"

    def __init__(self, limits: SafetyLimits) -> None:
        assert limits.workspace_low is not None
        assert limits.workspace_high is not None
        self._low, self._high = limits.workspace_low, limits.workspace_high
        self._translation = limits.shifts.translation
        self._position: np.ndarray | None = None

    @property
    def position(self) -> np.ndarray | None:
        """Where the command is (3,) m, as far as that is known."""
        return self._position

    def measured(self, position: np.ndarray) -> None:
        """The commanded position (3,) m, before the action of this step."""
        self._position = np.asarray(position, float)

    def applied(self, action: np.ndarray) -> np.ndarray:
        """With a translation that ends in the box, or nearer to it."""
        safe = action.copy()
        if self._position is None:
            safe[self._translation] = 0.0
            return safe
        shift = action[self._translation]
        here, wanted = self._position, self._position + shift
        # Outside, the nearest face is as far as the command is: it may come nearer, not jump in.
        low, high = np.minimum(self._low, here), np.maximum(self._high, here)
        cut = np.clip(wanted, low, high) - here
        safe[self._translation] = np.where((wanted < low) | (wanted > high), cut, shift)
        return safe

    def executed(self, action: np.ndarray) -> None:
        """Added up."""
        if self._position is not None:
            self._position = self._position + action[self._translation]

    def reset(self) -> None:
        """The robot is elsewhere, maybe: measure first."""
        self._position = None


class GripperGuard:
    """A gripper changes sides (of the middle of its range) only after it was told to for so many
    steps on end: a flicker of the policy neither drops what it holds nor closes on air."""

    name = "gripper"

    def __init__(self, limits: SafetyLimits) -> None:
        self._grippers = limits.grippers
        self._steps = limits.gripper_debounce
        low, high = limits.low[[*self._grippers]], limits.high[[*self._grippers]]
        bounded = np.isfinite(low) & np.isfinite(high)
        self._middle = np.where(bounded, (low + high) / 2, 0.5)
        self.reset()

    def applied(self, action: np.ndarray) -> np.ndarray:
        """With the gripper as it was, until it means it."""
        safe = action.copy()
        for place, (index, middle) in enumerate(zip(self._grippers, self._middle, strict=True)):
            before = self._last[place]
            if before is None or (action[index] > middle) == (before > middle):
                self._told[place] = 0
                continue
            self._told[place] += 1
            if self._told[place] <= self._steps:
                safe[index] = before
            else:
                self._told[place] = 0
        return safe

    def executed(self, action: np.ndarray) -> None:
        """Which side it is on."""
        self._last = [float(action[index]) for index in self._grippers]

    def reset(self) -> None:
        """Whatever it is told first."""
        self._last: list[float | None] = [None] * len(self._grippers)
        self._told = [0] * len(self._grippers)
