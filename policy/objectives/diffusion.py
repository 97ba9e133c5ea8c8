"""Denoising diffusion (arXiv 2006.11239): the model says the noise, the chunk, or their velocity.

Shapes as in `objective`; T training timesteps. With a the cumulated alpha of a timestep,

    sample = sqrt(a) chunk + sqrt(1 - a) noise        v = sqrt(a) noise - sqrt(1 - a) chunk

and each of eps, x0 and v implies the others. The noise schedules are diffusers'; the arithmetic is
written out on tensors, because diffusers' schedulers step by Python integers held in the scheduler,
one timestep for a whole batch, which neither exports nor knows single actions' levels. Equal to
DDPMScheduler and DDIMScheduler to 1e-5 (tests).

Levels and timesteps, here and nowhere else: level l is row round(l T) of the table of a, which is
timestep T - 1 - round(l T). So level 0 is timestep T - 1, the noisiest; level 1 has no timestep,
and a = 1. Steps of equal size take diffusers' "trailing" timesteps: the first starts where the
sample is noise alone (arXiv 2305.08891), and the last ends in a clean chunk. Where the number of
steps does not divide T, a step of DDIMScheduler does not end where its next one starts; here it
does.

By eps the chunk is (sample - sqrt(1 - a) eps) / sqrt(a), and at level 0 sqrt(a) is 5e-4 (T = 100):
an error of the model is blown up 2,000 times. `clip` bounds the chunk, as Diffusion Policy does; it
is the better the looser, as long as it is there (tests/policy/objectives/test_learning.py).
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

from loopdit.errors import ConfigError
from loopdit.policy.objectives.objective import (
    DDIM,
    DDPM,
    Predict,
    after,
    keep_known,
    per_action,
    require_fresh_noise,
    require_steps,
    squared_error,
    walk,
)

EPS, X0, V = "ddpm_eps", "ddpm_x0", "ddpm_v"
_TINY = 1e-12
# A level whose product with T is halfway between two rows goes up, whatever its rounding error: the
# end of a step and the start of the next are computed differently, and must be the same row.
_HALF = 0.51
# With more signal than this at its noisiest, sampling starts where training never was.
_MOST_SIGNAL = 0.05


def alpha_table(train_timesteps: int, beta_schedule: str) -> Tensor:
    """The cumulated alphas (T + 1,) float32 by level: the noisiest first, 1 at last."""
    try:
        from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
    except ImportError as error:
        raise ConfigError(
            "policy.objective.kind=ddpm_* takes its noise schedule from the package diffusers, "
            "which is not installed. Install it: pip install diffusers"
        ) from error
    with torch.device("cpu"):  # a model may be made under `meta`, which has no numbers to check
        scheduler = DDPMScheduler(
            num_train_timesteps=train_timesteps,
            beta_schedule=cast(Any, beta_schedule),  # one of its literals, by ObjectiveConfig
        )
    signal = float(scheduler.alphas_cumprod[-1].sqrt())
    if signal > _MOST_SIGNAL:
        raise ConfigError(
            f"policy.objective.beta_schedule={beta_schedule} with train_timesteps="
            f"{train_timesteps} has {signal:.0%} of the chunk left at its noisiest. Use 1000, or "
            f"squaredcos_cap_v2."
        )
    return torch.cat([scheduler.alphas_cumprod.flip(0), torch.ones(1, device="cpu")])


def alphas_at(alphas: Tensor, level: Tensor) -> Tensor:
    """`alphas` (T + 1,) at levels (B,) or (B, H), shaped to be multiplied with chunks."""
    return per_action(alphas[_rows(level, len(alphas) - 1).long()])


def clean_and_noise(
    kind: str, sample: Tensor, output: Tensor, alpha: Tensor
) -> tuple[Tensor, Tensor]:
    """The chunk and the noise that an output implies, at `alpha` (broadcasting over chunks)."""
    signal, spread = alpha.sqrt(), (1 - alpha).sqrt()
    if kind == EPS:
        return (sample - spread * output) / signal, output
    if kind == X0:
        return output, (sample - signal * output) / spread.clamp_min(_TINY)
    return signal * sample - spread * output, signal * output + spread * sample


def ddim_step(
    kind: str,
    alphas: Tensor,
    sample: Tensor,
    output: Tensor,
    level: Tensor,
    next_level: Tensor,
    clip: float = 0.0,
) -> Tensor:
    """DDIM's step without noise (arXiv 2010.02502, equation 12 at eta = 0)."""
    alpha, next_alpha = alphas_at(alphas, level), alphas_at(alphas, next_level)
    chunk, noise = clean_and_noise(kind, sample, output, alpha)
    moved = next_alpha.sqrt() * _clipped(chunk, clip) + (1 - next_alpha).sqrt() * noise
    return keep_known(sample, moved, level)


