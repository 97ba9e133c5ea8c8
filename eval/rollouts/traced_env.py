"""An environment that remembers the states it went through."""

from typing import Any

import numpy as np

from loopdit.eval.environment import Environment
from loopdit.eval.rollouts.rollout_record import state_crc


class TracedEnv:
    """`env` for one rollout."""

    def __init__(self, env: Environment) -> None:
        self.env = env
        self._trace: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    @property
    def observing(self) -> bool:
        """See Environment."""
        return self.env.observing

    @observing.setter
    def observing(self, value: bool) -> None:
        self.env.observing = value

    def state(self) -> np.ndarray:
        """See Environment; its checksum is kept."""
        state = self.env.state()
        self._trace.append(state_crc(state))
        return state

    def trace(self) -> np.ndarray:
        """(states asked for,) uint32, see `rollout_record`."""
        return np.array(self._trace, np.uint32)
