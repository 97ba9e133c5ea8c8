"""Gymnasium's MuJoCo runners: Ant, HalfCheetah, Hopper, Walker2d, Swimmer, version 5.

Action (A,): torques as fractions of the motors' gears, -1 to 1. Observation `proprio` (P,), the
suite's own: joint angles and velocities. The suite knows no success: here it is having run forward
by the distance below within the suite's 1,000 steps; a fall, where the suite has one, ends the
episode without it.
"""

# A suite's package is untyped to us.
# pyright: reportUnknownParameterType=false

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from loopdit.envs.suites.suite_env import (
    SUCCESS,
    Outcome,
    SuiteEnv,
    limited,
    no_expert,
    numbered,
    vector,
)


@dataclass(frozen=True)
class _Runner:
    """What has to be said of one: metres forward that count as a success, how many of the leading
    and trailing parts its observation has."""

    goal_m: float
    positions: int
    velocities: int
    contacts: int = 0


# A tenth of what published agents run in an episode, and several lengths of the body.
_RUNNERS = {
    "Ant-v5": _Runner(10.0, 13, 14, 78),
    "HalfCheetah-v5": _Runner(20.0, 8, 9),
    "Hopper-v5": _Runner(5.0, 5, 6),
    "Walker2d-v5": _Runner(5.0, 8, 9),
    "Swimmer-v5": _Runner(2.0, 3, 5),
}


def tasks() -> tuple[str, ...]:
    """Names as Gymnasium registers them."""
    return tuple(_RUNNERS)


def make(task: str, image_size: int) -> SuiteEnv:
    """The runner `task`; its camera follows it."""
    return SuiteEnv(Locomotion(task), image_size)


class Locomotion:
    """See `suite_env.Simulation`."""

    instruction = "run forward"
    stages = SUCCESS
    cameras: tuple[str, ...] = ("track",)
    action_frame = "torques of the joints as fractions of their motors' gears"

    def __init__(self, task: str) -> None:
        runner = _RUNNERS[task]
        made: Any = gymnasium.make(task)
        self.max_steps = int(made.spec.max_episode_steps)
        self._env: Any = made.unwrapped
        self._name = f"gymnasium/{task}"
        self._goal_m = runner.goal_m
        self.package = f"gymnasium {gymnasium.__version__}"
        self.control_period_s = float(self._env.frame_skip * self.model.opt.timestep)
        space = self._env.action_space
        motors = [self.model.actuator(i).name for i in range(self.model.nu)]
        labels = [name or f"motor{i}" for i, name in enumerate(motors)]
        self.action_spec = limited(labels, "1", space.low, space.high)
        parts = {
            "position": runner.positions,
            "velocity": runner.velocities,
            "contact": runner.contacts,
        }
        # Positions are metres, radians or a quaternion, velocities those a second: the suite's
        # order, which its documentation lists.
        units = ("m or rad",) * runner.positions + ("m/s or rad/s",) * runner.velocities
        labels = numbered({name: count for name, count in parts.items() if count})
        self.proprio_spec = vector("proprio", labels, units + ("N or N m",) * runner.contacts)
        self._observation = np.zeros(len(labels))
        self._start_m = 0.0

    @property
    def model(self) -> Any:
        """MuJoCo's."""
        return self._env.model

    @property
    def data(self) -> Any:
        """MuJoCo's."""
        return self._env.data

    def reset(self, seed: int) -> None:
        """Joints a little off their start, as `seed` draws them."""
        self._observation, _ = self._env.reset(seed=seed)
        self._start_m = self._forward_m()

    def step(self, action: np.ndarray) -> Outcome:
        """One control period."""
        self._observation, reward, fallen, _, _ = self._env.step(action)
        success = self._forward_m() - self._start_m >= self._goal_m
        return Outcome(float(reward), success, over=bool(fallen))

    def proprio(self) -> np.ndarray:
        """The suite's observation."""
        return self._observation

    def memory(self) -> np.ndarray:
        """Where it began to run."""
        return np.array([self._start_m])

    def expert(self) -> Any:
        """There is none."""
        raise no_expert(self._name)

    def idle(self, last: np.ndarray | None) -> np.ndarray:
        """No torque."""
        del last
        return np.zeros(self.action_spec.shape)

    def close(self) -> None:
        """Free the suite's environment."""
        self._env.close()

    def _forward_m(self) -> float:
        return float(self.data.qpos[0])
