"""The options of `policy-train`."""

import math
from dataclasses import dataclass

from loopdit.command import option
from loopdit.errors import ConfigError
from loopdit.policy.looped_dit import LoopedDiTConfig


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Length is `steps`; `minutes` ends it earlier, with the schedule."""

    data: str = option("outputs/demonstrations.zarr", "episode store to learn from")
    out: str = option("outputs/checkpoint", "folder of the checkpoint")
    steps: int = option(3000, "optimizer steps")
    minutes: float = option(0.0, "end after so many minutes even if steps are left; 0 = no limit")
    batch_size: int = option(64, "windows in a step")
    learning_rate: float = option(1e-3, "peak of the cosine schedule")
    warmup_steps: int = option(100, "steps over which the learning rate rises")
    weight_decay: float = option(1e-3, "AdamW's")
    ema_decay: float = option(0.998, "decay of the weight average that is saved and served")
    distill: float = option(0.5, "share of the deepest exit in a shallower exit's target")
    proprio_noise: float = option(0.02, "noise on normalised proprio while training")
    seed: int = option(0, "of the weights, the order of the data and the noise")
    device: str = option("auto", "auto, cpu or cuda")
    threads: int = option(0, "CPU threads; 0 = all cores this process may use")
    save_every_s: float = option(60.0, "seconds between checkpoints")
    resume: bool = option(False, "go on from the checkpoint in out")
    overwrite: bool = option(False, "replace the checkpoint in out")
    policy: LoopedDiTConfig = option(LoopedDiTConfig(), "")

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1.")
        for name in ("minutes", "warmup_steps", "seed", "threads", "save_every_s"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)} must not be negative.")
        for name in ("ema_decay", "distill"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be from 0 up to below 1.")
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(f"learning_rate={self.learning_rate} must be above 0 and finite.")
        if self.seed >= 2**63:
            raise ConfigError(f"seed={self.seed} must be below 2**63.")
        if self.device not in ("auto", "cpu", "cuda"):
            raise ConfigError(f"device={self.device} is unknown. Use auto, cpu or cuda.")
        if self.resume and self.overwrite:
            raise ConfigError("resume=true and overwrite=true exclude each other. Give one.")
