"""What an objective is: the noise on a chunk, what the model says of it, and the way to a chunk.

Shapes: B batch, H action horizon, A action dim. Everything is in normalised units. The model is a
function of the sample (B, H, A) and its level; what it says of them, its output, is (B, H, A) too.
Knows nothing of observations, loops, or what a model is.

A level says how clean a sample is: 0 is noise alone, 1 a chunk. It is (B,), one for a whole sample,
or (B, H), one for each action: an action at level 1 is known (committed), enters the model as it
is and is left as it is by sampling. Where a model is trained at some levels alone, as a diffusion's
timesteps, sampling rounds to those before the model sees them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from loopdit.command import option, require_choice, require_effect
from loopdit.errors import ConfigError

FLOW, REGRESSION = "flow", "regression"
DIFFUSIONS = ("ddpm_eps", "ddpm_x0", "ddpm_v")
EULER, HEUN, DDIM, DDPM = "euler", "heun", "ddim", "ddpm"
REGRESS, BCE = "regress", "bce"
CLEAN = 1.0

# The samplers of each kind, its own default first.
_SAMPLERS = {
    FLOW: (EULER, HEUN),
    **dict.fromkeys(DIFFUSIONS, (DDIM, DDPM)),
    REGRESSION: (),
}
_SCHEDULES = ("squaredcos_cap_v2", "linear", "scaled_linear")

# (sample (B, H, A), level (B,) or (B, H)) -> output (B, H, A)
Predict = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class ObjectiveConfig:
    """What the model is trained to say, and how a chunk is sampled from it."""

    kind: str = option(FLOW, "flow, ddpm_eps, ddpm_x0, ddpm_v, or regression (no noise, one pass)")
    sampler: str = option(
        "", "flow: euler or heun; ddpm_*: ddim or ddpm; empty: the first of these"
    )
    train_timesteps: int = option(100, "noise levels of a diffusion, and most steps of its sampler")
    beta_schedule: str = option(
        _SCHEDULES[0], f"noise schedule of a diffusion: {', '.join(_SCHEDULES)}"
    )
    clip: float = option(
        5.0, "largest normalised action that a diffusion predicts while sampling; 0 = any"
    )
    gripper: str = option(REGRESS, "regress: as any action; bce: open or closed, by cross-entropy")
    gripper_labels: list[str] = option(
        ["gripper"], "actions whose label contains one of these words are grippers"
    )
    gripper_settled: float = option(
        0.5, "chance above which a gripper opens; below 1 - this it closes, in between it holds"
    )

    def __post_init__(self) -> None:
        require_choice("policy.objective.kind", self.kind, tuple(_SAMPLERS))
        require_choice("policy.objective.beta_schedule", self.beta_schedule, _SCHEDULES)
        require_choice("policy.objective.gripper", self.gripper, (REGRESS, BCE))
        known = _SAMPLERS[self.kind]
        if self.sampler and self.sampler not in known:
            raise ConfigError(
                f"policy.objective.sampler={self.sampler} does not go with kind={self.kind}, which "
                f"takes {' or '.join(known) or 'none'}. Leave it out, or change the kind."
            )
        if not 1 <= self.train_timesteps <= 10_000:
            raise ConfigError(
                f"policy.objective.train_timesteps={self.train_timesteps} must be from 1 to 10000."
            )
        if not 0 <= self.clip < float("inf"):
            raise ConfigError(f"policy.objective.clip={self.clip} must be 0 or more, and finite.")
        if not 0.5 <= self.gripper_settled < 1:
            raise ConfigError(
                f"policy.objective.gripper_settled={self.gripper_settled} must be from 0.5 to "
                f"below 1."
            )
        if self.gripper == BCE and not self.gripper_labels:
            raise ConfigError(
                "policy.objective.gripper=bce needs gripper_labels beside it, which is empty."
            )

    def require_effect(self) -> None:
        """Raise ConfigError for an option that was given and does nothing beside the others. Not
        asked of a checkpoint, which is read whatever it was trained with."""
        prefix = "policy.objective."
        if self.kind not in DIFFUSIONS:
            *most, last = DIFFUSIONS
            kinds = f"{prefix}kind={', '.join(most)} or {last}"
            require_effect(self, ("train_timesteps", "beta_schedule", "clip"), kinds, prefix)
        if self.gripper != BCE:
            gripper = f"{prefix}gripper={BCE}"
            require_effect(self, ("gripper_labels", "gripper_settled"), gripper, prefix)

    @property
    def chosen_sampler(self) -> str:
        """The sampler, the kind's own where none is asked for; empty for regression."""
        return self.sampler or next(iter(_SAMPLERS[self.kind]), "")


