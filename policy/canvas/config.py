"""The options of the canvas denoiser."""

from dataclasses import dataclass

from loopdit.command import option, require_choice
from loopdit.errors import ConfigError
from loopdit.policy.canvas.modalities import ModalityConfig
from loopdit.policy.canvas.topology import TOPOLOGIES
from loopdit.policy.loops.config import LoopConfig
from loopdit.policy.objectives.objective import DIFFUSIONS, FLOW

_EXECUTIONS = ("mask", "dispatch")
_INPUT_LEVELS = ("shared", "clean")


@dataclass(frozen=True)
class CanvasModelConfig:
    """The size of the denoiser and how it attends, loops and learns."""

    width: int = option(128, "width of every token")
    heads: int = option(4, "attention heads, a divisor of the width")
    blocks: int = option(3, "blocks, each with weights of its own")
    loops: LoopConfig = option(LoopConfig(), "")
    topology: str = option("dense", f"which region attends to which: {', '.join(TOPOLOGIES)}")
    execution: str = option("mask", "mask: one masked attention; dispatch: one a connection")
    geometric: bool = option(False, "positions enter queries and keys as well (v2)")
    objective: str = option(FLOW, f"what is predicted: {FLOW} or {', '.join(DIFFUSIONS)}")
    input_level: str = option(
        "shared", "level that input tokens are told: that of the outputs (shared) or 1 (clean)"
    )
    modalities: ModalityConfig = option(ModalityConfig(), "")

    def __post_init__(self) -> None:
        for name in ("width", "heads", "blocks"):
            if getattr(self, name) < 1:
                raise ConfigError(f"canvas.{name}={getattr(self, name)} must be at least 1.")
        if self.width % self.heads:
            raise ConfigError(
                f"canvas.heads={self.heads} does not divide canvas.width={self.width}."
            )
        choices = {
            "topology": tuple(TOPOLOGIES),
            "execution": _EXECUTIONS,
            "objective": (FLOW, *DIFFUSIONS),
            "input_level": _INPUT_LEVELS,
        }
        for name, known in choices.items():
            require_choice(f"canvas.{name}", getattr(self, name), known)
        if self.execution == "dispatch" and self.loops.halting != "none":
            raise ConfigError(
                "canvas.execution=dispatch runs whole regions, and cannot skip the tokens that "
                f"halting={self.loops.halting} lets halt. Use execution=mask."
            )
