"""The options of an action decoder."""

from dataclasses import dataclass

from loopdit.command import option, require_choice, require_effect
from loopdit.errors import ConfigError
from loopdit.policy.block import HEAD_SIZE
from loopdit.policy.objectives.objective import BCE, FLOW, REGRESSION, ObjectiveConfig

RICH, DIRECT, PAPER = "rich", "direct", "paper"
KINDS = (RICH, DIRECT, PAPER)


@dataclass(frozen=True)
class DecoderConfig:
    """How actions are read from a video transformer."""

    kind: str = option(
        RICH,
        "rich: action tokens attend to the video's and are denoised; direct: a small network on "
        "their mean; paper: its head of 199 parameters on the mean of the predicted latents",
    )
    width: int = option(256, "width of rich and direct")
    blocks: int = option(2, "blocks of rich")
    objective: str = option(FLOW, "of rich: flow, ddpm_eps, ddpm_x0, ddpm_v (DDIM) or regression")
    dropout: float = option(
        0.0,
        "of rich and direct: share of what the head reads of the video that is dropped while "
        "it learns; for few episodes",
    )
    gripper: str = option(BCE, "of rich and direct: bce (open or closed), or regress as any action")

    def __post_init__(self) -> None:
        require_choice("decoder.kind", self.kind, KINDS)
        if self.width < HEAD_SIZE or self.width % HEAD_SIZE:
            raise ConfigError(
                f"decoder.width={self.width} must be a multiple of {HEAD_SIZE}, the head size."
            )
        if self.blocks < 1:
            raise ConfigError(f"decoder.blocks={self.blocks} must be at least 1.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"decoder.dropout={self.dropout} must be from 0 up to below 1.")
        if self.kind != RICH:
            require_effect(self, ("blocks", "objective"), f"decoder.kind={RICH}", "decoder.")
        if self.kind == PAPER:
            needs = f"decoder.kind={RICH} or {DIRECT}"
            require_effect(self, ("width", "dropout", "gripper"), needs, "decoder.")
        _ = self.learned  # refuses an unknown objective

    @property
    def learned(self) -> ObjectiveConfig:
        """What the decoder is trained to say, with the gripper's part."""
        if self.kind == PAPER:
            return ObjectiveConfig(kind=REGRESSION)
        return ObjectiveConfig(
            kind=self.objective if self.kind == RICH else REGRESSION, gripper=self.gripper
        )

    def require_horizon(self, horizon: int) -> None:
        """Raise ConfigError for a chunk that the decoder cannot say."""
        if self.kind == PAPER and horizon != 1:
            raise ConfigError(
                f"decoder.kind={PAPER} says one action for a whole clip, and action_horizon is "
                f"{horizon}. Use action_horizon=1, or decoder.kind={RICH}."
            )
