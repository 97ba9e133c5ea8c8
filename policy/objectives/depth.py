"""Which exits of a looped pass a training step supervises, and what they are taught.

Shapes: K exits of one pass, the shallowest first, B batch, H action horizon, A action dim.
A way to train depth is a plan for each step: how many loops are run, and which exit is supervised
besides the deepest of them. All exits at once is what we ship; the others are what it is compared
with: a single exit drawn at random and the deepest, which teaches it; the paper's curriculum,
which deepens as training goes on. Which exits there are says the model (`LoopedDiTConfig.depths`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from loopdit.command import option, require_choice, require_effect
from loopdit.errors import ConfigError
from loopdit.policy.objectives.objective import NoisedChunk, Objective, squared_error

ALL, RANDOM, CURRICULUM = "all", "random", "curriculum"
_MODES = (ALL, RANDOM, CURRICULUM)


@dataclass(frozen=True)
class DepthConfig:
    """How the depths of one checkpoint are trained."""

    mode: str = option(
        ALL, "exits that a step trains: all, random (one, and the deepest), or curriculum"
    )
    distill: float = option(0.5, "share of the deepest exit in a shallower exit's target")
    stage: int = option(1000, "steps between two depths of mode=curriculum, which begins with one")
    truncate: int = option(
        0, "how many of the last loops carry gradient, where one depth is trained; 0 = all"
    )
    contract: float = option(
        0.0,
        "weight of a penalty on how much the last loop amplifies its state, with "
        "policy.injection=true; 0 = none",
    )

    def __post_init__(self) -> None:
        require_choice("depth.mode", self.mode, _MODES)
        if not 0 <= self.distill < 1:
            raise ConfigError(f"depth.distill={self.distill} must be from 0 up to below 1.")
        for name, least in (("stage", 1), ("truncate", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"depth.{name}={getattr(self, name)} must be {least} or more.")
        if not 0 <= self.contract < math.inf:
            raise ConfigError(f"depth.contract={self.contract} must be 0 or more, and finite.")
        if self.mode != CURRICULUM:
            require_effect(self, ("stage",), f"depth.mode={CURRICULUM}", "depth.")

    def require_trains(self, depths: range, steps: int, loops: str = "policy.max_loops") -> None:
        """Raise ConfigError where `steps` steps would leave one of the depths untrained, to be
        served all the same: a curriculum that ends too soon, or gradient that is cut before it;
        and where nothing would be cut. `loops` is the option that says the deepest."""
        reached = depths[0] + (steps - 1) // self.stage
        if self.mode == CURRICULUM and reached < depths[-1]:
            shorter = max(1, steps // (len(depths) + 1))
            raise ConfigError(
                f"depth.mode={self.mode} with depth.stage={self.stage} ends at K={reached} in "
                f"steps={steps}, and the model has {depths[-1]} loops. Use a shorter stage, such "
                f"as {shorter}, more steps, or {loops}={reached}."
            )
        if self.truncate and self.mode != CURRICULUM and len(depths) > 1:
            raise ConfigError(
                f"depth.truncate={self.truncate} leaves the exits before the last loops without "
                f"gradient, and depth.mode={self.mode} trains them. Use mode={CURRICULUM}, or one "
                f"depth by policy.min_loops={depths[-1]}, or leave truncate out."
            )
        if self.truncate >= depths[-1]:
            raise ConfigError(
                f"depth.truncate={self.truncate} cuts nothing: the model has {depths[-1]} "
                f"loop{'s' * (depths[-1] > 1)}. Use fewer, or leave truncate out."
            )


class ExitLosses(NamedTuple):
    """Of each exit, (K,): what training minimises, and the mean squared error to the
    demonstrations, which is comparable between exits and carries no gradient."""

    objective: Tensor
    error: Tensor


class DepthPlan(NamedTuple):
    """What one training step does with depth: the loops that it runs, and of them

    only: the K that is supervised besides the last; None for all of the model's depths.
    distill: the share of the deepest exit in a shallower one's target (`exit_objectives`).
    truncate: how many of the last loops carry gradient, 0 for all.
    """

    loops: int
    only: int | None = None
    distill: float = 0.0
    truncate: int = 0


def plan_depth(config: DepthConfig, depths: range, step: int, uniform: float) -> DepthPlan:
    """What optimizer step `step`, counted from 0, trains of a model with these depths. `uniform` in
    [0, 1) is what chance decides, for the mode that needs it. The paper's curriculum is
    min(1 + step // 1000, max_loops) in a training of 5,000 steps."""
    loops, only = depths[-1], None
    if config.mode == RANDOM:
        only = depths[min(int(uniform * len(depths)), len(depths) - 1)]
    elif config.mode == CURRICULUM:
        loops = only = min(depths[0] + step // config.stage, loops)
    return DepthPlan(loops, only, config.distill, config.truncate)


def exit_objectives(
    exits: Tensor,
    target: Tensor,
    weight: Tensor,
    distill: float,
    only: int | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] = squared_error,
    as_target: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """(K,): how far each exit's output (K, B, H, A) is from the target (B, H, A) of the model.

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
    return mean


def objective_losses(
    objective: Objective,
    exits: Tensor,
    noised: NoisedChunk,
    weight: Tensor,
    distill: float,
    only: int | None = None,
) -> ExitLosses:
    """`exit_objectives` of the outputs (K, B, H, A) for the sample of a noised chunk.

    The error is that of the chunks they imply, so that it can be compared between objectives.
    """
    chunk, noise, level, sample = noised
    target = objective.target(chunk, noise, level)
    minimised = exit_objectives(
        exits, target, weight, distill, only, objective.loss, objective.as_target
    )
    implied = objective.chunk(sample, exits.detach(), level)
    return ExitLosses(minimised, _weighted_mean(squared_error(implied, chunk), weight))


def _weighted_mean(error: Tensor, weight: Tensor) -> Tensor:
    """(K, B, H, A) -> (K,), by weights (B, H); 0 where nothing counts."""
    weight = weight[..., None].to(error.dtype)
    total = (weight.sum() * error.shape[-1]).clamp_min(torch.finfo(error.dtype).tiny)
    return (weight * error).sum((1, 2, 3)) / total
