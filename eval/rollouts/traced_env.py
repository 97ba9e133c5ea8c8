"""An environment that remembers the states it went through, and whether it is its process that is
gone when something does not answer."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np

from loopdit.errors import ServerError
from loopdit.eval.environment import Environment
from loopdit.eval.rollouts.rollout_record import state_crc


class TracedEnv:
    """`env` for one rollout. `lost`: a ServerError came from it, and not from a policy's server."""

    def __init__(self, env: Environment) -> None:
        self.env = env
        self.lost = False
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

    def reset(self, *, seed: int) -> Any:
        """See Environment."""
        with self._watched():
            return self.env.reset(seed=seed)

    def step(self, action: np.ndarray) -> Any:
        """See Environment."""
        with self._watched():
            return self.env.step(action)

    def state(self) -> np.ndarray:
        """See Environment; its checksum is kept."""
        with self._watched():
            state = self.env.state()
        self._trace.append(state_crc(state))
        return state

    def trace(self) -> np.ndarray:
        """(states asked for,) uint32, see `rollout_record`."""
        return np.array(self._trace, np.uint32)

    @contextmanager
    def _watched(self) -> Generator[None]:
        try:
            yield
        except ServerError:
            self.lost = True
            raise
