"""The scripted expert with perfect foresight: it plans by playing in a copy of the world.

Its chunks say what it will do at each step in the world as it will be then, with the ball rolled
on. So what it loses to latency is lost by how chunks are played alone, also on tasks where things
move by themselves: the best that a policy which has learned to foresee can come to.

Shapes: n actions in flight, H planned ones, A action dim.
"""

from contextlib import AbstractContextManager
from typing import Protocol, cast, runtime_checkable

import numpy as np

from loopdit.datasets.spec import COMMITTED, Observation
from loopdit.deploy.robot.committed import unpacked
from loopdit.errors import ConfigError
from loopdit.eval.environment import Environment, Expert
from loopdit.eval.rollouts.rollout import Answer

_PLANNED = 16


@runtime_checkable
class _Imagining(Protocol):
    def imagined(self) -> AbstractContextManager[None]:
        """Inside, `step` is what would happen; afterwards it did not."""
        ...


class ForeseeingExpert:
    """See `rollout.RolloutPolicy`. It looks at the simulator's state, not at the observation."""

    looks = False
    history = 1
    committed = 16

    def __init__(self, env: Environment) -> None:
        if not isinstance(env, _Imagining):
            raise ConfigError(
                "policy=foreseeing-expert plays in a copy of the world, and this environment makes "
                "none. Use a built-in environment, or policy=expert."
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
        env = cast(Environment, self._env)
        actions = [*unpacked(observation[COMMITTED])]
        with self._env.imagined():
            for action in actions:
                env.step(action)
            for _ in range(_PLANNED):
                actions.append(self._expert.action())
                env.step(actions[-1])
        return Answer(np.stack(actions))
