"""What a rollout needs of an environment: a Gymnasium one that knows its spec and its expert."""

from typing import Any, Protocol

import numpy as np

from loopdit.datasets.spec import PolicySpec
from loopdit.errors import ServerError


class EnvironmentGone(ServerError):
    """The process of an environment died, or does not answer: its episode is lost."""


class Expert(Protocol):
    """A scripted policy on privileged state."""

    def action(self) -> np.ndarray:
        """The clean action (A,) float32 for the environment's present state."""
        ...


class Environment(Protocol):
    """`info` of `reset` and `step` carries `success`, `unstable` (broken physics) and `rejected`
    (the last command could not be followed), all bool, and `stage`, the furthest one reached.

    `stages` are what an attempt goes through, in order, the goal last. `simulator` names what
    computes the physics, with its version. `observing` may be set to False by a caller who does
    not look: frames may then be left out of observations.
    """

    policy_spec: PolicySpec
    instruction: str
    stages: tuple[str, ...]
    control_period_s: float
    max_steps: int
    simulator: str
    observing: bool

    def reset(self, *, seed: int | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start the episode that `seed` names."""
        ...

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Observation, reward, terminated, truncated, info after one control period."""
        ...

    def expert(self) -> Expert:
        """A fresh expert for the episode that just started."""
        ...

    def idle(self, last: np.ndarray | None) -> np.ndarray:
        """The action (A,) that asks for no motion and keeps the gripper as `last` had it."""
        ...

    def state(self) -> np.ndarray:
        """All that decides what happens next, as one vector: equal only for equal states."""
        ...

    def render(self) -> np.ndarray:
        """A picture (H, W, 3) uint8 for people."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...
