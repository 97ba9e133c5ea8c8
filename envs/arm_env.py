"""A task on the arm as a Gymnasium environment with 7-D delta end-effector actions.

Observation: `images.front`, `images.wrist` (S, S, 3) uint8, `proprio` (13,) float32.
Action (7,) float32: dx dy dz [m] and a rotation vector [rad] in the base frame, both relative to
the commanded pose; gripper opening 0 closed to 1 open. Everything random comes from the seed.
"""

import math
from typing import Any, Protocol

import gymnasium
import numpy as np

from loopdit.datasets.spec import IMAGE_PREFIX, PROPRIO, PolicySpec, TensorSpec
from loopdit.envs.arm import MAX_ROTATION_RAD, MAX_TRANSLATION_M, Arm
from loopdit.envs.arm_scene import CAMERAS
from loopdit.envs.cameras import CameraRig

CONTROL_PERIOD_S = 0.1
# A task counts as done when its goal has held this long: a touch in passing is not success.
_HOLD_S = 0.3
_LIMITS = (MAX_TRANSLATION_M,) * 3 + (MAX_ROTATION_RAD,) * 3


class Expert(Protocol):
    """A scripted policy on privileged state."""

    def action(self) -> np.ndarray:
        """The action (7,) float32 it would take in the environment's present state."""
        ...


class Task(Protocol):
    """What makes one task: its objects, their placement, its goal and its expert."""

    name: str
    instruction: str
    time_limit_s: float

    def objects(self) -> str:
        """MJCF bodies to put on the table."""
        ...

    def place(self, arm: Arm, rng: np.random.Generator) -> None:
        """Put the objects where this episode starts."""
        ...

    def achieved(self, arm: Arm) -> bool:
        """Whether the goal holds in the present state."""
        ...

    def expert(self, arm: Arm) -> Expert:
        """A fresh expert for the episode that just started."""
        ...


def arm_spec(image_size: int) -> PolicySpec:
    """The spec of every task on this arm, with square frames of `image_size` pixels."""
    frames = tuple(
        TensorSpec(f"{IMAGE_PREFIX}{camera}", (image_size, image_size, 3), "uint8")
        for camera in CAMERAS
    )
    labels = ("x", "y", "z", "r11", "r21", "r31", "r12", "r22", "r32", "opening")
    lags = ("x_command_ahead", "y_command_ahead", "z_command_ahead")
    proprio = TensorSpec(
        PROPRIO,
        (13,),
        "float32",
        labels=labels + lags,
        units=("m",) * 3 + ("1",) * 7 + ("m",) * 3,
    )
    action = TensorSpec(
        "action",
        (7,),
        "float32",
        labels=("dx", "dy", "dz", "drx", "dry", "drz", "gripper"),
        units=("m",) * 3 + ("rad",) * 3 + ("1",),
        low=(*(-limit for limit in _LIMITS), 0.0),
        high=(*_LIMITS, 1.0),
    )
    return PolicySpec(
        observations=(*frames, proprio),
        action=action,
        action_frame=(
            "delta of the commanded end-effector pose in the base frame (rotation vector); "
            "gripper 0 closed, 1 open"
        ),
        control_period_s=CONTROL_PERIOD_S,
    )


class ArmEnv(gymnasium.Env[dict[str, np.ndarray], np.ndarray]):
    """One task on the arm. `info` carries `success` and `unstable`."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": round(1 / CONTROL_PERIOD_S)}  # noqa: RUF012 - Gymnasium's own attribute

    def __init__(self, task: Task, image_size: int = 64, render_size: int = 256) -> None:
        self.task = task
        self.policy_spec = arm_spec(image_size)
        self.instruction = task.instruction
        self.control_period_s = CONTROL_PERIOD_S
        self.max_steps = round(task.time_limit_s / CONTROL_PERIOD_S)
        self.render_mode = "rgb_array"
        self.arm = Arm(task.objects(), CONTROL_PERIOD_S)
        self._image_size = image_size
        self._render_size = render_size
        self._cameras = CameraRig(self.arm.model)
        self._steps = 0
        self._held_steps = 0
        # Gymnasium's own types do not let a Dict space be the space of dicts of arrays.
        self.observation_space = gymnasium.spaces.Dict(  # pyright: ignore[reportAttributeAccessIssue]
            {t.name: _space(t) for t in self.policy_spec.observations}
        )
        self.action_space = _space(self.policy_spec.action)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start the episode that `seed` names: same seed, same states and pixels."""
        super().reset(seed=seed)
        self.arm.reset(self.np_random)
        self.task.place(self.arm, self.np_random)
        self.arm.settle()
        self._steps = self._held_steps = 0
        return self._observation(), {"success": False, "unstable": False}

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One control period. Raises ValueError unless `action` is 7 finite numbers."""
        command = np.asarray(action, dtype=float)
        if command.shape != (7,) or not np.isfinite(command).all():
            raise ValueError(f"an action is 7 finite numbers; got {action!r}.")
        self.arm.command(command)
        self._steps += 1
        unstable = self.arm.unstable
        achieved = self.task.achieved(self.arm) and not unstable
        self._held_steps = self._held_steps + 1 if achieved else 0
        success = self._held_steps >= math.ceil(_HOLD_S / CONTROL_PERIOD_S)
        truncated = not success and (self._steps >= self.max_steps or unstable)
        info = {"success": success, "unstable": unstable}
        return self._observation(), float(success), success, truncated, info

    def expert(self) -> Expert:
        """A scripted expert for the episode that just started."""
        return self.task.expert(self.arm)

    def render(self) -> np.ndarray:  # pyright: ignore[reportIncompatibleMethodOverride] - one mode
        """The front camera, (render_size, render_size, 3) uint8."""
        return self._cameras.frame(self.arm.data, "front", self._render_size)

    def close(self) -> None:
        """Free the renderers."""
        self._cameras.close()

    def _observation(self) -> dict[str, np.ndarray]:
        frames = {
            f"{IMAGE_PREFIX}{camera}": self._cameras.frame(self.arm.data, camera, self._image_size)
            for camera in CAMERAS
        }
        return {**frames, PROPRIO: self._proprio()}

    def _proprio(self) -> np.ndarray:
        """Pose, opening, and how far the commanded position is ahead of the measured one.

        Rotation as the first two columns of its matrix: unlike angles and quaternions it has no
        jump. The last three are needed because actions are relative to the command.
        """
        position, rotation = self.arm.position, self.arm.rotation
        ahead = self.arm.reference_position - position
        columns = rotation[:, :2].T.ravel()
        return np.concatenate([position, columns, [self.arm.opening], ahead]).astype(np.float32)


def _space(tensor: TensorSpec) -> gymnasium.spaces.Box:
    if tensor.is_image:
        return gymnasium.spaces.Box(0, 255, tensor.shape, np.uint8)
    if tensor.low:
        low = np.array(tensor.low, np.float32)
        high = np.array(tensor.high, np.float32)
        return gymnasium.spaces.Box(low, high, tensor.shape, np.float32)
    return gymnasium.spaces.Box(-np.inf, np.inf, tensor.shape, np.float32)
