"""The scripted expert, told which actions are in flight: what latency costs one who plans for it.

It plans a chunk: each action as the expert would take it if the actions in flight and those planned
before it had moved the commanded pose already, and nothing else had changed. The plan is as good as
what the expert saw is fresh, so few of its actions should be played (`execute_horizon=1`). Where
something moves by itself (`catch-roll`) it is too late all the same: it knows what the robot will
have done, and not what the world will.

Shapes: n actions in flight, H planned ones, A action dim.
"""

from contextlib import AbstractContextManager, ExitStack
from typing import Protocol, cast, runtime_checkable

import numpy as np

from loopdit.datasets.spec import COMMITTED, Observation
from loopdit.deploy.robot.committed import unpacked
from loopdit.errors import ConfigError
from loopdit.eval.environment import Environment, Expert
from loopdit.eval.rollouts.rollout import Answer

_PLANNED = 16


@runtime_checkable
class _Commanded(Protocol):
    def as_commanded(self, actions: np.ndarray) -> AbstractContextManager[None]:
        """Inside, the environment's expert acts as if the actions (n, A) had been commanded."""
        ...


class InformedExpert:
    """See `rollout.RolloutPolicy`. It looks at the simulator's state, not at the observation."""

    looks = False
    history = 1
    committed = 16

    def __init__(self, env: Environment) -> None:
        if not isinstance(env, _Commanded):
            raise ConfigError(
                "policy=informed-expert needs an expert that can be told what is in flight, and "
                "this environment's cannot. Use a built-in environment, or policy=expert."
            )
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
        actions = [*unpacked(observation[COMMITTED])]
        with ExitStack() as commanded:
            commanded.enter_context(self._env.as_commanded(np.array(actions)))
            for _ in range(_PLANNED):
                actions.append(self._expert.action())
                commanded.enter_context(self._env.as_commanded(actions[-1][None]))
        return Answer(np.stack(actions))
