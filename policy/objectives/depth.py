"""Which exits of a looped pass a training step supervises, and what they are taught.

Shapes: K exits of one pass, the shallowest first, B batch, H action horizon, A action dim.
A way to train depth is a plan for each step: how many loops are run, and which exit is supervised
besides the deepest of them. All exits at once is what we ship; the others are what it is compared
with: a single exit drawn at random and the deepest, which teaches it; a single fixed depth, as a
model that is trained for one K alone; the paper's curriculum, which deepens as training goes on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from loopdit.command import option
from loopdit.errors import ConfigError
from loopdit.policy.objectives.objective import Objective, squared_error

ALL, RANDOM, FIXED, CURRICULUM = "all", "random", "fixed", "curriculum"
_MODES = (ALL, RANDOM, FIXED, CURRICULUM)


@dataclass(frozen=True)
class DepthConfig:
    """How the depths of one checkpoint are trained."""

    mode: str = option(
        ALL, "exits that a step trains: all, random (one, and the deepest), fixed, or curriculum"
    )
    distill: float = option(0.5, "share of the deepest exit in a shallower exit's target")
    loops: int = option(0, "the depth that mode=fixed trains; 0 = the deepest")
    stage: int = option(1000, "steps between two depths of mode=curriculum, which begins with one")
    truncate: int = option(
        0, "how many of the last loops carry gradient, where one depth is trained; 0 = all"
    )

    def __post_init__(self) -> None:
        if self.mode not in _MODES:
            raise ConfigError(
                f"depth.mode={self.mode} is unknown. Use {', '.join(_MODES[:-1])} or {_MODES[-1]}."
            )
        if not 0 <= self.distill < 1:
            raise ConfigError(f"depth.distill={self.distill} must be from 0 up to below 1.")
        for name, least in (("loops", 0), ("stage", 1), ("truncate", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"depth.{name}={getattr(self, name)} must be {least} or more.")
        if self.loops and self.mode != FIXED:
            raise ConfigError(
                f"depth.loops={self.loops} is for depth.mode=fixed, not {self.mode}. Give one."
            )
        if self.truncate and self.mode not in (FIXED, CURRICULUM):
            raise ConfigError(
                f"depth.truncate={self.truncate} leaves the exits before the last loops without "
                f"gradient, and depth.mode={self.mode} trains them. Use mode={FIXED} or "
                f"{CURRICULUM}, or leave truncate out."
            )

    def require_within(self, max_loops: int) -> None:
        """Raise ConfigError for a depth that a model of so many loops does not have."""
        if self.loops > max_loops:
            raise ConfigError(
                f"depth.loops={self.loops} is deeper than the model, which has {max_loops} loops. "
                f"Use at most {max_loops}, or more loops."
            )

    def require_reached(self, max_loops: int, steps: int) -> None:
        """Raise ConfigError for a curriculum that ends before the deepest loop, which would be
        served untrained."""
        deepest = 1 + (steps - 1) // self.stage
        if self.mode == CURRICULUM and deepest < max_loops:
            raise ConfigError(
                f"depth.mode={self.mode} with depth.stage={self.stage} ends at K={deepest} in "
                f"steps={steps}, and the model has {max_loops} loops. Use a shorter stage, such as "
                f"{max(1, steps // (max_loops + 1))}, more steps, or policy.max_loops={deepest}."
            )


class ExitLosses(NamedTuple):
    """Of each exit, (K,): what training minimises, and the mean squared error to the
    demonstrations, which is comparable between exits and carries no gradient."""

    objective: Tensor
    error: Tensor


class DepthPlan(NamedTuple):
    """Of one training step: the loops that are run, and the exit (from 1) that is supervised
    besides the last; None for all of them."""

    loops: int
    only: int | None


def plan_depth(config: DepthConfig, max_loops: int, step: int, uniform: float) -> DepthPlan:
    """What optimizer step `step`, counted from 0, trains. `uniform` in [0, 1) is what chance
    decides, for the mode that needs it. The paper's curriculum is min(1 + step // 1000, max_loops)
    in a training of 5,000 steps."""
    config.require_within(max_loops)
    if config.mode == ALL:
        return DepthPlan(max_loops, None)
    if config.mode == RANDOM:
        return DepthPlan(max_loops, 1 + min(int(uniform * max_loops), max_loops - 1))
    deep = config.loops or max_loops
    loops = deep if config.mode == FIXED else min(1 + step // config.stage, max_loops)
    return DepthPlan(loops, loops)


def exit_losses(
    exits: Tensor,
    target: Tensor,
    weight: Tensor,
    distill: float,
    only: int | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] = squared_error,
    as_target: Callable[[Tensor], Tensor] | None = None,
) -> ExitLosses:
    """How far each exit's output (K, B, H, A) is from the target (B, H, A) of the model.

    weight (B, H) says how much each action counts. `distill` in [0, 1) is the share of a shallower
    exit's target that is the deepest exit's own output (through `as_target`) and not `target`
    (intra-loop self-distillation, arXiv 2604.09168): the same optimum with less noise. `loss` is of
    elements.

    `only` supervises that exit and the deepest; the others' objectives are 0, and these are scaled
    so that the mean over all exits is the mean over those supervised.
    """
    count = len(exits)
    chosen = list(range(count)) if only is None else sorted({only - 1, count - 1})
    taught = exits[-1].detach()
    mixed = torch.lerp(target, taught if as_target is None else as_target(taught), distill)
    targets = torch.stack([target if exit == count - 1 else mixed for exit in chosen])
    mean = _weighted_mean(loss(exits if only is None else exits[chosen], targets), weight)
    if only is not None:
        # By position and not in place: a step's graph must not depend on which exit it is.
        rows = dict(zip(chosen, mean.unbind(0), strict=True))
        zero = torch.zeros_like(mean[0])
        mean = torch.stack([rows.get(exit, zero) for exit in range(count)])
        mean = mean * (count / len(chosen))
    return ExitLosses(mean, _weighted_mean(loss(exits.detach(), target), weight))


def objective_losses(
    objective: Objective,
    exits: Tensor,
    chunk: Tensor,
    noise: Tensor,
    level: Tensor,
    weight: Tensor,
    distill: float,
    only: int | None = None,
) -> ExitLosses:
    """`exit_losses` of the outputs (K, B, H, A) for `objective.noised(chunk, noise, level)`.

    The error is that of the chunks they imply, so that it can be compared between objectives.
    """
    target = objective.target(chunk, noise, level)
    losses = exit_losses(exits, target, weight, distill, only, objective.loss, objective.as_target)
    sample = objective.noised(chunk, noise, level)
    implied = objective.chunk(sample, exits.detach(), level)
    return ExitLosses(losses.objective, _weighted_mean(squared_error(implied, chunk), weight))


def _weighted_mean(error: Tensor, weight: Tensor) -> Tensor:
    """(K, B, H, A) -> (K,), by weights (B, H); 0 where nothing counts."""
    weight = weight[..., None].to(error.dtype)
    total = (weight.sum() * error.shape[-1]).clamp_min(torch.finfo(error.dtype).tiny)
    return (weight * error).sum((1, 2, 3)) / total
