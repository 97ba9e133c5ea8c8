"""Writes steps to an episode store in a thread of its own, and never makes who notes them wait.

What is not yet on the disk takes as much memory as was said; what does not fit is dropped and
counted. Where the store cannot be written any more, recording stops with one line in the log.
"""

import logging
import math
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from loopdit import __version__
from loopdit.datasets.episode import Episode
from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store import EpisodeWriter
from loopdit.deploy.operation.recorded_episodes import OBSERVED_NS, RecordedEpisodes, Step
from loopdit.errors import LoopditError

_LOG = logging.getLogger(__name__)
_WRITE_PERIOD_S = 0.1
_LAST_WRITES_S = 30.0
# An episode is in memory a second time while it is put together to be written.
_COPIES = 2
_SPARSE = 1.5  # control periods between two observations
_Noted: TypeAlias = Step | Mapping[int, int]


@dataclass(frozen=True)
class Recorded:
    """What came of it so far: steps and episodes on the disk, steps that were dropped."""

    going_on: bool
    steps: int
    episodes: int
    dropped: int


class Recording:
    """Appends to the store at `path`, which it makes where there is none. One thread notes.

    `memory_bytes`: the most that is held, in steps of which each has `beside_bytes` besides what
    the spec names. Raises StoreError or SpecMismatch for a store that cannot be gone on with.
    `close` writes what is under way.
    """

    def __init__(self, path: Path, spec: PolicySpec, beside_bytes: int, memory_bytes: int) -> None:
        recorded = spec.recorded
        if path.exists():
            self._writer = EpisodeWriter.resume(path, recorded)
        else:
            made_by = {"made_by": f"policy-serve {__version__}"}
            self._writer = EpisodeWriter.create(path, recorded, made_by)
        self._period_s = spec.control_period_s
        sizes = [math.prod(t.shape) * np.dtype(t.dtype).itemsize for t in recorded.tensors]
        self._most_steps = max(2, memory_bytes // (_COPIES * (sum(sizes) + beside_bytes)))
        self._noted: deque[_Noted] = deque()
        self._noted_steps = self._freed_steps = 0  # each grows, in one thread alone
        self._epochs: dict[int, int] = {}
        self._episodes = RecordedEpisodes()
        self._going_on, self._dropped, self._written = True, 0, 0
        self._said_sparse = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write, name="recorder", daemon=True)
        self._thread.start()

    @property
    def recorded(self) -> Recorded:
        """What came of it so far; from any thread."""
        return Recorded(self._going_on, self._freed_steps, self._written, self._dropped)

    @property
    def has_room(self) -> bool:
        """Whether one more step would be taken."""
        return self._going_on and self._held < self._most_steps

    def note(self, step: Step) -> None:
        """A step, whose arrays are this recording's from now on."""
        if not self.has_room:
            self._dropped += 1
            return
        self._noted.append(step)
        self._noted_steps += 1

    def drop(self) -> None:
        """Count a step that cannot be recorded."""
        self._dropped += 1

    def under_way(self, epochs: Mapping[int, int]) -> None:
        """Which epoch each session is in: the episodes of all others are complete."""
        if epochs != self._epochs:
            self._epochs = dict(epochs)
            self._noted.append(self._epochs)

    def close(self) -> Recorded:
        """Write what is under way, as complete."""
        self._closing.set()
        self._thread.join(_LAST_WRITES_S)
        return self.recorded

    def _write(self) -> None:
        while True:
            closing = self._closing.wait(_WRITE_PERIOD_S)
            try:
                while self._noted:
                    self._take(self._noted.popleft())
                if closing:
                    self._append(self._episodes.ended({}))
                    return
            except (LoopditError, MemoryError, OSError) as error:
                self._going_on = False
                self._noted.clear()
                self._episodes = RecordedEpisodes()
                _LOG.error("recording has stopped; serving goes on: %s", error)
                return

    def _take(self, noted: _Noted) -> None:
        if not isinstance(noted, Step):
            self._append(self._episodes.ended(noted))
            return
        self._append(self._episodes.add(noted))
        if self._held > self._most_steps / 2:
            # The other half is for what comes while this is written.
            longest = self._episodes.longest()
            self._append([] if longest is None else [longest])

    def _append(self, episodes: Sequence[Episode]) -> None:
        for episode in episodes:
            self._writer.append(episode)
            self._written += 1
            self._freed_steps += len(episode.actions)
            self._warn_where_sparse(episode)

    @property
    def _held(self) -> int:
        """Steps in memory."""
        return self._noted_steps - self._freed_steps

    def _warn_where_sparse(self, episode: Episode) -> None:
        if OBSERVED_NS not in episode.extras:
            return
        gaps_s = np.diff(episode.extras[OBSERVED_NS]) / 1e9
        periods = float(np.median(gaps_s)) / self._period_s if len(gaps_s) else 1.0
        if periods >= _SPARSE and not self._said_sparse:
            self._said_sparse = True
            _LOG.warning(
                "recorded observations lie %.1f control periods apart by their robot's clock, and "
                "so do the actions that a policy is trained to from them: let it ask at each "
                "control step where that matters",
                periods,
            )
