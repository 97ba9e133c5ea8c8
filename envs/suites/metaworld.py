"""Meta-World 3: 50 tasks of a Sawyer arm, each with the suite's own scripted expert.

Action (4,): three shifts of the gripper's target and the force on its fingers, all -1 to 1.
Observation with cameras: two of the suite's, and `proprio` (4,), what a real arm would sense: the
hand's position and its opening. Without cameras `proprio` (39,) is the suite's own observation:
hand, objects, the same one step before, and the goal.
"""

# A suite's package is untyped to us.
# pyright: reportUnknownParameterType=false

import warnings
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np

from loopdit.envs.suites.suite_env import SUCCESS, Outcome, SuiteEnv, limited, vector

_CAMERAS = ("corner2", "gripperPOV")
_OBJECT = ("x", "y", "z", "qx", "qy", "qz", "qw")
_OBJECT_UNITS = ("m",) * 3 + ("1",) * 4
_HAND = ("hand_x", "hand_y", "hand_z", "opening")
_HAND_UNITS = ("m", "m", "m", "1")  # the opening is in tenths of a metre, at most 1
# Beyond the suite's own end of an episode it refuses to step; ours may go on for a few after it.
_ROOM_STEPS = 1000


def tasks() -> tuple[str, ...]:
    """Names as reach-v3."""
    return tuple(sorted(import_module("metaworld.env_dict").ALL_V3_ENVIRONMENTS))


def make(task: str, image_size: int) -> SuiteEnv:
    """The task `task`; see the top of this file for `image_size` 0."""
    return SuiteEnv(MetaWorld(task, full_state=image_size == 0), image_size)


class MetaWorld:
    """See `suite_env.Simulation`."""

    action_frame = (
        "a shift of the gripper's target along the world's axes, 1 is 10 mm a step; gripper: force "
        "that closes the fingers, -1 opens"
    )
    cameras: tuple[str, ...] = _CAMERAS
    stages = SUCCESS

    def __init__(self, task: str, full_state: bool) -> None:
        environments = import_module("metaworld.env_dict").ALL_V3_ENVIRONMENTS
        self._env: Any = environments[task]()
        self._expert_class: Any = import_module("metaworld.policies").ENV_POLICY_MAP[task]
        # The suite's own switches: the goal is seen, and is drawn from the seed at every reset.
        self._env._partially_observable = False
        self._env._freeze_rand_vec = False
        self._env.seeded_rand_vec = True
        self._env._set_task_called = True
        # Its limits were made while the goal was hidden, and would cut the goal to zero.
        del self._env.sawyer_observation_space
        _turn_upright(self._env.model)
        self.max_steps = int(self._env.max_path_length)
        self._env.max_path_length = self.max_steps + _ROOM_STEPS
        self.instruction = task.rpartition("-v")[0].replace("-", " ")
        self.control_period_s = float(self._env.frame_skip * self._env.model.opt.timestep)
        self.package = f"metaworld {version('metaworld')}"
        self._full_state = full_state
        self._observation = np.zeros(39)
        self.action_spec = limited(
            ("dx", "dy", "dz", "gripper"), ("cm", "cm", "cm", "1"), (-1,) * 4, (1,) * 4
        )
        self.proprio_spec = _full_spec() if full_state else vector("proprio", _HAND, _HAND_UNITS)

    @property
    def model(self) -> Any:
        """MuJoCo's."""
        return self._env.model

    @property
    def data(self) -> Any:
        """MuJoCo's."""
        return self._env.data

    def reset(self, seed: int) -> None:
        """The goal and the objects that `seed` draws, from an arm that has not moved yet."""
        self._env.seed(seed)
        self._observation, _ = self._env.reset()

    def step(self, action: np.ndarray) -> Outcome:
        """One of the suite's steps."""
        self._observation, reward, _, _, info = self._env.step(action)
        return Outcome(float(reward), success=bool(info["success"]))

    def proprio(self) -> np.ndarray:
        """(39,) or (4,)."""
        return self._observation if self._full_state else self._observation[:4]

    def memory(self) -> np.ndarray:
        """The observation carries the goal and the step before."""
        return np.concatenate([self._observation, self._env._target_pos])

    def expert(self) -> "MetaWorldExpert":
        """The suite's own."""
        return MetaWorldExpert(self._expert_class(), self)

    def observation(self) -> np.ndarray:
        """(39,), as the suite's experts take it."""
        return self._observation

    def idle(self, last: np.ndarray | None) -> np.ndarray:
        """No shift; the fingers' force as it was, opening at first."""
        return np.array([0, 0, 0, -1 if last is None else last[3]], np.float32)

    def close(self) -> None:
        """Free the suite's environment."""
        self._env.close()


class MetaWorldExpert:
    """One of the suite's scripted policies, its actions cut to the limits as the suite does."""

    def __init__(self, policy: Any, simulation: MetaWorld) -> None:
        self._policy = policy
        self._simulation = simulation

    def action(self) -> np.ndarray:
        """(4,) float32."""
        with warnings.catch_warnings():
            # "Constant(s) may be too high": about the cut, at most steps.
            warnings.simplefilter("ignore")
            wanted = self._policy.get_action(self._simulation.observation())
        return np.clip(wanted, -1, 1).astype(np.float32)


def _turn_upright(model: Any) -> None:
    """The suite's corner cameras hang upside down: half a turn about where this one looks."""
    w, x, y, z = model.cam(_CAMERAS[0]).quat
    model.cam(_CAMERAS[0]).quat[:] = -z, y, -x, w


def _full_spec() -> Any:
    moment = (*_HAND, *(f"object{i}_{part}" for i in (0, 1) for part in _OBJECT))
    units = (*_HAND_UNITS, *_OBJECT_UNITS, *_OBJECT_UNITS)
    labels = (*moment, *(f"{label}_before" for label in moment), "goal_x", "goal_y", "goal_z")
    return vector("proprio", labels, (*units, *units, "m", "m", "m"))
