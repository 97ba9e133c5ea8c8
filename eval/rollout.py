"""One closed-loop rollout: observe, ask for an action chunk, execute the front of it, ask again.

The simulator stands still while the policy computes (a paused clock): success does not suffer
from latency here, only the control record shows it. Time enters as `clock`; sockets and models
are behind `RolloutPolicy`.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from loopdit.datasets.spec import Observation
from loopdit.eval.control import ControlRecord, control_record
from loopdit.eval.environment import Environment

CLOCK = "paused"  # what results call this way of treating latency


class RolloutPolicy(Protocol):
    """Whatever can drive an environment."""

    def reset(self, seed: int) -> None:
        """Called after the environment was reset to the episode that `seed` names."""
        ...

    def chunk(self, observation: Observation, instruction: str) -> np.ndarray:
        """The next actions (H, A) float32 in raw units, H >= 1, the first for now."""
        ...


@dataclass(frozen=True)
class Rollout:
    """How one rollout went. `latencies_s` has one round trip for each chunk asked for."""

    seed: int
    success: bool
    unstable: bool
    steps: int
    latencies_s: tuple[float, ...]
    control: ControlRecord


def rollout(
    env: Environment,
    policy: RolloutPolicy,
    seed: int,
    execute_horizon: int,
    clock: Callable[[], float],
    on_observation: Callable[[Observation], None] | None = None,
) -> Rollout:
    """Drive `env` from `seed` until it ends the episode.

    `execute_horizon` actions of each chunk are executed, or all of a shorter one. `clock` gives
    monotonic seconds. `on_observation` sees the first and every later observation.
    """
    observation, info = env.reset(seed=seed)
    policy.reset(seed)
    latencies: list[float] = []
    waits: list[float] = []
    pending: deque[np.ndarray] = deque()
    ended = False
    while not ended:
        if on_observation is not None:
            on_observation(observation)
        wait = 0.0
        if not pending:
            asked = clock()
            chunk = policy.chunk(observation, env.instruction)
            wait = clock() - asked
            latencies.append(wait)
            pending.extend(chunk[:execute_horizon])
        waits.append(wait)
        observation, _, terminated, truncated, info = env.step(pending.popleft())
        ended = terminated or truncated
    if on_observation is not None:
        on_observation(observation)
    return Rollout(
        seed=seed,
        success=bool(info["success"]),
        unstable=bool(info["unstable"]),
        steps=len(waits),
        latencies_s=tuple(latencies),
        control=control_record(waits, env.control_period_s),
    )
