"""gymnasium-robotics: the four Fetch tasks, and Adroit's hand. Success is the suite's own.

Action (A,), -1 to 1, as the suite has it. Observation `proprio` (P,): the suite's observation and,
for a Fetch, where the goal is. The suite has no scripted expert.
"""

# A suite's package is untyped to us.
# pyright: reportUnknownParameterType=false

from importlib import import_module
from importlib.metadata import version
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

_FETCH = {
    "FetchReach-v4": "move the gripper to the red mark",
    "FetchPush-v4": "push the cube to the red mark",
    "FetchSlide-v4": "hit the puck so that it slides to the red mark",
    "FetchPickAndPlace-v4": "pick up the cube and hold it at the red mark",
}
_ADROIT = {
    "AdroitHandDoor-v1": "open the door",
    "AdroitHandHammer-v1": "hammer the nail into the board",
    "AdroitHandPen-v1": "turn the pen as the other one is turned",
    "AdroitHandRelocate-v1": "carry the ball to the mark",
}


def tasks() -> tuple[str, ...]:
    """Names as the suite registers them."""
    return (*_FETCH, *_ADROIT)


def make(task: str, image_size: int) -> SuiteEnv:
    """The task `task`."""
    return SuiteEnv(Robotics(task), image_size)


class Robotics:
    """See `suite_env.Simulation`."""

    stages = SUCCESS

    def __init__(self, task: str) -> None:
        gymnasium.register_envs(import_module("gymnasium_robotics"))
        made: Any = gymnasium.make(task)
        self.max_steps = int(made.spec.max_episode_steps)
        self._env: Any = made.unwrapped
        self._name = f"robotics/{task}"
        self.package = f"gymnasium-robotics {version('gymnasium-robotics')}"
        self.instruction = {**_FETCH, **_ADROIT}[task]
        self._fetch = task in _FETCH
        self.control_period_s = float(self._env.dt)
        # The two of the suite's that see all of the task.
        self.cameras: tuple[str, ...] = ("external_camera_0" if self._fetch else "vil_camera",)
        space = self._env.action_space
        if self._fetch:
            labels = ["dx", "dy", "dz", "gripper"]
            self.action_frame = "a shift of the gripper, 1 is 50 mm a step; gripper: 1 opens"
        else:
            labels = [self.model.actuator(i).name for i in range(self.model.nu)]
            self.action_frame = "joint targets, -1 to 1 over each actuator's range"
        self.action_spec = limited(labels, "1", space.low, space.high)
        self._observation, _ = self._env.reset(seed=0)
        flat = self.proprio()
        goal = 3 if self._fetch else 0
        parts = {"observed": flat.size - goal, **({"goal": goal} if goal else {})}
        self.proprio_spec = vector("proprio", numbered(parts), "SI")

    @property
    def model(self) -> Any:
        """MuJoCo's."""
        return self._env.model

    @property
    def data(self) -> Any:
        """MuJoCo's."""
        return self._env.data

    def reset(self, seed: int) -> None:
        """Objects and goal as `seed` draws them."""
        self._observation, _ = self._env.reset(seed=seed)

    def step(self, action: np.ndarray) -> Outcome:
        """One control period."""
        self._observation, reward, _, _, info = self._env.step(action)
        success = info["is_success"] if self._fetch else info["success"]
        return Outcome(float(reward), bool(success))

    def proprio(self) -> np.ndarray:
        """The suite's observation, and the goal."""
        if not self._fetch:
            return self._observation
        return np.concatenate([self._observation["observation"], self._observation["desired_goal"]])

    def memory(self) -> np.ndarray:
        """The goal is in the observation."""
        return self.proprio()

    def expert(self) -> Any:
        """There is none."""
        raise no_expert(self._name)

    def idle(self, last: np.ndarray | None) -> np.ndarray:
        """No shift and the gripper as it was; for a hand the middle of each joint, or as it was."""
        if not self._fetch:
            return np.zeros(self.action_spec.shape) if last is None else last
        return np.array([0, 0, 0, 1 if last is None else last[3]])

    def close(self) -> None:
        """Free the suite's environment."""
        self._env.close()
