"""The options of a looped stack, whatever its blocks are made of."""

import math
from dataclasses import dataclass

from loopdit.command import option, require_choice, require_effect
from loopdit.errors import ConfigError

_CHOICES = {
    "scope": ("block", "stack"),
    "init": ("identity", "paper"),
    "exits": ("none", "global", "token"),
    "halting": ("none", "token"),
}


@dataclass(frozen=True)
class LoopConfig:
    """How often blocks are applied, and how their loops start, end and differ."""

    loops: int = option(4, "how often each block is applied at most; any fewer can be run")
    scope: str = option("block", "block: each is looped before the next; stack: all in turn")
    init: str = option(
        "identity", "identity: one loop is the plain block at the start; paper: all gates at 0.5"
    )
    exits: str = option("none", "exit gates that mix the loops' states: none, global or token")
    ponder: float = option(0.0, "weight in the loss of the mean loops used by exits or halting")
    sharpest: float = option(1.0, "factor on the attention's logits in the last loop, from 1 up")
    halting: str = option("none", "token: a token that halts is computed no further")
    halt_at: float = option(0.5, "a token halts where its cumulative probability reaches this")
    injection: bool = option(False, "mix each loop's state with the stack's input")

    def __post_init__(self) -> None:
        if self.loops < 1:
            raise ConfigError(f"loops={self.loops} must be at least 1.")
        for name, known in _CHOICES.items():
            require_choice(name, getattr(self, name), known)
        if not 0 <= self.ponder < math.inf:
            raise ConfigError(f"ponder={self.ponder} must be 0 or more, and finite.")
        if not 1 <= self.sharpest < math.inf:
            raise ConfigError(f"sharpest={self.sharpest} must be 1 or more, and finite.")
        if not 0 < self.halt_at <= 1:
            raise ConfigError(f"halt_at={self.halt_at} must be above 0 and at most 1.")
        if self.exits != "none" and self.halting != "none":
            raise ConfigError(
                f"exits={self.exits} and halting={self.halting} exclude each other. Give one."
            )
        if self.exits == "none" and self.halting == "none":
            require_effect(self, ("ponder",), "exits=global or token, or halting=token")
        if self.halting == "none":
            require_effect(self, ("halt_at",), "halting=token")
