"""How many control steps a chunk takes to come, on the virtual clock of a rollout.

    0, 1, 2 ...            always so many control steps
    uniform:1-3            that many, each as likely
    normal:MEAN_MS:SD_MS   a latency in milliseconds, rounded up to control steps
    recorded:FILE[:K]      a latency that was measured, drawn from those in FILE (see
                           `latency_samples`), at depth K where it has several
    wall                   the latency of this very chunk on this machine: not reproducible

What is drawn depends on the episode's seed and the chunk's number alone, so that two conditions
meet the same delays. A latency counts as the control steps it does not fit into: none for 0 s, one
for anything up to a control period.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from loopdit.errors import ConfigError
from loopdit.eval.rollouts.latency_samples import latency_samples

FORMS = "0, 1, 2, ..., uniform:1-3, normal:MEAN_MS:SD_MS, recorded:FILE, wall"
# Sets these draws apart from the environment's, which come from the seed itself.
_STREAM = 3
# Control steps or milliseconds: more is a slip, and would not fit the generators.
_MOST = 1_000_000
# 0.3 s are three periods of 0.1 s, whatever floats make of it.
_TOLERANCE = 1e-9


class Delay(Protocol):
    """What a chunk's delay is drawn from."""

    @property
    def clock(self) -> str:
        """What results call it: "paused" (the world waits), "virtual" or "wall"."""
        ...

    def steps(self, seed: int, chunk: int, latency_s: float, period_s: float) -> int:
        """Control steps, >= 0, for chunk number `chunk` of the episode `seed`, whose computation
        took `latency_s` here; a control step lasts `period_s`."""
        ...


@dataclass(frozen=True)
class FixedDelay:
    """Always the same."""

    count: int

    @property
    def clock(self) -> str:
        """The world waits where there is no delay."""
        return "virtual" if self.count else "paused"

    def steps(self, seed: int, chunk: int, latency_s: float, period_s: float) -> int:
        """`count`."""
        return self.count


@dataclass(frozen=True)
class UniformDelay:
    """From `low` to `high` control steps, both included."""

    low: int
    high: int
    clock: str = "virtual"

    def steps(self, seed: int, chunk: int, latency_s: float, period_s: float) -> int:
        """Drawn."""
        return int(_generator(seed, chunk).integers(self.low, self.high + 1))


@dataclass(frozen=True)
class NormalDelay:
    """A normal latency in seconds; what would be below zero is zero."""

    mean_s: float
    sd_s: float
    clock: str = "virtual"

    def steps(self, seed: int, chunk: int, latency_s: float, period_s: float) -> int:
        """Drawn and rounded up."""
        return in_steps(_generator(seed, chunk).normal(self.mean_s, self.sd_s), period_s)


@dataclass(frozen=True)
class RecordedDelay:
    """One of the measured latencies `samples_s`, each as likely, with replacement."""

    samples_s: tuple[float, ...]
    clock: str = "virtual"

    def steps(self, seed: int, chunk: int, latency_s: float, period_s: float) -> int:
        """Drawn and rounded up."""
        drawn = self.samples_s[_generator(seed, chunk).integers(len(self.samples_s))]
        return in_steps(drawn, period_s)


@dataclass(frozen=True)
class WallDelay:
    """What this chunk took on this machine."""

    clock: str = "wall"

    def steps(self, seed: int, chunk: int, latency_s: float, period_s: float) -> int:
        """`latency_s`, rounded up."""
        return in_steps(latency_s, period_s)


def in_steps(latency_s: float, period_s: float) -> int:
    """The control steps that pass before something that takes `latency_s` is there."""
    return max(0, math.ceil(latency_s / period_s - _TOLERANCE))


def parse_delay(text: str) -> Delay:
    """What `delay=text` means. Raises ConfigError: unknown, or a file without latencies."""
    kind, _, rest = text.partition(":")
    if kind != "recorded" and any(float(n) > _MOST for n in re.findall(r"\d+(?:\.\d+)?", text)):
        raise ConfigError(f"delay={text} is too much. Use at most {_MOST} steps or milliseconds.")
    number = r"(\d+(?:\.\d+)?)"
    if re.fullmatch(r"\d+", text):
        return FixedDelay(int(text))
    if kind == "uniform" and (found := re.fullmatch(r"(\d+)-(\d+)", rest)):
        low, high = int(found[1]), int(found[2])
        if low <= high:
            return UniformDelay(low, high)
    if kind == "normal" and (found := re.fullmatch(f"{number}:{number}", rest)):
        return NormalDelay(float(found[1]) / 1e3, float(found[2]) / 1e3)
    if kind == "recorded" and (found := re.fullmatch(r"(.+?)(?::(\d+))?", rest)):
        return RecordedDelay(latency_samples(Path(found[1]), int(found[2] or 0)))
    if text == "wall":
        return WallDelay()
    raise ConfigError(f"delay={text} is unknown. Use one of: {FORMS}.")


def _generator(seed: int, chunk: int) -> np.random.Generator:
    return np.random.default_rng([_STREAM, seed, chunk])
