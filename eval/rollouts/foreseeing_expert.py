"""The scripted expert with perfect foresight: it plans by playing in a copy of the world.

Its chunks say what it will do at each step in the world as it will be then, with the ball rolled
on. So what it loses to latency is lost by how chunks are played alone, also on tasks where things
move by themselves: the best that a policy which has learned to foresee can come to.

Shapes: n actions in flight, H planned ones, A action dim.
"""

from contextlib import AbstractContextManager
from typing import Protocol, cast, runtime_checkable

import numpy as np

from loopdit.errors import ConfigError
from loopdit.eval.environment import Environment, Expert
from loopdit.eval.rollouts.planning_expert import PLANNED, PlanningExpert


@runtime_checkable
class _Imagining(Protocol):
    def imagined(self) -> AbstractContextManager[None]:
        """Inside, `step` is what would happen; afterwards it did not."""
        ...


class ForeseeingExpert(PlanningExpert):
    """See `PlanningExpert`."""

    def __init__(self, env: Environment) -> None:
        if not isinstance(env, _Imagining):
            raise ConfigError(
                "policy=foreseeing-expert plays in a copy of the world, and this environment makes "
                "none. Use a built-in environment, or policy=expert."
            )
        super().__init__(env)
        self._world = env

    def planned(self, expert: Expert, in_flight: list[np.ndarray]) -> list[np.ndarray]:
        """Played in the copy, each in turn."""
        env, actions = cast(Environment, self._env), list[np.ndarray]()
        with self._world.imagined():
            for action in in_flight:
                env.step(action)
            for _ in range(PLANNED):
                actions.append(expert.action())
                env.step(actions[-1])
        return actions
