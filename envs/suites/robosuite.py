"""robosuite's Lift: a Panda arm picks up a cube, 7-D operational-space control at 20 Hz.

Action (7,), -1 to 1: a shift and a rotation of the gripper from where it is, in the base frame,
and the gripper, -1 opens. Observation `proprio` (10,): the gripper's position, the first two
columns of its rotation, its opening; without cameras (19,): the cube's position and columns too.
robosuite has no scripted expert: the one here is ours, and memoryless as those of our own tasks.
"""

# A suite's package is untyped to us.
# pyright: reportUnknownParameterType=false

import logging
import math
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np

from loopdit.envs.suites.suite_env import SUCCESS, Outcome, SuiteEnv, limited, vector

_CONTROL_HZ = 20
_MAX_STEPS = 400  # as robomimic evaluates Lift
_SHIFT_M = 0.05  # what 1 means in an action: the controller's own scale, checked below
_TURN_RAD = 0.5
_GROUP_HIDDEN = 5  # MuJoCo draws groups 0 to 2; robosuite's collision shapes are in group 0
_POSE = ("x", "y", "z", "r11", "r21", "r31", "r12", "r22", "r32")
_POSE_UNITS = ("m",) * 3 + ("1",) * 6

# The expert's geometry. It comes down inside a funnel: higher the further off to the side it is.
_FUNNEL_SLOPE = 4.0
_FUNNEL_FLOOR_M = 0.012
_FUNNEL_HEIGHT_M = 0.10
_AT_GRASP_M = 0.014
_HOLDING_OPENING_M = 0.050  # the cube is 42 to 44 mm wide
_IN_HAND_M = 0.022
_LIFT_M = 0.15
_GAIN = 2.0  # the gripper follows about half of a shift in one step


def tasks() -> tuple[str, ...]:
    """The one task."""
    return ("lift",)


def make(task: str, image_size: int) -> SuiteEnv:
    """The task `task`; see the top of this file for `image_size` 0."""
    del task
    return SuiteEnv(Lift(full_state=image_size == 0), image_size)


class Lift:
    """See `suite_env.Simulation`."""

    instruction = "pick up the cube"
    max_steps = _MAX_STEPS
    stages = SUCCESS
    cameras: tuple[str, ...] = ("agentview", "robot0_eye_in_hand")
    action_frame = (
        "a shift and a rotation vector of the gripper from its measured pose, in the base frame; "
        "gripper -1 opens, 1 closes"
    )

    def __init__(self, full_state: bool) -> None:
        robosuite = import_module("robosuite")
        logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
        controller: Any = robosuite.load_composite_controller_config(controller="BASIC")
        scale = controller["body_parts"]["right"]["output_max"]
        assert list(scale) == [_SHIFT_M] * 3 + [_TURN_RAD] * 3, scale
        self._env: Any = robosuite.make(
            "Lift",
            robots="Panda",
            controller_configs=controller,
            has_renderer=False,
            has_offscreen_renderer=False,
            use_camera_obs=False,
            control_freq=_CONTROL_HZ,
            ignore_done=True,
            # The model is compiled once, with the cube's size of this seed (it varies by 2 mm).
            hard_reset=False,
            seed=0,
        )
        self.package = f"robosuite {version('robosuite')}"
        self.control_period_s = float(self._env.control_timestep)
        self._full_state = full_state
        labels, units = (*_POSE, "opening"), (*_POSE_UNITS, "m")
        if full_state:
            labels += tuple(f"cube_{label}" for label in _POSE)
            units += _POSE_UNITS
        self.proprio_spec = vector("proprio", labels, units)
        self.action_spec = limited(
            ("dx", "dy", "dz", "drx", "dry", "drz", "gripper"),
            (f"{_SHIFT_M:g} m",) * 3 + (f"{_TURN_RAD:g} rad",) * 3 + ("1",),
            (-1,) * 7,
            (1,) * 7,
        )
        model = self.model
        model.geom_group[model.geom_group == 0] = _GROUP_HIDDEN
        model.site_group[:] = _GROUP_HIDDEN
        self._site = model.site("gripper0_right_grip_site").id
        self._cube = self._env.cube_body_id
        self._fingers = [model.joint(f"gripper0_right_finger_joint{i}").qposadr[0] for i in (1, 2)]

    @property
    def model(self) -> Any:
        """MuJoCo's, inside robosuite's wrapper."""
        return self._env.sim.model._model

    @property
    def data(self) -> Any:
        """MuJoCo's, inside robosuite's wrapper."""
        return self._env.sim.data._data

    @property
    def position(self) -> np.ndarray:
        """Where the fingertips would meet, (3,) m in the world."""
        return self.data.site_xpos[self._site]

    @property
    def rotation(self) -> np.ndarray:
        """The gripper's (3, 3): its z axis points along the fingers, y across them."""
        return self.data.site_xmat[self._site].reshape(3, 3)

    @property
    def opening(self) -> float:
        """Between the fingers, 0 to 0.08 m."""
        right, left = self.data.qpos[self._fingers]
        return float(right - left)

    @property
    def cube_position(self) -> np.ndarray:
        """(3,) m in the world."""
        return self.data.xpos[self._cube]

    @property
    def cube_rotation(self) -> np.ndarray:
        """(3, 3)."""
        return self.data.xmat[self._cube].reshape(3, 3)

    def reset(self, seed: int) -> None:
        """The cube's place and heading and the arm's joints, as `seed` draws them."""
        self._env.rng = np.random.default_rng(seed)
        self._env.placement_initializer.rng = self._env.rng
        for sampler in getattr(self._env.placement_initializer, "samplers", {}).values():
            sampler.rng = self._env.rng
        self._env.reset()

    def step(self, action: np.ndarray) -> Outcome:
        """One control period."""
        _, reward, _, _ = self._env.step(action)
        return Outcome(float(reward), success=bool(self._env._check_success()))

    def proprio(self) -> np.ndarray:
        """(10,) or (19,)."""
        known = [self.position, _columns(self.rotation), [self.opening]]
        if self._full_state:
            known += [self.cube_position, _columns(self.cube_rotation)]
        return np.concatenate(known)

    def memory(self) -> np.ndarray:
        """How far the gripper's command has moved towards the last one."""
        return self._env.robots[0].gripper["right"].current_action

    def expert(self) -> "LiftExpert":
        """Ours."""
        return LiftExpert(self)

    def idle(self, last: np.ndarray | None) -> np.ndarray:
        """No motion; the gripper as it was, open at first."""
        return np.array([0, 0, 0, 0, 0, 0, -1 if last is None else last[6]], np.float32)

    def close(self) -> None:
        """Free robosuite's environment."""
        self._env.close()


