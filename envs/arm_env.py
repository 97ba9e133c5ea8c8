"""A task on the arm as a Gymnasium environment with 7-D delta end-effector actions.

Observation: `images.front`, `images.wrist` (S, S, 3) uint8, `proprio` (13,) float32.
Action (7,) float32: dx dy dz [m] and a rotation vector [rad] in the base frame, both relative to
the commanded pose; gripper opening 0 closed to 1 open. Everything random comes from the seed.
"""

# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false

import hashlib
import math
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np

from loopdit.datasets.spec import IMAGE_PREFIX, PROPRIO, PolicySpec, TensorSpec
from loopdit.envs.arm import MAX_ROTATION_RAD, MAX_TRANSLATION_M, Arm
from loopdit.envs.arm_scene import CAMERAS, arm_scene
from loopdit.envs.cameras import CameraRig
from loopdit.envs.gl import RAY_CAST, choose_renderer
from loopdit.envs.menagerie import dress
from loopdit.envs.randomizer import Randomizer
from loopdit.envs.raycast import RayCameras
from loopdit.envs.task import HOLD_S, Expert, Task
from loopdit.envs.variation import NONE

CONTROL_PERIOD_S = 0.1
_LIMITS = (MAX_TRANSLATION_M,) * 3 + (MAX_ROTATION_RAD,) * 3


def arm_spec(image_size: int, control_period_s: float = CONTROL_PERIOD_S) -> PolicySpec:
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
        control_period_s=control_period_s,
    )


class ArmEnv(gymnasium.Env[dict[str, np.ndarray], np.ndarray]):
    """One task on the arm.

    `info` of `reset` and `step`: `success` and `unstable` (physics met a NaN), `stage` (the
    furthest one reached, "start" before the first), `rejected` (the last command was out of reach).
    `renderer` tells what draws its frames: "egl", "osmesa", "glfw" or "ray-cast".
    With `menagerie`, a checkout of MuJoCo Menagerie, the arm wears its meshes.
    `variation` tells in words what differs in this episode beyond the task (see `variation.py`).
    `observing` may be set to False by a caller who does not look at frames: they are left out of
    the observations, and nothing is rendered.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": round(1 / CONTROL_PERIOD_S)}  # noqa: RUF012 - Gymnasium's own attribute

    def __init__(
        self,
        task: Task,
        image_size: int = 64,
        render_size: int = 256,
        control_period_s: float = CONTROL_PERIOD_S,
        renderer: str = "auto",
        variation: str = NONE,
        menagerie: Path | None = None,
    ) -> None:
        self.task = task
        self.policy_spec = arm_spec(image_size, control_period_s)
        self.instruction = task.instruction
        self.stages = task.stages
        self.control_period_s = control_period_s
        self.max_steps = round(task.time_limit_s / control_period_s)
        self.simulator = f"mujoco {mujoco.__version__}"
        self.observing = True
        self.render_mode = "rgb_array"
        scene = arm_scene()
        if menagerie:
            dress(scene, menagerie)
        task.build(scene)
        self.variation = NONE
        self._randomizer = Randomizer(variation)
        self._randomizer.extend(scene)
        self.arm = Arm(scene, control_period_s)
        self.model_digest = _digest(self.arm.model)
        self._randomizer.attach(self.arm)
        self._image_size = image_size
        self._render_size = render_size
        self.renderer = choose_renderer(renderer)
        rays = self.renderer == RAY_CAST
        self._cameras = RayCameras(self.arm.model) if rays else CameraRig(self.arm.model)
        self._steps = 0
        self._held_steps = 0
        self._reached = 0
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
        self._randomizer.restore()
        self.arm.reset(self.np_random)
        self.task.place(self.arm, self.np_random)
        self.variation = self._randomizer.draw(seed)
        self.arm.settle()
        self._steps = self._held_steps = self._reached = 0
        return self._observation(), self._info(success=False)

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One control period. Raises ValueError unless `action` is 7 finite numbers."""
        self.arm.command(checked_action(action))
        return self.outcome()

    def outcome(self) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Count a control period that has just passed; what `step` returns for it."""
        self._steps += 1
        unstable = self.arm.unstable
        achieved = self.task.achieved(self.arm) and not unstable
        self._held_steps = self._held_steps + 1 if achieved else 0
        if not unstable:
            self._reached = max(self._reached, self.task.stage(self.arm))
        success = self._held_steps >= math.ceil(HOLD_S / self.control_period_s - 1e-9)
        truncated = not success and (self._steps >= self.max_steps or unstable)
        return self._observation(), float(success), success, truncated, self._info(success)

    def expert(self) -> Expert:
        """A scripted expert for the episode that just started."""
        return self.task.expert(self.arm)

    def as_commanded(self, actions: np.ndarray) -> AbstractContextManager[None]:
        """Inside, experts act as if the actions (n, 7) had moved the commanded pose already."""
        return self.arm.as_commanded(actions)

    @contextmanager
    def imagined(self) -> Generator[None]:
        """Inside, `step` is what would happen; afterwards it did not."""
        kept = (self._steps, self._held_steps, self._reached)
        try:
            with self.arm.imagined():
                yield
        finally:
            self._steps, self._held_steps, self._reached = kept

    def idle(self, last: np.ndarray | None) -> np.ndarray:
        """The action (7,) that stays put and keeps the gripper as action `last` had it, or open."""
        return np.array([0, 0, 0, 0, 0, 0, 1.0 if last is None else last[6]], np.float32)

    def state(self) -> np.ndarray:
        """All that decides what happens next, as one vector: physics and commanded pose."""
        kind = mujoco.mjtState.mjSTATE_INTEGRATION
        physics = np.zeros(mujoco.mj_stateSize(self.arm.model, kind))
        mujoco.mj_getState(self.arm.model, self.arm.data, physics, kind)
        return np.concatenate([physics, self.arm.reference_position, self.arm.reference_quaternion])

    def render(self) -> np.ndarray:  # pyright: ignore[reportIncompatibleMethodOverride] - one mode
        """The front camera, (render_size, render_size, 3) uint8."""
        return self._cameras.frame(self.arm.data, "front", self._render_size)

    def close(self) -> None:
        """Free the renderers."""
        self._cameras.close()

    def _info(self, success: bool) -> dict[str, Any]:
        return {
            "success": success,
            "unstable": self.arm.unstable,
            "stage": self.stages[self._reached - 1] if self._reached else "start",
            "rejected": self.arm.rejected,
        }

    def _observation(self) -> dict[str, np.ndarray]:
        if not self.observing:
            return {PROPRIO: self._proprio()}
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


def checked_action(action: np.ndarray) -> np.ndarray:
    """An action (7,) as float64. Raises ValueError unless it is 7 finite numbers."""
    command = np.asarray(action, dtype=float)
    if command.shape != (7,) or not np.isfinite(command).all():
        raise ValueError(f"an action is 7 finite numbers; got {action!r}.")
    return command


def _digest(model: mujoco.MjModel) -> str:
    """16 hex digits, equal only for equal compiled models of one MuJoCo version."""
    compiled = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, compiled)
    return hashlib.sha256(compiled.tobytes()).hexdigest()[:16]


def _space(tensor: TensorSpec) -> gymnasium.spaces.Box:
    if tensor.is_image:
        return gymnasium.spaces.Box(0, 255, tensor.shape, np.uint8)
    if tensor.low:
        low = np.array(tensor.low, np.float32)
        high = np.array(tensor.high, np.float32)
        return gymnasium.spaces.Box(low, high, tensor.shape, np.float32)
    return gymnasium.spaces.Box(-np.inf, np.inf, tensor.shape, np.float32)
