"""What the scripted experts that are told of the actions in flight have in common: a chunk is those
actions, and then a plan of the expert's own.

Shapes: n actions in flight, H planned ones, A action dim.
"""

from abc import ABC, abstractmethod
from typing import cast

import numpy as np

from loopdit.datasets.spec import COMMITTED, Observation
from loopdit.deploy.robot.committed import unpacked
from loopdit.eval.environment import Environment, Expert
from loopdit.eval.rollouts.rollout import Answer

PLANNED = 16


class PlanningExpert(ABC):
    """See `rollout.RolloutPolicy`. It looks at the simulator's state, not at the observation."""

    looks = False
    history = 1
    committed = 16

    def __init__(self, env: object) -> None:
        self._env = env
        self._expert: Expert | None = None

    def reset(self, seed: int) -> None:
        """Take a fresh expert for the episode that just started."""
        del seed
        self._expert = cast(Environment, self._env).expert()

    def chunk(self, observation: Observation, instruction: str) -> Answer:
        """(n + H, A), what is in flight in front."""
        del instruction
        if self._expert is None:
            raise RuntimeError("reset the policy before asking it for a chunk.")
        in_flight = [*unpacked(observation[COMMITTED])]
        return Answer(np.stack([*in_flight, *self.planned(self._expert, in_flight)]))

    @abstractmethod
    def planned(self, expert: Expert, in_flight: list[np.ndarray]) -> list[np.ndarray]:
        """PLANNED actions (A,) to follow those in flight (A,)."""
