"""dm_control's manipulation tasks: a Jaco arm that reaches, lifts, places and stacks.

Action (A,): joint velocities and the fingers' within the suite's limits. Observation `proprio`
(P,): the suite's features, laid end to end. Success is a reward of at least 0.99 of the suite's 1
at its goal. It has no scripted expert.
"""

# A suite's package is untyped to us.
# pyright: reportUnknownParameterType=false

from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np

from loopdit.envs.suites.dm_control import first_camera, flat, specs
from loopdit.envs.suites.suite_env import SUCCESS, Outcome, SuiteEnv, no_expert

_GOAL_REWARD = 0.99


def tasks() -> tuple[str, ...]:
    """The suite's names; those with features, since frames are ours to take."""
    names = import_module("dm_control.manipulation").ALL
    return tuple(name for name in names if name.endswith("_features"))


def make(task: str, image_size: int) -> SuiteEnv:
    """The task `task`."""
    return SuiteEnv(DmManipulation(task), image_size)


class DmManipulation:
    """See `suite_env.Simulation`."""

    stages = SUCCESS
    action_frame = "velocities of the arm's joints and of its fingers"

    def __init__(self, task: str) -> None:
        self._env: Any = import_module("dm_control.manipulation").load(task, seed=0)
        self._physics_error: type[Exception] = import_module("dm_control.rl.control").PhysicsError
        self._name = f"dm_manipulation/{task}"
        self.instruction = task.removesuffix("_features").replace("_", " ")
        self.package = f"dm-control {version('dm-control')}"
        self.control_period_s = float(self._env.control_timestep())
        self.max_steps = round(self._env._time_limit / self.control_period_s)
        self._observation = self._env.reset().observation
        self.cameras = first_camera(self.model)
        self.action_spec, self.proprio_spec = specs(self._env, self._observation)

    @property
    def model(self) -> Any:
        """MuJoCo's; compiled anew at every reset."""
        return self._env.physics.model.ptr

    @property
    def data(self) -> Any:
        """MuJoCo's."""
        return self._env.physics.data.ptr

    def reset(self, seed: int) -> None:
        """The start that `seed` draws."""
        self._env.random_state.seed(seed)
        self._observation = self._env.reset().observation

    def step(self, action: np.ndarray) -> Outcome:
        """One control period."""
        try:
            moment = self._env.step(action)
        except self._physics_error:
            return Outcome(0.0, success=False, broken=True)
        self._observation = moment.observation
        reward = float(moment.reward)
        return Outcome(reward, reward >= _GOAL_REWARD, over=moment.last())

    def proprio(self) -> np.ndarray:
        """The suite's observation."""
        return flat(self._observation)

    def memory(self) -> np.ndarray:
        """What the suite observes, its goal among it."""
        return flat(self._observation)

    def expert(self) -> Any:
        """There is none."""
        raise no_expert(self._name)

    def idle(self, last: np.ndarray | None) -> np.ndarray:
        """No velocity, nor of the fingers: they stay where they are."""
        del last
        return np.zeros(self.action_spec.shape)

    def close(self) -> None:
        """Free the suite's environment."""
        self._env.close()
