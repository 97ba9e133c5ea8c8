"""The options of a graft: what of a video transformer is looped, how loops start, what is trained.

The loops' own options mean what they mean in `policy/loops/config.py`; a graft's gate is one number
a loop, as the paper's is, and its two streams are looped together.
"""

import math
from dataclasses import dataclass

from loopdit.command import option, require_choice, require_effect
from loopdit.errors import ConfigError
from loopdit.policy.graft.robots import DENSE, HUB, TOPOLOGIES

BACKBONE, EXPERT, NOTHING = "backbone", "expert", "nothing"
IDENTITY, PAPER = "identity", "paper"
FROZEN, HALF, UNFROZEN, ALL = "frozen", "half", "unfrozen", "all"
NONE, TOKEN = "none", "token"

_CHOICES = {
    "looped": (BACKBONE, EXPERT, NOTHING),
    "init": (IDENTITY, PAPER),
    "freeze": (FROZEN, HALF, UNFROZEN, ALL),
    "halting": (NONE, TOKEN),
}
_OF_THE_BACKBONE = ("init", "sharpest", "geometric", "injection", "halting", "robots")


@dataclass(frozen=True)
class GraftConfig:
    """What is looped and what is trained. `loops` are those of whatever is looped."""

    loops: int = option(3, "how often each block is applied at most; any fewer can be run")
    looped: str = option(
        BACKBONE,
        "backbone: each block of the video transformer; expert: the action decoder alone; "
        "nothing: plain fine-tuning",
    )
    init: str = option(
        IDENTITY, "identity: one loop is the plain block at the start; paper: all gates at 0.5"
    )
    freeze: str = option(
        FROZEN,
        "trained beside the loops and the decoder: frozen (norm_final), half (and the time "
        "embedding and the output), unfrozen (and the input), all (and the blocks)",
    )
    sharpest: float = option(1.0, "factor on the attention's logits in the last loop, from 1 up")
    geometric: bool = option(False, "queries and keys have the tokens' positions beside them")
    injection: bool = option(False, "mix each loop's state with the block's input")
    halting: str = option(NONE, "token: a video token that halts is computed no further")
    halt_at: float = option(0.5, "a token halts where its cumulative probability reaches this")
    ponder: float = option(0.0, "weight in the loss of the mean loops used by halting")
    robots: int = option(1, "robots in the picture, side by side in bands of equal width")
    topology: str = option(
        HUB,
        "what tokens of several robots see: hub (their own, and the text, which sees all), "
        "isolated (the text sees none), or dense (everything)",
    )

    def __post_init__(self) -> None:
        if self.loops < 1:
            raise ConfigError(f"loops={self.loops} must be at least 1.")
        for name, known in _CHOICES.items():
            require_choice(name, getattr(self, name), known)
        if not 1 <= self.sharpest < math.inf:
            raise ConfigError(f"sharpest={self.sharpest} must be 1 or more, and finite.")
        if not 0 < self.halt_at <= 1:
            raise ConfigError(f"halt_at={self.halt_at} must be above 0 and at most 1.")
        if not 0 <= self.ponder < math.inf:
            raise ConfigError(f"ponder={self.ponder} must be 0 or more, and finite.")
        if self.looped == NOTHING and self.loops != 1:
            raise ConfigError(
                f"loops={self.loops} does nothing with looped={NOTHING}. Give loops=1, or loop "
                f"something."
            )
        if self.looped != BACKBONE:
            require_effect(self, _OF_THE_BACKBONE, f"looped={BACKBONE}")
        if self.halting == NONE:
            require_effect(self, ("halt_at", "ponder"), f"halting={TOKEN}")
        require_choice("topology", self.topology, TOPOLOGIES)
        if self.robots < 1:
            raise ConfigError(f"robots={self.robots} must be at least 1.")
        if self.robots == 1:
            require_effect(self, ("topology",), "robots=2 or more")
        if self.keeps_robots_apart and self.halting == TOKEN:
            raise ConfigError(
                f"halting={TOKEN} and topology={self.topology} exclude each other: rows of a mask "
                f"would halt. Use topology={DENSE}, or halting={NONE}."
            )

    @property
    def keeps_robots_apart(self) -> bool:
        """Whether some tokens may not see others."""
        return self.robots > 1 and self.topology != DENSE

    @property
    def depths(self) -> range:
        """Every K that can be run: 1 to `loops`."""
        return range(1, self.loops + 1)

    @property
    def backbone_loops(self) -> int:
        """How often each block of the video transformer is applied at most."""
        return self.loops if self.looped == BACKBONE else 1

    @property
    def expert_loops(self) -> int:
        """How often each block of the action decoder is applied at most."""
        return self.loops if self.looped == EXPERT else 1
