"""The options of the looped diffusion transformer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loopdit.command import option, require_choice, require_effect
from loopdit.errors import ConfigError
from loopdit.policy.block import HEAD_SIZE
from loopdit.policy.encoders.vocabulary import (
    NO_INSTRUCTION,
    TASK,
    WORDS,
    Vocabulary,
    vocabulary_of,
)
from loopdit.policy.objectives.objective import ObjectiveConfig

PREFIX, ROLLED = "prefix", "rolled"
ONE_WAY, DENSE = "one_way", "dense"
_CHOICES = {
    "instruction": (NO_INSTRUCTION, WORDS, TASK),
    "topology": (ONE_WAY, DENSE),
    "told": (PREFIX, ROLLED),
}


def depths_text(depths: range) -> str:
    """ "1..4", or "4" for a policy of one depth."""
    return f"{depths[0]}..{depths[-1]}" if len(depths) > 1 else f"{depths[0]}"


@dataclass(frozen=True)
class LoopedDiTConfig:
    """The size of the model; what it sees and commands comes from the data's spec."""

    width: int = option(128, "width of every token, a multiple of 32")
    blocks: int = option(1, "blocks in the shared stack")
    action_expert: bool = option(
        False, "action tokens have a stack of their own, as long as the shared one (one_way alone)"
    )
    max_loops: int = option(4, "how often the stack is applied at most")
    min_loops: int = option(1, "fewest loops that are trained, and so can be served")
    action_horizon: int = option(16, "actions in a chunk")
    actions_per_token: int = option(4, "consecutive actions that share a token")
    history: int = option(1, "observations the policy is given, the latest and those before it")
    encoder: str = option(
        "keypoints", "of camera frames: keypoints, pooled, patches, or pretrained:NAME"
    )
    encoder_frozen: bool = option(True, "a pretrained encoder's own weights are not trained")
    backbone: dict[str, Any] = option({}, "what a pretrained encoder is; filled from its files")
    optional_cameras: bool = option(False, "cameras may be missing: the missing ones are masked")
    instruction: str = option(
        NO_INSTRUCTION, "what tells the policy its task: none, words of the instruction, or task"
    )
    instructions: list[str] = option([], "those it knows; empty: those of the data")
    topology: str = option(
        ONE_WAY,
        "one_way: what is observed attends to itself alone, and is encoded once; dense: all "
        "attend to all in each denoising step, as the paper's canvas",
    )
    injection: bool = option(False, "mix each loop's input with that of the first")
    in_flight: int = option(0, "most actions that may be under way when a chunk is asked for")
    told: str = option(
        PREFIX,
        "how it is told of those: prefix (they begin the chunk) or rolled (proprio is rolled "
        "forward by them, and the chunk begins after them)",
    )
    objective: ObjectiveConfig = option(ObjectiveConfig(), "")

    def __post_init__(self) -> None:
        if self.width < HEAD_SIZE or self.width % HEAD_SIZE:
            below = max(1, self.width // HEAD_SIZE) * HEAD_SIZE
            raise ConfigError(
                f"policy.width={self.width} is not a multiple of {HEAD_SIZE}, the head size. "
                f"Use {below} or {below + HEAD_SIZE}."
            )
        for name in ("blocks", "min_loops", "max_loops", "action_horizon", "history"):
            if getattr(self, name) < 1:
                raise ConfigError(f"policy.{name}={getattr(self, name)} must be at least 1.")
        if self.min_loops > self.max_loops:
            raise ConfigError(
                f"policy.min_loops={self.min_loops} is above policy.max_loops={self.max_loops}. "
                f"Use the same number for a policy of one depth."
            )
        if self.actions_per_token < 1 or self.action_horizon % self.actions_per_token:
            raise ConfigError(
                f"policy.actions_per_token={self.actions_per_token} does not divide "
                f"policy.action_horizon={self.action_horizon}."
            )
        for name, known in _CHOICES.items():
            require_choice(f"policy.{name}", getattr(self, name), known)
        if self.told == ROLLED and not self.in_flight:
            raise ConfigError(
                "policy.told=rolled has nothing to be rolled by. Give policy.in_flight=6, or as "
                "many actions as may be under way."
            )
        if not 0 <= self.in_flight < self.action_horizon:
            raise ConfigError(
                f"policy.in_flight={self.in_flight} must be from 0 to below "
                f"policy.action_horizon={self.action_horizon}."
            )

    def require_effect(self) -> None:
        """Raise ConfigError for an option that was given and does nothing beside the others. Not
        asked of a checkpoint, which is read whatever it was trained with."""
        if self.instruction == NO_INSTRUCTION:
            told = f"policy.instruction={WORDS} or {TASK}"
            require_effect(self, ("instructions",), told, "policy.")
        if self.topology == DENSE:
            require_effect(self, ("action_expert",), f"policy.topology={ONE_WAY}", "policy.")
        if not self.encoder.startswith("pretrained:"):
            encoder = "policy.encoder=pretrained:NAME"
            require_effect(self, ("encoder_frozen", "backbone"), encoder, "policy.")
        self.objective.require_effect()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "LoopedDiTConfig":
        """Read what `asdict` made. Raises TypeError for options that this version has not."""
        given: dict[str, Any] = dict(data)
        given["objective"] = ObjectiveConfig(**data.get("objective", {}))
        return cls(**given)

    @property
    def depths(self) -> range:
        """Every K that is trained, the exits of a pass: what can be served."""
        return range(self.min_loops, self.max_loops + 1)

    @property
    def vocabulary(self) -> Vocabulary | None:
        """What it is told its task in; None for a policy that is told none."""
        if self.instruction == NO_INSTRUCTION:
            return None
        return vocabulary_of(tuple(self.instructions))

    @property
    def action_blocks(self) -> int:
        """Blocks that action tokens have for themselves; 0 where they run through the shared
        ones."""
        return self.blocks if self.action_expert and self.topology == ONE_WAY else 0

    @property
    def prefix(self) -> int:
        """Most committed actions that begin a chunk, 0 where it is not told of them so."""
        return self.in_flight if self.told == PREFIX else 0
