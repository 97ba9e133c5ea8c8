"""An environment of a few lines, to count what a rollout does with a policy and a clock."""

from typing import Any

import numpy as np

from loopdit.datasets.spec import Observation, PolicySpec, TensorSpec
from loopdit.errors import ConfigError
from loopdit.eval.environment import Expert
from loopdit.eval.rollouts.rollout import Answer

SPEC = PolicySpec(
    observations=(TensorSpec("proprio", (1,), "float32"),),
    action=TensorSpec("action", (1,), "float32"),
    action_frame="one number",
    control_period_s=0.1,
)

IDLE = -1.0


class FakeClock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class CountingEnv:
    """The observation is the number of steps so far; success is reaching `goal` of them.

    The idle action is IDLE. A negative command but IDLE is rejected. `observed_at` has the steps
    whose observation was made while `observing`.
    """

    policy_spec = SPEC
    instruction = "count"
    stages: tuple[str, ...] = ("halfway", "done")
    control_period_s = 0.1
    simulator = "counting 1"

    def __init__(self, goal: int, max_steps: int, unstable: bool = False) -> None:
        self.goal, self.max_steps, self.unstable = goal, max_steps, unstable
        self.observing = True
        self.observed_at: list[int] = []
        self.executed: list[float] = []
        self.idled_after: list[float | None] = []

    def reset(self, *, seed: int | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        del seed
        self.executed, self.idled_after, self.observed_at = [], [], []
        return self._observation(), self._info(False)

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        self.executed.append(float(action[0]))
        success = len(self.executed) >= self.goal and not self.unstable
        truncated = not success and len(self.executed) >= self.max_steps
        return self._observation(), float(success), success, truncated, self._info(success)

    def expert(self) -> Expert:
        raise ConfigError("nobody is an expert at counting.")

    def idle(self, last: np.ndarray | None) -> np.ndarray:
        self.idled_after.append(None if last is None else float(last[0]))
        return np.array([IDLE], np.float32)

    def state(self) -> np.ndarray:
        return np.array(self.executed)

    def render(self) -> np.ndarray:
        return np.zeros((4, 4, 3), np.uint8)

    def close(self) -> None:
        """Nothing to free."""

    def _info(self, success: bool) -> dict[str, Any]:
        count = len(self.executed)
        stage = "done" if success else "halfway" if 2 * count >= self.goal else "start"
        rejected = bool(self.executed) and IDLE != self.executed[-1] < 0
        return {"success": success, "unstable": self.unstable, "stage": stage, "rejected": rejected}

    def _observation(self) -> dict[str, np.ndarray]:
        if self.observing:
            self.observed_at.append(len(self.executed))
        return {"proprio": np.array([len(self.executed)], np.float32)}


class PlanningPolicy:
    """Plans to say how many steps there were, times `scale`: chunk (H, 1) from the observed count
    on."""

    looks = True
    history = 1
    committed = 0

    def __init__(self, horizon: int, clock: FakeClock, latencies_s: list[float]) -> None:
        self.horizon, self.clock, self.latencies_s = horizon, clock, latencies_s
        self.scale = 1.0
        self.asked_at: list[int] = []
        self.seeds: list[int] = []

    def reset(self, seed: int) -> None:
        self.seeds.append(seed)
        self.asked_at = []

    def chunk(self, observation: Observation, instruction: str) -> Answer:
        assert instruction == "count"
        self.clock.now += self.latencies_s[len(self.asked_at) % len(self.latencies_s)]
        count = int(observation["proprio"][0])
        self.asked_at.append(count)
        planned = np.arange(count, count + self.horizon, dtype=np.float32)[:, None]
        return Answer(self.scale * planned, loops=2)
