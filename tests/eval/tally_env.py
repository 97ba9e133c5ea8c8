"""An environment of a few lines that does everything an environment may do, also what is wrong.

`python -m tests...` does not exist: as a program, it serves itself at the endpoint it is given.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from loopdit.datasets.spec import PolicySpec, TensorSpec
from loopdit.errors import ConfigError
from loopdit.eval.environment import Expert


def spec(image_size: int) -> PolicySpec:
    shape = (image_size, image_size, 3)
    frames = (TensorSpec("images.front", shape, "uint8"),) if image_size else ()
    tally = TensorSpec("proprio", (2,), "float32", ("seed", "sum"), ("1", "m"))
    return PolicySpec(
        observations=(*frames, tally),
        action=TensorSpec(
            "action", (2,), "float32", ("dx", "gripper"), ("m", "1"), (-1, 0), (1, 1)
        ),
        action_frame="added to the sum",
        control_period_s=0.02,
    )


class TallyEnv:
    """Adds up its actions from the seed on; success is a sum of at least `goal` above the seed.

    A dx of exactly 0.5 raises, of 0.25 ends the process, as a driver that crashes would.
    """

    instruction = "add up — slowly"
    control_period_s = 0.02
    max_steps = 50
    stages: tuple[str, ...] = ("half way", "goal")
    simulator = "abacus 1.0"

    def __init__(self, image_size: int = 8, goal: float = 3.0) -> None:
        self.policy_spec = spec(image_size)
        self.observing = True
        self.closed = False
        self._image_size, self._goal = image_size, goal
        self._seed = self._steps = 0
        self._sum = 0.0

    def reset(self, *, seed: int | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        self._seed, self._steps, self._sum = seed or 0, 0, 0.0
        return self._observation(), self._info()

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        if action.shape != (2,):
            raise ValueError(f"an action is 2 numbers; got {action.shape}.")
        if action[0] == 0.5:
            raise RuntimeError("the abacus broke")
        if action[0] == 0.25:
            sys.stderr.write("bead 7 caught fire\n")
            sys.stderr.flush()
            os._exit(3)
        self._steps += 1
        self._sum += float(action[0])
        success = self._sum >= self._goal
        truncated = not success and self._steps >= self.max_steps
        return self._observation(), self._sum / 4, success, truncated, self._info()

    def expert(self) -> Expert:
        if self._seed == 13:
            raise ConfigError("env=tally has no scripted expert on this seed.")
        return TallyExpert(self)

    def idle(self, last: np.ndarray | None) -> np.ndarray:
        return np.array([0, 1 if last is None else last[1]], np.float32)

    def state(self) -> np.ndarray:
        return np.array([self._seed, self._steps, self._sum])

    def render(self) -> np.ndarray:
        return np.full((5, 7, 3), self._steps, np.uint8)

    def close(self) -> None:
        self.closed = True

    def _observation(self) -> dict[str, np.ndarray]:
        proprio = np.array([self._seed, self._sum], np.float32)
        if not (self.observing and self._image_size):
            return {"proprio": proprio}
        frame = np.full((self._image_size, self._image_size, 3), self._steps, np.uint8)
        return {"images.front": frame, "proprio": proprio}

    def _info(self) -> dict[str, Any]:
        stage = "goal" if self._sum >= self._goal else "start"
        return {
            "success": self._sum >= self._goal,
            "unstable": False,
            "rejected": np.bool_(self._sum < 0),
            "stage": stage,
            "picture": np.zeros(3),  # which no header carries
        }


class TallyExpert:
    """Steps of the length that remains, at most 1."""

    def __init__(self, env: TallyEnv) -> None:
        self._env = env

    def action(self) -> np.ndarray:
        return np.array([min(1.0, 3.0 - self._env.state()[2]), 1], np.float32)


if __name__ == "__main__":
    from loopdit.eval.env_driver import Driver
    from loopdit.eval.env_server import EnvServer

    server = EnvServer(Driver("tally", TallyEnv, time.monotonic), sys.argv[1])
    Path(sys.argv[2]).write_text(server.endpoint)
    server.serve()
