"""The options of `policy-train graft`."""

import math
from dataclasses import dataclass
from typing import Any

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

_CHOICES = {
    "device": ("auto", "cpu", "cuda"),
    "precision": ("fp32", "bf16"),
    "levels": (ALL_LEVELS, SERVED),
    "checkpoint": (NO_CHECKPOINT, LOOP, NESTED),
}


@dataclass(frozen=True)
class GraftTrainConfig:
    """One training run of a graft policy. Length is `steps`; `minutes` ends it earlier."""

    data: Any = option(
        "outputs/demonstrations.zarr", "episode store to learn from, or a list of several"
    )
    weights: list[float] = option(
        [], "share of each store in the batches, as [0.7,0.3]; empty: by their sizes"
    )
    out: str = option("outputs/graft", "folder of the checkpoint")
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
    steps: int = option(5000, "optimizer steps")
    minutes: float = option(0.0, "end after so many minutes even if steps are left; 0 = no limit")
    batch_size: int = option(8, "windows in a step, of all processes together")
    accumulate: int = option(1, "pieces that a batch is computed in, to need less memory")
    checkpoint: str = option(
        LOOP,
        "activations computed again in the backward pass: none, loop (each loop's input is kept) "
        "or nested (each block's alone: as much memory for every K, and one more forward pass)",
    )
    learning_rate: float = option(1e-4, "peak of the cosine schedule")
    warmup_steps: int = option(100, "steps over which the learning rate rises")
    weight_decay: float = option(1e-3, "AdamW's")
    clip_norm: float = option(1.0, "longest gradient, longer ones are shortened; 0 = any")
    ema_decay: float = option(0.998, "decay of the weight average that is saved and served")
    seed: int = option(0, "of the weights, the order of the data and the noise")
    validation: float = option(0.05, "share of the episodes that is held out to validate on")
    validate_every: int = option(500, "steps between two validations")
    device: str = option("auto", "auto, cpu or cuda")
    precision: str = option("fp32", "fp32, or bf16 (what is trained stays fp32)")
    threads: int = option(0, "CPU threads; 0 = all cores this process may use")
    workers: int = option(1, "threads that read batches ahead; 0 = none")
    cache: str = option("", "folder for decoded frames; empty: LOOPDIT_CACHE or the user's cache")
    cache_gib: float = option(0.0, "its largest size; 0 = LOOPDIT_CACHE_GIB or 20")
    save_every_s: float = option(60.0, "seconds between checkpoints")
    resume: bool = option(False, "go on from the checkpoint in out")
    overwrite: bool = option(False, "replace the checkpoint in out")
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
        for name, known in _CHOICES.items():
            require_choice(name, getattr(self, name), known)
        for name in ("video_weight", "action_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name}={getattr(self, name)} must be 0 or more, and finite.")
        if not self.video_weight and not self.action_weight:
            raise ConfigError("video_weight=0 and action_weight=0 leave nothing to learn.")
        if self.latents_batch < 1:
            raise ConfigError(f"latents_batch={self.latents_batch} must be at least 1.")
        if self.graft.halting == TOKEN and self.checkpoint != NO_CHECKPOINT:
            raise ConfigError(
                f"checkpoint={self.checkpoint} does not go with graft.halting={TOKEN}, whose keys "
                f"and values outlive their loop. Use checkpoint={NO_CHECKPOINT}."
            )
        _ = self.policy, self.data_options  # each refuses what it cannot be
        require_effect(self.depth, ("truncate", "contract"), "policy-train without graft", "depth.")
        if self.graft.looped == EXPERT and self.depth.mode == CURRICULUM:
            raise ConfigError(
                f"depth.mode={CURRICULUM} deepens the backbone's loops, and graft.looped={EXPERT} "
                f"has none. Use depth.mode={RANDOM}."
            )
        self.depth.require_trains(self.graft.depths, self.steps)

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
        return LossConfig(
            self.action_weight, self.video_weight, self.levels, self.depth.distill, self.checkpoint
        )

    @property
    def data_options(self) -> TrainConfig:
        """What both trainings have in common: which data, in which order, on what machine."""
        both = (
            *("data", "weights", "out", "steps", "minutes", "batch_size", "accumulate"),
            *("learning_rate", "warmup_steps", "weight_decay", "clip_norm", "ema_decay", "seed"),
            *("validation", "validate_every", "device", "precision", "threads", "workers"),
            *("cache", "cache_gib", "save_every_s", "resume", "overwrite"),
            *("filter", "actions", "normalize", "evaluate", "log"),
        )
        return TrainConfig(
            **{name: getattr(self, name) for name in both},
            policy=LoopedDiTConfig(
                action_horizon=self.action_horizon, actions_per_token=1, instruction=TASK
            ),
        )

    @property
    def stores(self) -> list[str]:
        """`data` as a list. Raises ConfigError for what is no name or list of names."""
        return self.data_options.stores
