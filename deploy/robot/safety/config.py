"""What a robot may be told to do, as options: limits, and what happens when actions stop coming.

Every limit is declared for each element of an action, in its own unit, and is the spec's where
nothing is said. None of them replaces the robot's own, which no network can take away.
"""

from dataclasses import dataclass

import numpy as np

from loopdit.command import option, require_choice
from loopdit.datasets.tensor_spec import TensorSpec
from loopdit.deploy.robot.commanded_pose import Shifts
from loopdit.errors import ConfigError

HOLD, POSE = "hold", "pose"
GRIPPER = "gripper"


@dataclass(frozen=True)
class SafetyConfig:
    """What is between policy and robot. Lists have one number for each element of an action."""

    low: list[float] = option([], "least action; empty: the spec's")
    high: list[float] = option([], "largest action; empty: the spec's")
    velocity: list[float] = option(
        [], "most change a second; empty: shifts as fast as the spec's limits allow, others any"
    )
    acceleration: list[float] = option([], "most change of that a second; empty: any")
    workspace_low: list[float] = option([], "least x y z of the commanded position, m; empty: any")
    workspace_high: list[float] = option([], "largest x y z, m; empty: any")
    gripper_debounce_s: float = option(0.0, "a gripper changes sides after being told to so long")
    watchdog_periods: int = option(
        10, "control periods without an action of the policy before it stops, until a reset"
    )
    on_stop: str = option(HOLD, "once stopped: hold the position, or go to a pose")
    stop_pose: list[float] = option(
        [], "with on_stop=pose: where to go; for dx dy dz an x y z in m, rotations are left alone"
    )

    def __post_init__(self) -> None:
        require_choice("safety.on_stop", self.on_stop, (HOLD, POSE))
        if self.watchdog_periods < 1:
            raise ConfigError(
                f"safety.watchdog_periods={self.watchdog_periods} must be at least 1."
            )
        if not 0 <= self.gripper_debounce_s < 60:
            raise ConfigError(
                f"safety.gripper_debounce_s={self.gripper_debounce_s} must be from 0 to 60."
            )
        for name in ("velocity", "acceleration"):
            if any(not value > 0 for value in getattr(self, name)):
                raise ConfigError(
                    f"safety.{name}={getattr(self, name)} must be above 0 throughout."
                )
        if (self.on_stop == POSE) != bool(self.stop_pose):
            raise ConfigError(
                f"safety.on_stop={self.on_stop} safety.stop_pose={self.stop_pose}: a pose is given "
                f"with on_stop={POSE}, and only with it."
            )
        if bool(self.workspace_low) != bool(self.workspace_high):
            raise ConfigError("safety.workspace_low and workspace_high go together. Give both.")


@dataclass(frozen=True)
class SafetyLimits:
    """`SafetyConfig` for one action and control period: arrays (A,), infinite where anything goes;
    workspace (3,) or None."""

    shifts: Shifts
    period_s: float
    low: np.ndarray
    high: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray
    workspace_low: np.ndarray | None
    workspace_high: np.ndarray | None
    grippers: tuple[int, ...]
    gripper_debounce: int  # control steps
    watchdog_periods: int
    stop_pose: np.ndarray | None  # None: hold


def limits_for(config: SafetyConfig, action: TensorSpec, period_s: float) -> SafetyLimits:
    """The limits of an action at a control period; `action` is at that rate, too (see
    `divided_limits`). Raises ConfigError for a list of another length or an empty range."""
    size = action.shape[0]
    shifts = Shifts(action.labels)
    # To float32, as actions are: one at its limit must not be found beyond it by rounding.
    low = _as_actions(_vector("low", config.low or list(action.low), size, -np.inf))
    high = _as_actions(_vector("high", config.high or list(action.high), size, np.inf))
    if (low > high).any():
        index = int(np.argmax(low > high))
        raise ConfigError(f"safety.low is above safety.high at element {index}.")
    velocity = _vector("velocity", config.velocity, size, np.inf)
    if not config.velocity:
        for index in shifts.elements:
            velocity[index] = max(abs(low[index]), abs(high[index])) / period_s
    box = [
        np.array(values) if values else None
        for values in (config.workspace_low, config.workspace_high)
    ]
    _require_box(box[0], box[1], shifts, action)
    if config.stop_pose and shifts and box[0] is None:
        raise ConfigError(
            "safety.stop_pose of an action that shifts the pose needs workspace_low and "
            "workspace_high: only with them it is known where the command is."
        )
    return SafetyLimits(
        shifts=shifts,
        period_s=period_s,
        low=low,
        high=high,
        velocity=velocity,
        acceleration=_vector("acceleration", config.acceleration, size, np.inf),
        workspace_low=box[0],
        workspace_high=box[1],
        grippers=tuple(i for i, label in enumerate(action.labels) if GRIPPER in label),
        gripper_debounce=round(config.gripper_debounce_s / period_s),
        watchdog_periods=config.watchdog_periods,
        stop_pose=_vector("stop_pose", config.stop_pose, size, 0.0) if config.stop_pose else None,
    )


def _as_actions(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32).astype(float)


def _vector(name: str, values: list[float], size: int, otherwise: float) -> np.ndarray:
    if not values:
        return np.full(size, otherwise)
    if len(values) != size or np.isnan(values).any():
        raise ConfigError(
            f"safety.{name} has {len(values)} numbers, and an action has {size} elements. Give one "
            f"for each."
        )
    return np.array(values, float)


def _require_box(
    low: np.ndarray | None, high: np.ndarray | None, shifts: Shifts, action: TensorSpec
) -> None:
    if low is None or high is None:
        return
    if low.shape != (3,) or high.shape != (3,) or not (low < high).all():
        raise ConfigError(
            "safety.workspace_low and workspace_high are x y z in m, each below the other's."
        )
    if len(shifts.translation) != 3:
        raise ConfigError(
            f"safety.workspace_low needs an action with dx dy dz; this one has "
            f"{', '.join(action.labels) or 'no labels'}. Limit its elements with low and high."
        )