class LiftExpert:
    """Above the cube, down the funnel, close, up: chosen from the present state alone."""

    def __init__(self, lift: Lift) -> None:
        self._lift = lift

    def action(self) -> np.ndarray:
        """(7,) float32."""
        lift = self._lift
        position, cube = lift.position, lift.cube_position
        offset = cube - position
        distance, aside = float(np.linalg.norm(offset)), float(np.linalg.norm(offset[:2]))
        if distance < _IN_HAND_M and lift.opening < _HOLDING_OPENING_M:
            return self._towards(position + np.array([0, 0, _LIFT_M]), gripper=1)
        if distance < _AT_GRASP_M:
            return self._towards(cube, gripper=1)
        above = min(_FUNNEL_HEIGHT_M, _FUNNEL_SLOPE * max(0.0, aside - _FUNNEL_FLOOR_M))
        return self._towards(cube + np.array([0, 0, above]), gripper=-1)

    def _towards(self, target: np.ndarray, gripper: float) -> np.ndarray:
        lift = self._lift
        shift = _GAIN * (target - lift.position) / _SHIFT_M
        shift /= max(1.0, float(np.abs(shift).max()))
        turn = _GAIN * rotation_vector(self._grasp_rotation() @ lift.rotation.T) / _TURN_RAD
        turn /= max(1.0, float(np.abs(turn).max()))
        return np.array([*shift, *turn, gripper], np.float32)

    def _grasp_rotation(self) -> np.ndarray:
        """Fingers down, closing across two faces of the cube: the nearest such pair."""
        across, cube_x = self._lift.rotation[:, 1], self._lift.cube_rotation[:, 0]
        present = math.atan2(across[1], across[0])
        heading = math.atan2(cube_x[1], cube_x[0])
        quarter = math.pi / 2
        yaw = present + (heading - present + quarter / 2) % quarter - quarter / 2
        y = np.array([math.cos(yaw), math.sin(yaw), 0.0])
        z = np.array([0.0, 0.0, -1.0])
        return np.stack([np.cross(y, z), y, z], axis=1)


def rotation_vector(rotation: np.ndarray) -> np.ndarray:
    """The axis times the angle of a rotation matrix, for angles well below a half turn."""
    skew = np.array(
        [
            rotation[2, 1] - rotation[1, 2],
            rotation[0, 2] - rotation[2, 0],
            rotation[1, 0] - rotation[0, 1],
        ]
    )
    sine = float(np.linalg.norm(skew)) / 2
    if sine < 1e-9:
        return np.zeros(3)
    angle = math.atan2(sine, (float(np.trace(rotation)) - 1) / 2)
    return skew / (2 * sine) * angle


def _columns(rotation: np.ndarray) -> np.ndarray:
    return rotation[:, :2].T.ravel()
