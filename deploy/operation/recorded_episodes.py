"""Steps of several sessions at once, as the episodes that they make: pure, and bounded by its user.

A step is one observation and the action of that moment, with what is kept beside it. T steps, H
actions in a chunk.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from loopdit.datasets.episode import Episode
from loopdit.datasets.spec import Observation

OBSERVED_NS = "observed_ns"  # an extra: when a step was observed, by its robot's clock


@dataclass(frozen=True)
class Step:
    """An observation as stores have them, the action (A,) of its moment, and a row of each extra of
    the episode: (H, A), or a number, int64. Steps of one episode have the same extras."""

    session: int
    epoch: int
    instruction: str
    model_id: str
    observation: Observation
    action: np.ndarray
    extras: Mapping[str, np.ndarray | int]


@dataclass(frozen=True)
class _Open:
    """The steps of one epoch of one session so far, of one instruction, by one policy."""

    session: int
    epoch: int
    instruction: str
    model_id: str


class RecordedEpisodes:
    """The episodes that are under way. What is returned is theirs no more."""

    def __init__(self) -> None:
        self._open: dict[_Open, list[Step]] = {}
        self._parts: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self._open)

    def add(self, step: Step) -> list[Episode]:
        """The episode that this step ends: an earlier one of its session, of another epoch, another
        instruction or another policy."""
        key = _Open(step.session, step.epoch, step.instruction, step.model_id)
        ended = [o for o in self._open if o.session == key.session and o != key]
        self._open.setdefault(key, []).append(step)
        return [self._closed(one) for one in ended]

    def ended(self, epochs: Mapping[int, int]) -> list[Episode]:
        """Those that are complete, where these epochs of the sessions are present."""
        done = [one for one in self._open if epochs.get(one.session) != one.epoch]
        episodes = [self._closed(one) for one in done]
        for key in [k for k in self._parts if epochs.get(k[0]) != k[1]]:
            del self._parts[key]
        return episodes

    def longest(self) -> Episode | None:
        """What there is of the longest, which goes on as another one; None where there is none."""
        if not self._open:
            return None
        return self._closed(max(self._open, key=lambda one: len(self._open[one])))

    def _closed(self, one: _Open) -> Episode:
        steps = self._open.pop(one)
        part = self._parts.get((one.session, one.epoch), 0)
        self._parts[one.session, one.epoch] = part + 1
        return Episode(
            observations={
                name: np.stack([step.observation[name] for step in steps])
                for name in steps[0].observation
            },
            actions=np.stack([step.action for step in steps]),
            instruction=one.instruction,
            success=None,
            seed=None,
            extras={
                name: np.stack([np.asarray(step.extras[name]) for step in steps])
                for name in steps[0].extras
            },
            metadata={
                "model_id": one.model_id,
                "session": f"{one.session:x}",
                "epoch": one.epoch,
                "part": part,
            },
        )
