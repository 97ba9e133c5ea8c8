"""The options of `policy-train graft`."""

from dataclasses import dataclass, fields

from loopdit.command import option, require_choice, require_effect
from loopdit.datasets.action_filters import ActionsConfig
from loopdit.datasets.episode_filter import EpisodeFilter
from loopdit.datasets.video.clips import ClipConfig
from loopdit.errors import ConfigError
from loopdit.policy.encoders.vocabulary import TASK
from loopdit.policy.graft.backbone import TINY
from loopdit.policy.graft.config import EXPERT, TOKEN, GraftConfig
from loopdit.policy.graft.decoders.config import DecoderConfig
from loopdit.policy.graft.looped_block import LOOP, NESTED, NO_CHECKPOINT
from loopdit.policy.graft.losses import ALL_LEVELS, SERVED, LossConfig
from loopdit.policy.graft.policy_config import LEARNED, GraftPolicyConfig
from loopdit.policy.looped_dit_config import LoopedDiTConfig
from loopdit.policy.objectives.depth import CURRICULUM, RANDOM, DepthConfig
from loopdit.policy.training.closed_loop import EvaluateConfig
from loopdit.policy.training.config import TrainConfig
from loopdit.policy.training.logs import LogConfig
from loopdit.policy.training.normalization import NormalizeConfig
from loopdit.policy.training.run_config import RunConfig

_SHARED = ("filter", "actions", "normalize", "evaluate", "log")  # options of their own
_CHOICES = {
    "levels": (ALL_LEVELS, SERVED),
    "checkpoint": (NO_CHECKPOINT, LOOP, NESTED),
}


@dataclass(frozen=True)
class GraftTrainConfig(RunConfig):
    """One training run of a graft policy."""

    out: str = option("outputs/graft", "folder of the checkpoint")
    steps: int = option(5000, "optimizer steps")
    batch_size: int = option(8, "windows in a step, of all processes together")
    learning_rate: float = option(1e-4, "peak of the cosine schedule")
    model: str = option(
        TINY,
        "folder of CogVideoX's weights (transformer/, vae/, scheduler/), or tiny: a small model of "
        "the same class with random weights",
    )
    whole: bool = option(
        False, "keep the video model in the checkpoint too, which then needs no folder"
    )
    latents: str = option("", "folder of the latents; empty: beside the first store")
    latents_batch: int = option(1, "clips that the autoencoder encodes at once")
    action_horizon: int = option(16, "actions in a chunk; 1 with decoder.kind=paper")
    noise_level: int = option(
        100, "how noisy the latents are whose features are read: 0 to 999, of the model's levels"
    )
    text: str = option(
        LEARNED, "the task, as tokens: learned, or t5 (embedded once by the folder's text encoder)"
    )
    levels: str = option(
        ALL_LEVELS,
        "noise levels that actions are learned at: all (the video's, in the same pass) or served "
        "(noise_level, in a pass of its own)",
    )
    video_weight: float = option(1.0, "of the video's loss; 0 = actions alone")
    action_weight: float = option(1.0, "of the actions' loss")
    checkpoint: str = option(
        LOOP,
        "activations computed again in the backward pass: none, loop (each loop's input is kept) "
        "or nested (each block's alone: as much memory for every K, and one more forward pass)",
    )
    shard: bool = option(
        False,
        "of several processes, spread the weights, their gradients and the optimizer over them "
        "(FSDP2); else each has them all",
    )
    graft: GraftConfig = option(GraftConfig(), "")
    video: ClipConfig = option(ClipConfig(), "")
    decoder: DecoderConfig = option(DecoderConfig(), "")
    depth: DepthConfig = option(DepthConfig(mode=RANDOM), "")
    filter: EpisodeFilter = option(EpisodeFilter(), "")
    actions: ActionsConfig = option(ActionsConfig(), "")
    normalize: NormalizeConfig = option(NormalizeConfig(), "")
    evaluate: EvaluateConfig = option(EvaluateConfig(), "")
    log: LogConfig = option(LogConfig(), "")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.evaluate.require_alone(self.patience)
        for name, known in _CHOICES.items():
            require_choice(name, getattr(self, name), known)
        for name in ("video_weight", "action_weight"):
            self.require_amount(name)
        if not self.video_weight and not self.action_weight:
            raise ConfigError("video_weight=0 and action_weight=0 leave nothing to learn.")
        if self.latents_batch < 1:
            raise ConfigError(f"latents_batch={self.latents_batch} must be at least 1.")
        if self.graft.halting == TOKEN and self.checkpoint != NO_CHECKPOINT:
            raise ConfigError(
                f"checkpoint={self.checkpoint} does not go with graft.halting={TOKEN}, whose keys "
                f"and values outlive their loop. Use checkpoint={NO_CHECKPOINT}."
            )
        if self.shard and self.evaluate.env:
            raise ConfigError(
                "shard=true does not go with evaluate.env=, which reads whole weights beside the "
                "training. Evaluate the checkpoint by policy-eval, or leave shard out."
            )
        _ = self.policy, self.data_options  # each refuses what it cannot be
        require_effect(self.depth, ("truncate", "contract"), "policy-train without graft", "depth.")
        if self.graft.looped == EXPERT and self.depth.mode == CURRICULUM:
            raise ConfigError(
                f"depth.mode={CURRICULUM} deepens the backbone's loops, and graft.looped={EXPERT} "
                f"has none. Use depth.mode={RANDOM}."
            )
        self.depth.require_trains(self.graft.depths, self.steps, "graft.loops")

    @property
    def policy(self) -> GraftPolicyConfig:
        """The policy's options, before the data has said its instructions."""
        return GraftPolicyConfig(
            model=self.model,
            graft=self.graft,
            video=self.video,
            decoder=self.decoder,
            action_horizon=self.action_horizon,
            noise_level=self.noise_level,
            text=self.text,
            whole=self.whole,
        )

    @property
    def losses(self) -> LossConfig:
        """What counts in a step."""
        return LossConfig(self.action_weight, self.video_weight, self.levels, self.checkpoint)

    @property
    def data_options(self) -> TrainConfig:
        """What both trainings have in common: which data, in which order, on what machine."""
        both = [*(entry.name for entry in fields(RunConfig)), *_SHARED]
        return TrainConfig(
            **{name: getattr(self, name) for name in both},
            policy=LoopedDiTConfig(
                action_horizon=self.action_horizon, actions_per_token=1, instruction=TASK
            ),
        )
