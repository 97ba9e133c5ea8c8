"""dm_control's suite: control tasks from pendulum to humanoid, named as cartpole-swingup.

Action (A,) within the suite's limits, observation `proprio` (P,): the suite's, laid end to end. The
suite knows no success: here it is a return of 500, half of what an episode can have, with the
suite's rewards of 0 to 1 a step. It has no scripted expert.
"""

# A suite's package is untyped to us.
# pyright: reportUnknownParameterType=false

from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np

from loopdit.envs.suites.suite_env import (
    FREE_CAMERA,
    SUCCESS,
    Outcome,
    SuiteEnv,
    limited,
    no_expert,
    numbered,
    vector,
)

_RETURN = 500.0


def tasks() -> tuple[str, ...]:
    """Every domain and task of the suite but lqr, whose actions have no limits and whose episodes
    no end; a hyphen between the two."""
    all_tasks = import_module("dm_control.suite").ALL_TASKS
    return tuple(f"{domain}-{task}" for domain, task in all_tasks if domain != "lqr")


def make(task: str, image_size: int) -> SuiteEnv:
    """The task `task`."""
    return SuiteEnv(DmControl(task), image_size)


class DmControl:
    """See `suite_env.Simulation`."""

    stages = SUCCESS
    action_frame = "the suite's own: torques or targets of its actuators"

    def __init__(self, task: str) -> None:
        domain, _, name = task.partition("-")
        self._env: Any = import_module("dm_control.suite").load(
            domain, name, task_kwargs={"random": 0}
        )
        self._physics_error: type[Exception] = import_module("dm_control.rl.control").PhysicsError
        self._name = f"dm_control/{task}"
        self.instruction = f"{domain} {name}".replace("_", " ")
        self.package = f"dm-control {version('dm-control')}"
        self.control_period_s = float(self._env.control_timestep())
        self.max_steps = round(self._env._step_limit)
        self.cameras = first_camera(self.model)
        self._return = 0.0
        self._observation = self._env.reset().observation
        self.action_spec, self.proprio_spec = specs(self._env, self._observation)

    @property
    def model(self) -> Any:
        """MuJoCo's, inside dm_control's wrapper."""
        return self._env.physics.model.ptr

    @property
    def data(self) -> Any:
        """MuJoCo's, inside dm_control's wrapper."""
        return self._env.physics.data.ptr

    def reset(self, seed: int) -> None:
        """The start that `seed` draws."""
        self._env.task._random = np.random.RandomState(seed)
        self._observation = self._env.reset().observation
        self._return = 0.0

    def step(self, action: np.ndarray) -> Outcome:
        """One control period."""
        try:
            moment = self._env.step(action)
        except self._physics_error:
            return Outcome(0.0, success=False, broken=True)
        self._observation = moment.observation
        self._return += float(moment.reward)
        return Outcome(float(moment.reward), self._return >= _RETURN, over=moment.last())

    def proprio(self) -> np.ndarray:
        """The suite's observation."""
        return flat(self._observation)

    def memory(self) -> np.ndarray:
        """The return so far, which decides the success."""
        return np.array([self._return])

    def expert(self) -> Any:
        """There is none."""
        raise no_expert(self._name)

    def idle(self, last: np.ndarray | None) -> np.ndarray:
        """Nothing, or what of its limits is nearest to it."""
        del last
        return np.clip(
            np.zeros(self.action_spec.shape), self.action_spec.low, self.action_spec.high
        )

    def close(self) -> None:
        """Free the suite's environment."""
        self._env.close()


def flat(observation: Any) -> np.ndarray:
    """dm_control's dictionary of arrays as one vector, in its order."""
    return np.concatenate([np.ravel(value) for value in observation.values()])


def specs(env: Any, observation: Any) -> tuple[Any, Any]:
    """The specs of action and proprio, with the suite's own names."""
    space = env.action_spec()
    low, high = (np.broadcast_to(limit, space.shape) for limit in (space.minimum, space.maximum))
    motors = (space.name or "").split("\t")
    named = len(motors) == space.shape[0] and all(motors)
    labels = motors if named else numbered({"motor": space.shape[0]})
    parts = {name: np.size(value) for name, value in observation.items()}
    # Metres, radians, seconds, newtons or none, as the suite's documentation lists them.
    return limited(labels, "SI", low, high), vector("proprio", numbered(parts), "SI")


def first_camera(model: Any) -> tuple[str, ...]:
    """The name of a model's first camera, or MuJoCo's free one."""
    names = [model.camera(i).name for i in range(model.ncam)]
    return (next((name for name in names if name), FREE_CAMERA),)