def ddpm_step(
    kind: str,
    alphas: Tensor,
    sample: Tensor,
    output: Tensor,
    level: Tensor,
    next_level: Tensor,
    fresh: Tensor,
    clip: float = 0.0,
) -> Tensor:
    """DDPM's step (equation 7, with the smaller of its variances); `fresh` is standard normal."""
    alpha, next_alpha = alphas_at(alphas, level), alphas_at(alphas, next_level)
    chunk, _ = clean_and_noise(kind, sample, output, alpha)
    kept = alpha / next_alpha  # the alpha of this step alone
    rest = (1 - alpha).clamp_min(_TINY)
    mean = next_alpha.sqrt() * (1 - kept) / rest * _clipped(chunk, clip)
    mean = mean + kept.sqrt() * (1 - next_alpha) / rest * sample
    variance = (1 - next_alpha) / rest * (1 - kept)
    return keep_known(sample, mean + variance.sqrt() * fresh, level)


class Diffusion(nn.Module):
    """See `objective.Objective`. A module for its table, which moves with the model and is in no
    weights file."""

    alphas: Tensor

    def __init__(self, kind: str, alphas: Tensor, sampler: str = DDIM, clip: float = 0.0) -> None:
        super().__init__()
        self.kind = kind
        self.sampler = sampler
        self.clip = clip
        self.register_buffer("alphas", alphas, persistent=False)

    @property
    def direct(self) -> bool:
        """Not by eps."""
        return self.kind != EPS

    @property
    def needs_fresh_noise(self) -> bool:
        """By DDPM."""
        return self.sampler == DDPM

    @property
    def train_timesteps(self) -> int:
        """T."""
        return len(self.alphas) - 1

    def levels(self, count: int, generator: torch.Generator) -> Tensor:
        """Each timestep as likely as any other; never level 1, which has none."""
        uniform = torch.rand(count, generator=generator, device=generator.device)
        return (uniform * self.train_timesteps).floor() / self.train_timesteps

    def snapped(self, level: Tensor) -> Tensor:
        """The level of the nearest timestep: the model knows no others."""
        return _rows(level, self.train_timesteps) / self.train_timesteps

    def noised(self, chunk: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """See the module."""
        alpha = alphas_at(self.alphas, level)
        return alpha.sqrt() * chunk + (1 - alpha).sqrt() * noise

    def target(self, chunk: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """The noise, the chunk, or v."""
        if self.kind == EPS:
            return noise
        if self.kind == X0:
            return chunk
        alpha = alphas_at(self.alphas, level)
        return alpha.sqrt() * noise - (1 - alpha).sqrt() * chunk

    def as_target(self, output: Tensor) -> Tensor:
        """As it is."""
        return output

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Squared error, each level alike."""
        return squared_error(output, target)

    def chunk(self, sample: Tensor, output: Tensor, level: Tensor) -> Tensor:
        """Clipped as while sampling."""
        chunk, _ = clean_and_noise(self.kind, sample, output, alphas_at(self.alphas, level))
        return _clipped(chunk, self.clip)

    def step(
        self,
        predict: Predict,
        sample: Tensor,
        level: Tensor,
        dt: Tensor,
        fresh: Tensor | None = None,
    ) -> Tensor:
        """See `ddim_step` and `ddpm_step`."""
        start, end = self.snapped(level), self.snapped(after(level, dt))
        state = (self.kind, self.alphas, sample, predict(sample, start), start, end)
        if self.sampler == DDIM:
            return ddim_step(*state, self.clip)
        return ddpm_step(*state, require_fresh_noise(fresh, self.sampler), self.clip)

    def sample(
        self,
        predict: Predict,
        noise: Tensor,
        steps: int,
        fresh: Tensor | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        """See `Objective.sample`. Raises ConfigError for more steps than timesteps."""
        require_steps(steps, self.train_timesteps)
        return walk(self, predict, noise, steps, fresh, known)

    def predictions(self, steps: int) -> int:
        """One a step."""
        require_steps(steps, self.train_timesteps)
        return steps


def _rows(level: Tensor, timesteps: int) -> Tensor:
    return (level * timesteps + _HALF).floor()


def _clipped(chunk: Tensor, clip: float) -> Tensor:
    return chunk.clamp(-clip, clip) if clip else chunk
