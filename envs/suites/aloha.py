"""gym-aloha: two ViperX arms hand a cube over, or put a peg into a socket. 50 Hz.

Action (14,): for each arm six joint angles [rad], absolute, and the gripper, 0 closed to 1 open.
Observation `proprio` (14,), the same as measured; without cameras the objects' poses too, wxyz.
The suite has no scripted expert.
"""

# A suite's package is untyped to us.
# pyright: reportUnknownParameterType=false

from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np

from loopdit.envs.suites.suite_env import Outcome, SuiteEnv, limited, no_expert, vector

_ARM = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
_LABELS = tuple(f"{side}_{part}" for side in ("left", "right") for part in (*_ARM, "gripper"))
_UNITS = (("rad",) * 6 + ("1",)) * 2
_MAX_STEPS = 300  # the suite registers its tasks with it
_WON = 4  # the highest of the suite's rewards, which it calls a success


def tasks() -> tuple[str, ...]:
    """The suite's two."""
    return tuple(_TASKS)


def make(task: str, image_size: int) -> SuiteEnv:
    """The task `task`; see the top of this file for `image_size` 0."""
    return SuiteEnv(Aloha(task, full_state=image_size == 0), image_size)


# The suite's name, the instruction, what its rewards 1 to 4 stand for, its objects.
_TASKS = {
    "transfer-cube": (
        "transfer_cube",
        "hand the red cube from the right gripper to the left one",
        ("touched", "lifted", "touched by the left", "success"),
        ("cube",),
    ),
    "insertion": (
        "insertion",
        "put the red peg into the blue socket",
        ("touched both", "lifted both", "peg at the socket", "success"),
        ("peg", "socket"),
    ),
}


class Aloha:
    """See `suite_env.Simulation`."""

    max_steps = _MAX_STEPS
    cameras: tuple[str, ...] = ("top", "angle")
    action_frame = "absolute joint angles of both arms; grippers 0 closed, 1 open"

    def __init__(self, task: str, full_state: bool) -> None:
        name, self.instruction, self.stages, objects = _TASKS[task]
        self._name = f"aloha/{task}"
        self._constants: Any = import_module("gym_aloha.constants")
        self._sim: Any = import_module("gym_aloha.tasks.sim")
        draws: Any = import_module("gym_aloha.utils")
        self._draw = draws.sample_box_pose if objects == ("cube",) else draws.sample_insertion_pose
        self._env: Any = import_module("gym_aloha.env").AlohaEnv(name)._env
        # The suite renders three pictures of 640x480 at each step, seen or not: 4 steps a second.
        self._env.task.get_observation = lambda physics: {}  # pyright: ignore[reportUnknownLambdaType]
        self.package = f"gym-aloha {version('gym-aloha')}"
        self.control_period_s = float(self._env.control_timestep())
        self._physics_error: type[Exception] = import_module("dm_control.rl.control").PhysicsError
        self._full_state = full_state
        low, high = self._joint_limits()
        self.action_spec = limited(_LABELS, _UNITS, low, high)
        pose = ("x", "y", "z", "qw", "qx", "qy", "qz")
        labels = tuple(f"{thing}_{part}" for thing in objects for part in pose)
        units = (("m",) * 3 + ("1",) * 4) * len(objects)
        self.proprio_spec = (
            vector("proprio", _LABELS + labels, _UNITS + units)
            if full_state
            else vector("proprio", _LABELS, _UNITS)
        )

    @property
    def model(self) -> Any:
        """MuJoCo's, inside dm_control's wrapper."""
        return self._env.physics.model.ptr

    @property
    def data(self) -> Any:
        """MuJoCo's, inside dm_control's wrapper."""
        return self._env.physics.data.ptr

    def reset(self, seed: int) -> None:
        """The objects where `seed` puts them, the arms at their start."""
        # The suite's tasks read their start from this global.
        self._sim.BOX_POSE[0] = np.concatenate(np.atleast_2d(self._draw(seed)))
        self._env.reset()

    def step(self, action: np.ndarray) -> Outcome:
        """One control period."""
        try:
            reward = int(self._env.step(action.astype(float)).reward)
        except self._physics_error:
            return Outcome(0.0, success=False, broken=True)
        return Outcome(float(reward), success=reward == _WON, stage=reward)

    def proprio(self) -> np.ndarray:
        """(14,) or with the objects (21,) or (28,)."""
        measured = self._sim.BimanualViperXTask.get_qpos(self._env.physics)
        return np.concatenate([measured, self.data.qpos[16:]]) if self._full_state else measured

    def memory(self) -> np.ndarray:
        """Nothing: the targets are in MuJoCo's controls."""
        return np.zeros(0)

    def expert(self) -> Any:
        """There is none."""
        raise no_expert(self._name)

    def idle(self, last: np.ndarray | None) -> np.ndarray:
        """The joints' present targets, so that gravity does not pull the arms along."""
        targets = self.data.ctrl
        opening = self._constants.normalize_puppet_gripper_position
        grippers = (opening(targets[6]), opening(targets[14])) if last is None else last[[6, 13]]
        arms = targets[:6], targets[8:14]
        return np.concatenate([arms[0], grippers[:1], arms[1], grippers[1:]])

    def close(self) -> None:
        """Free dm_control's environment."""
        self._env.close()

    def _joint_limits(self) -> tuple[np.ndarray, np.ndarray]:
        ranges = self.model.jnt_range[:16]
        arms = [*ranges[:6], (0.0, 1.0), *ranges[8:14], (0.0, 1.0)]
        low, high = np.array(arms).T
        return low, high
