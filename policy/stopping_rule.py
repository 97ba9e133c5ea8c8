"""When a loop was the last one that an observation needed: the rule, without the model.

See `adaptive_depth` for what a change is of. Imports no torch.
"""

from dataclasses import dataclass

from loopdit.errors import ConfigError

CHUNK, STATE = "chunk", "state"
MEASURES = (CHUNK, STATE)
LEAST_LOOPS = 2  # a change is between two loops


@dataclass(frozen=True)
class StoppingRule:
    """A loop was the last if its change is below `threshold`, in the units of `measure`."""

    threshold: float
    measure: str = CHUNK

    def __post_init__(self) -> None:
        if not self.threshold >= 0:
            raise ConfigError(f"threshold={self.threshold} must be at least 0.")
        if self.measure not in MEASURES:
            raise ConfigError(
                f"measure={self.measure} is unknown. Use one of: {', '.join(MEASURES)}."
            )


def first_stop(depths: range) -> int:
    """The first loop that a policy of these depths may stop at."""
    return max(LEAST_LOOPS, depths[0])
