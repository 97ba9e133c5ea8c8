"""The options that every training has: which data, how it learns, on what machine, for how long.

`policy-train` and `policy-train graft` each add those of their policy.
"""

import math
from dataclasses import dataclass
from typing import Any

from loopdit.command import option, require_choice
from loopdit.errors import ConfigError

_CHOICES = {"device": ("auto", "cpu", "cuda"), "precision": ("fp32", "bf16")}
# Two batches for each worker are in memory, and threads beyond the cores only wait.
_MOST_THREADS = {"threads": 1024, "workers": 64}


@dataclass(frozen=True)
class RunConfig:
    """One training run. Length is `steps`; `minutes` ends it earlier, with the schedule."""

    data: Any = option(
        "outputs/demonstrations.zarr", "episode store to learn from, or a list of several"
    )
    weights: list[float] = option(
        [], "share of each store in the batches, as [0.7,0.3]; empty: by their sizes"
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
    seed: int = option(0, "of the weights, the order of the data and the noise")
    validation: float = option(0.05, "share of the episodes that is held out to validate on")
    validate_every: int = option(500, "steps between two validations")
    patience: int = option(
        0,
        "end after so many validations without a smaller error at the deepest K, and keep the "
        "weights of the smallest in out/best; 0 = never",
    )
    device: str = option("auto", "auto, cpu or cuda")
    precision: str = option("fp32", "fp32, or bf16 where it is safe (what is trained stays fp32)")
    threads: int = option(0, "CPU threads; 0 = all cores this process may use")
    workers: int = option(1, "threads that read batches ahead; 0 = none")
    cache: str = option("", "folder for decoded frames; empty: LOOPDIT_CACHE or the user's cache")
    cache_gib: float = option(0.0, "its largest size; 0 = LOOPDIT_CACHE_GIB or 20")
    save_every_s: float = option(60.0, "seconds between checkpoints")
    resume: bool = option(False, "go on from the checkpoint in out")
    overwrite: bool = option(False, "replace the checkpoint in out")

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "validate_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1.")
        for name in ("warmup_steps", "seed", "patience"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)} must not be negative.")
        for name in ("minutes", "save_every_s", "clip_norm", "cache_gib", "weight_decay"):
            self.require_amount(name)
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
        if self.patience and not self.validation:
            raise ConfigError(
                f"patience={self.patience} waits for validations, and validation=0 holds nothing "
                f"out. Give a share, as validation=0.1, or leave patience out."
            )
        if self.resume and self.overwrite:
            raise ConfigError("resume=true and overwrite=true exclude each other. Give one.")
        stores = len(self.stores)  # may refuse
        if self.weights and len(self.weights) != stores:
            raise ConfigError(
                f"weights={self.weights} has {len(self.weights)} numbers for {stores} data sets. "
                f"Give one for each."
            )

    def require_amount(self, name: str) -> None:
        """Raise ConfigError where an option is no amount."""
        if not 0 <= getattr(self, name) < math.inf:
            raise ConfigError(f"{name}={getattr(self, name)} must be 0 or more, and finite.")

    @property
    def stores(self) -> list[str]:
        """`data` as a list. Raises ConfigError for what is no name or list of names."""
        found: list[Any] = list(self.data) if isinstance(self.data, (list, tuple)) else [self.data]
        if not found or not all(isinstance(name, str) and name for name in found):
            raise ConfigError(
                f"data={self.data} names no episode store. Use data=STORE or data=[A,B]."
            )
        return found
