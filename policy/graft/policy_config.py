"""What rebuilds a graft policy: the video model, its graft, what it is shown and what reads it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loopdit.command import require_choice
from loopdit.datasets.video.clips import ClipConfig
from loopdit.errors import ConfigError
from loopdit.policy.encoders.vocabulary import TASK, Vocabulary, vocabulary_of
from loopdit.policy.graft.backbone import TINY
from loopdit.policy.graft.config import EXPERT, GraftConfig
from loopdit.policy.graft.decoders.config import RICH, DecoderConfig

LEARNED, T5 = "learned", "t5"
_LEVELS = 1000  # of CogVideoX's noise


@dataclass(frozen=True)
class GraftPolicyConfig:
    """The options of `GraftTrainConfig`, by the same names. The rest is filled in by training, for
    whoever loads the policy: the instructions of the data, digests of the transformer that was
    grafted and of the autoencoder that made the latents, and for a checkpoint that is `whole` the
    configurations of the video model's parts."""

    model: str
    graft: GraftConfig
    video: ClipConfig
    decoder: DecoderConfig
    action_horizon: int
    noise_level: int
    text: str
    whole: bool = False
    instructions: list[str] = field(default_factory=list[str])
    transformer_digest: str = ""
    vae_digest: str = ""
    backbone: dict[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        require_choice("text", self.text, (LEARNED, T5))
        if self.action_horizon < 1:
            raise ConfigError(f"action_horizon={self.action_horizon} must be at least 1.")
        if not 0 <= self.noise_level < _LEVELS:
            raise ConfigError(f"noise_level={self.noise_level} must be from 0 to {_LEVELS - 1}.")
        self.decoder.require_horizon(self.action_horizon)
        if self.graft.looped == EXPERT and self.decoder.kind != RICH:
            raise ConfigError(
                f"graft.looped={EXPERT} loops the blocks of decoder.kind={RICH}, and "
                f"decoder.kind={self.decoder.kind} has none. Loop the backbone."
            )
        if self.text == T5 and self.model == TINY:
            raise ConfigError(
                f"text={T5} needs a model with a text encoder; model={TINY} has none."
            )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "GraftPolicyConfig":
        """Read what `asdict` made. Raises TypeError for options that this version has not."""
        given = dict(data)
        for name, kind in (
            ("graft", GraftConfig),
            ("video", ClipConfig),
            ("decoder", DecoderConfig),
        ):
            given[name] = kind(**data[name])
        return cls(**given)

    @property
    def instruction(self) -> str:
        """How the policy is told its task."""
        return TASK

    @property
    def vocabulary(self) -> Vocabulary:
        """What it is told its task in."""
        return vocabulary_of(tuple(self.instructions))

    @property
    def depths(self) -> range:
        """Every K that is trained: what can be served."""
        return self.graft.depths