class Objective(Protocol):
    """One way to learn and to sample action chunks.

    `chunk`, `noise`, `sample`, `output` and `target` are (B, H, A); `noise` is standard normal, or
    smaller by a temperature; `level` is (B,) or (B, H). All but `levels` and `sample` are free of
    branches on values and of randomness: they compile and export.
    """

    @property
    def direct(self) -> bool:
        """Whether `chunk` at level 0 is the model's best guess. By eps it is an error blown up."""
        ...

    @property
    def needs_fresh_noise(self) -> bool:
        """Whether each sampling step takes noise of its own."""
        ...

    def levels(self, count: int, generator: torch.Generator) -> Tensor:
        """Training levels (count,), on the generator's device."""
        ...

    def noised(self, chunk: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """The sample that the model sees at a level of the way from noise to chunk."""
        ...

    def target(self, chunk: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """What the model should say of that sample."""
        ...

    def as_target(self, output: Tensor) -> Tensor:
        """An output (..., H, A) as a target for another (distillation)."""
        ...

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """How wrong each element of outputs (..., H, A) is; both arguments broadcast."""
        ...

    def chunk(self, sample: Tensor, output: Tensor, level: Tensor) -> Tensor:
        """The clean chunk that an output implies."""
        ...

    def step(
        self,
        predict: Predict,
        sample: Tensor,
        level: Tensor,
        dt: Tensor,
        fresh: Tensor | None = None,
    ) -> Tensor:
        """The sample moved from its level to level + dt, dt (B,) or like the level.

        `fresh` (B, H, A) is noise like the starting one, where `needs_fresh_noise`.
        """
        ...

    def sample(
        self,
        predict: Predict,
        noise: Tensor,
        steps: int,
        fresh: Tensor | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        """A chunk from noise in so many steps of equal size.

        `fresh` (steps, B, H, A) where `needs_fresh_noise`. `known` (B, H) bool: actions that are
        in `noise` as they are and stay; the levels are then (B, H). Raises ConfigError for steps
        that the sampler does not have.
        """
        ...

    def predictions(self, steps: int) -> int:
        """How often `sample` asks the model in so many steps; raises ConfigError as it does."""
        ...


class SaysChunk:
    """What objectives have in common whose model says the chunk itself, by squared error."""

    @property
    def direct(self) -> bool:
        """Yes."""
        return True

    @property
    def needs_fresh_noise(self) -> bool:
        """No."""
        return False

    def target(self, chunk: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """The chunk."""
        return chunk

    def as_target(self, output: Tensor) -> Tensor:
        """As it is."""
        return output

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Squared error."""
        return squared_error(output, target)

    def chunk(self, sample: Tensor, output: Tensor, level: Tensor) -> Tensor:
        """The output."""
        return output


class NoisedChunk(NamedTuple):
    """A chunk on its way from noise, (B, H, A) all but the level, and its sample there, which is
    what the model sees of it."""

    chunk: Tensor
    noise: Tensor
    level: Tensor
    sample: Tensor


def noise_chunk(objective: Objective, chunk: Tensor, noise: Tensor, level: Tensor) -> NoisedChunk:
    """The chunk at a level (B,) or (B, H), by the objective's own way there."""
    return NoisedChunk(chunk, noise, level, objective.noised(chunk, noise, level))


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Of each element."""
    return (output - target).square()


def per_action(level: Tensor) -> Tensor:
    """Levels (B,) or (B, H), to be multiplied with chunks: (B, 1, 1) or (B, H, 1)."""
    return level[:, None, None] if level.ndim == 1 else level[..., None]


def after(level: Tensor, dt: Tensor) -> Tensor:
    """level + dt, at most 1, like the level."""
    return (level + (dt if dt.ndim == level.ndim else dt[:, None])).clamp(max=CLEAN)


def keep_known(sample: Tensor, moved: Tensor, level: Tensor) -> Tensor:
    """`moved`, and of the actions at level 1 the sample."""
    return torch.where(per_action(level) < CLEAN, moved, sample)


def walk(
    objective: Objective,
    predict: Predict,
    noise: Tensor,
    steps: int,
    fresh: Tensor | None = None,
    known: Tensor | None = None,
    last: Objective | None = None,
) -> Tensor:
    """`Objective.sample` by its steps; `last` takes the last of them."""
    sample = noise
    dt = noise.new_full((len(noise),), 1 / steps)
    for step in range(steps):
        level = torch.full_like(dt, step / steps)
        if known is not None:
            level = torch.where(known, CLEAN, level[:, None])  # (B, H)
        mover = last if last is not None and step == steps - 1 else objective
        sample = mover.step(predict, sample, level, dt, None if fresh is None else fresh[step])
    return sample


def require_steps(steps: int, most: int | None = None) -> None:
    """Raise ConfigError for a number of sampling steps that there is not."""
    if steps < 1 or (most is not None and steps > most):
        bound = f"from 1 to {most}, the policy's train_timesteps" if most else "at least 1"
        raise ConfigError(f"steps={steps} must be {bound}.")


def require_fresh_noise(fresh: Tensor | None, sampler: str) -> Tensor:
    """`fresh`. Raises ConfigError where the sampler draws noise at each step and got none."""
    if fresh is None:
        raise ConfigError(
            f"policy.objective.sampler={sampler} draws noise at each step and was given none. "
            f"Sample with fresh noise, or with sampler=ddim."
        )
    return fresh
