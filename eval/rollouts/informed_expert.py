"""The scripted expert, told which actions are in flight: what latency costs one who plans for it.

It plans a chunk: each action as the expert would take it if the actions in flight and those planned
before it had moved the commanded pose already, and nothing else had changed. The plan is as good as
what the expert saw is fresh, so few of its actions should be played (`execute_horizon=1`). Where
something moves by itself (`catch-roll`) it is too late all the same: it knows what the robot will
have done, and not what the world will.

Shapes: n actions in flight, H planned ones, A action dim.
"""

from contextlib import AbstractContextManager, ExitStack
from typing import Protocol, runtime_checkable

import numpy as np

from loopdit.errors import ConfigError
from loopdit.eval.environment import Environment, Expert
from loopdit.eval.rollouts.planning_expert import PLANNED, PlanningExpert


@runtime_checkable
class _Commanded(Protocol):
    def as_commanded(self, actions: np.ndarray) -> AbstractContextManager[None]:
        """Inside, the environment's expert acts as if the actions (n, A) had been commanded."""
        ...


class InformedExpert(PlanningExpert):
    """See `PlanningExpert`."""

    def __init__(self, env: Environment) -> None:
        if not isinstance(env, _Commanded):
            raise ConfigError(
                "policy=informed-expert needs an expert that can be told what is in flight, and "
                "this environment's cannot. Use a built-in environment, or policy=expert."
            )
        super().__init__(env)
        self._world = env

    def planned(self, expert: Expert, in_flight: list[np.ndarray]) -> list[np.ndarray]:
        """Each as if those before it had been commanded."""
        actions: list[np.ndarray] = []
        with ExitStack() as commanded:
            commanded.enter_context(self._world.as_commanded(np.array(in_flight)))
            for _ in range(PLANNED):
                actions.append(expert.action())
                commanded.enter_context(self._world.as_commanded(actions[-1][None]))
        return actions
