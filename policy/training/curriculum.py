"""How many loops a training step runs: all of them, more and more, or a random number.

A pure function of the step and the seed, so a resumed training goes on as it would have.
"""

from dataclasses import dataclass

import numpy as np

from loopdit.command import option
from loopdit.errors import ConfigError

_KINDS = ("none", "growing", "random")


@dataclass(frozen=True)
class CurriculumConfig:
    """The paper's ramp is growing with a stage of 1,000 steps, in a training of 5,000."""

    loops: str = option(
        "none", "loops in a step: none (all), growing (one more each stage) or random (1 to all)"
    )
    stage: int = option(1000, "steps between two loop numbers, where loops=growing")

    def __post_init__(self) -> None:
        if self.loops not in _KINDS:
            *most, last = _KINDS
            raise ConfigError(
                f"curriculum.loops={self.loops} is unknown. Use {', '.join(most)} or {last}."
            )
        if self.stage < 1:
            raise ConfigError(f"curriculum.stage={self.stage} must be at least 1.")


def loops_at(step: int, max_loops: int, config: CurriculumConfig, seed: int = 0) -> int:
    """Loops 1..`max_loops` of optimizer step `step`, counted from 0.

    `seed` decides the random ones: all of a batch have the same, and each step its own draw.
    """
    if config.loops == "growing":
        return min(1 + step // config.stage, max_loops)
    if config.loops == "random":
        # The last word keeps these apart from other uses of the same seed and step.
        return int(np.random.default_rng((seed, step, 0x6C6F6F70)).integers(1, max_loops + 1))
    return max_loops
