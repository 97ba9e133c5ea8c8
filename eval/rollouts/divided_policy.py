"""A policy driven at a multiple of its own control rate: each action spread over several steps.

A policy that was trained at 10 Hz can be played at 50: a shift of 5 mm becomes five of 1 mm. What
it sees and plans stays as it was; what is finer is when its chunks may come and take over, and so
what latency costs. Delays and jerk are then counted in the shorter steps.

Shapes: H action horizon, A action dim.
"""

import numpy as np

from loopdit.datasets.spec import Observation
from loopdit.deploy.robot.commanded_pose import Shifts, divided, merged
from loopdit.deploy.robot.guide import GUIDE
from loopdit.errors import ConfigError
from loopdit.eval.rollouts.rollout import Answer, RolloutPolicy


class DividedPolicy:
    """See `rollout.RolloutPolicy`: `policy`, each action of it in `parts` control steps.

    Raises ConfigError for a policy that is given more than the latest observation: its history and
    its actions in flight are counted in its own periods.
    """

    committed = 0
    history = 1

    def __init__(self, policy: RolloutPolicy, parts: int, labels: tuple[str, ...]) -> None:
        if policy.committed or policy.history > 1:
            raise ConfigError(
                f"divide={parts} needs a policy that looks at the latest observation alone; this "
                f"one is told what is in flight or has a history. Use divide=1."
            )
        if not labels:
            raise ConfigError(
                f"divide={parts}: the action has no labels, which say what of it is a shift. Use "
                f"divide=1."
            )
        self.looks = policy.looks
        self._policy = policy
        self._parts = parts
        self._shifts = Shifts(labels)

    def reset(self, seed: int) -> None:
        """As the policy."""
        self._policy.reset(seed)

    def chunk(self, observation: Observation, instruction: str) -> Answer:
        """(H * parts, A)."""
        if GUIDE in observation:
            guide = observation[GUIDE]
            few = merged(guide[:, :-1], self._parts, self._shifts)
            weights = guide[:: self._parts, -1:][: len(few)]
            observation = {**observation, GUIDE: np.concatenate([few, weights], axis=1)}
        answer = self._policy.chunk(observation, instruction)
        return answer._replace(actions=divided(answer.actions, self._parts, self._shifts))
