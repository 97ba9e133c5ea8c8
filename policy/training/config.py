"""The options of `policy-train`."""

import math
from dataclasses import dataclass
from typing import Any

from loopdit.command import option, require_choice, require_effect
from loopdit.datasets.action_filters import ActionsConfig
from loopdit.datasets.episode_filter import EpisodeFilter
from loopdit.errors import ConfigError
from loopdit.policy.looped_dit_config import DENSE, ONE_WAY, LoopedDiTConfig
from loopdit.policy.objectives.depth import DepthConfig
from loopdit.policy.training.augmentation import AugmentConfig
from loopdit.policy.training.closed_loop import EvaluateConfig
from loopdit.policy.training.logs import LogConfig
from loopdit.policy.training.normalization import NormalizeConfig

_CHOICES = {
    "device": ("auto", "cpu", "cuda"),
    "precision": ("fp32", "bf16"),
    "short_episodes": ("pad", "drop", "refuse"),
}
_STRENGTHS = ("weight_decay", "proprio_noise")
# Two batches for each worker are in memory, and threads beyond the cores only wait.
_MOST_THREADS = {"threads": 1024, "workers": 64}


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Length is `steps`; `minutes` ends it earlier, with the schedule."""

    data: Any = option(
        "outputs/demonstrations.zarr", "episode store to learn from, or a list of several"
    )
    weights: list[float] = option(
        [], "share of each store in the batches, as [0.7,0.3]; empty: by their sizes"
    )
    short_episodes: str = option(
        "pad", "episodes shorter than a chunk: pad (their last action is repeated), drop or refuse"
    )
    out: str = option("outputs/checkpoint", "folder of the checkpoint")
    steps: int = option(3000, "optimizer steps")
    minutes: float = option(0.0, "end after so many minutes even if steps are left; 0 = no limit")
    batch_size: int = option(64, "windows in a step, of all processes together")
    accumulate: int = option(1, "pieces that a batch is computed in, to need less memory")
    learning_rate: float = option(1e-3, "peak of the cosine schedule")
    warmup_steps: int = option(100, "steps over which the learning rate rises")
    weight_decay: float = option(1e-3, "AdamW's")
    clip_norm: float = option(1.0, "longest gradient, longer ones are shortened; 0 = any")
    ema_decay: float = option(0.998, "decay of the weight average that is saved and served")
    proprio_noise: float = option(0.02, "noise on normalised proprio while training")
    seed: int = option(0, "of the weights, the order of the data and the noise")
    validation: float = option(0.05, "share of the episodes that is held out to validate on")
    validate_every: int = option(500, "steps between two validations")
    device: str = option("auto", "auto, cpu or cuda")
    precision: str = option("fp32", "fp32, or bf16 where it is safe (weights stay fp32)")
    compile: bool = option(False, "torch.compile the losses: minutes at the start, then faster")
    threads: int = option(0, "CPU threads; 0 = all cores this process may use")
    workers: int = option(1, "threads that read batches ahead; 0 = none")
    cache: str = option("", "folder for decoded frames; empty: LOOPDIT_CACHE or the user's cache")
    cache_gib: float = option(0.0, "its largest size; 0 = LOOPDIT_CACHE_GIB or 20")
    save_every_s: float = option(60.0, "seconds between checkpoints")
    resume: bool = option(False, "go on from the checkpoint in out")
    overwrite: bool = option(False, "replace the checkpoint in out")
    init: str = option(
        "", "checkpoint or bundle to begin from (fine-tuning); what fits is reused, and listed"
    )
    init_statistics: bool = option(
        False, "normalise as init= does, not by the statistics of the data"
    )
    policy: LoopedDiTConfig = option(LoopedDiTConfig(), "")
    depth: DepthConfig = option(DepthConfig(), "")
    filter: EpisodeFilter = option(EpisodeFilter(), "")
    actions: ActionsConfig = option(ActionsConfig(), "")
    normalize: NormalizeConfig = option(NormalizeConfig(), "")
    augment: AugmentConfig = option(AugmentConfig(), "")
    evaluate: EvaluateConfig = option(EvaluateConfig(), "")
    log: LogConfig = option(LogConfig(), "")

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "validate_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1.")
        for name in ("warmup_steps", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)} must not be negative.")
        for name in ("minutes", "save_every_s", "clip_norm", "cache_gib", *_STRENGTHS):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name}={getattr(self, name)} must be 0 or more, and finite.")
        for name, most in _MOST_THREADS.items():
            if not 0 <= getattr(self, name) <= most:
                raise ConfigError(f"{name}={getattr(self, name)} must be from 0 to {most}.")
        for name in ("ema_decay", "validation"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be from 0 up to below 1.")
        for name, known in _CHOICES.items():
            require_choice(name, getattr(self, name), known)
        if not self.out:
            raise ConfigError("out= names no folder. Give one, or leave it out.")
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(f"learning_rate={self.learning_rate} must be above 0 and finite.")
        if self.seed >= 2**63:
            raise ConfigError(f"seed={self.seed} must be below 2**63.")
        self.policy.require_effect()
        self.depth.require_trains(self.policy.depths, self.steps)
        self._require_contraction()
        if self.resume and self.overwrite:
            raise ConfigError("resume=true and overwrite=true exclude each other. Give one.")
        if self.init_statistics and not self.init:
            raise ConfigError("init_statistics=true needs init=FOLDER, whose statistics to keep.")
        stores = len(self.stores)  # may refuse
        if self.weights and len(self.weights) != stores:
            raise ConfigError(
                f"weights={self.weights} has {len(self.weights)} numbers for {stores} data sets. "
                f"Give one for each."
            )

    def _require_contraction(self) -> None:
        """Raise ConfigError where depth.contract has no loops that can contract."""
        if not (self.policy.injection and self.policy.max_loops > 1):
            needs = "policy.injection=true and policy.max_loops of 2 or more"
            require_effect(self.depth, ("contract",), needs, "depth.")
        if self.depth.contract and self.policy.topology == DENSE:
            raise ConfigError(
                f"depth.contract={self.depth.contract} is of the loops of the observation, which "
                f"policy.topology={DENSE} mixes with the noise. Use {ONE_WAY}, or leave it out."
            )
        if self.depth.contract and self.compile:
            raise ConfigError(
                f"depth.contract={self.depth.contract} differentiates a gradient, which "
                f"compile=true cannot. Leave one of them out."
            )

    @property
    def stores(self) -> list[str]:
        """`data` as a list. Raises ConfigError for what is no name or list of names."""
        found: list[Any] = list(self.data) if isinstance(self.data, (list, tuple)) else [self.data]
        if not found or not all(isinstance(name, str) and name for name in found):
            raise ConfigError(
                f"data={self.data} names no episode store. Use data=STORE or data=[A,B]."
            )
        return found
