"""What a rollout needs of an environment: a Gymnasium one that knows its spec and its expert."""

from typing import Any, Protocol

import numpy as np

from loopdit.datasets.spec import PolicySpec


class Expert(Protocol):
    """A scripted policy on privileged state."""

    def action(self) -> np.ndarray:
        """The clean action (A,) float32 for the environment's present state."""
        ...


class Environment(Protocol):
    """`info` of `reset` and `step` carries the bools `success` and `unstable`."""

    policy_spec: PolicySpec
    instruction: str
    control_period_s: float
    max_steps: int

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

    def render(self) -> np.ndarray:
        """A picture (H, W, 3) uint8 for people."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...
