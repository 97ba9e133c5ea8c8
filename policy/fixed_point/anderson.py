"""The fixed point h = f(h) of a loop, by Anderson acceleration: fewer loops than applying f.

Shapes: B samples solved side by side, each with its own end; n numbers of state a sample; m memory.

The next state is extrapolated from the last m updates (Walker and Ni 2011, SIAM J. Numer. Anal. 49;
for deep equilibrium models arXiv 1909.01377): with r = f(h) - h and the differences dH, dR (n, m)
of consecutive states and of their r,

    h <- h + damping r - (dH + damping dR) c      where c minimises |r - dR c|

A sample takes the plain step h <- f(h) and forgets its differences where that least squares is
ill-conditioned, or where an extrapolation more than doubled the residual; it then goes on from
where it came from. To a given tolerance that takes at most a step more than plain iteration on
every contractive map that the tests try; it is not proven to.

Knows nothing of gradients: for training apply f once more to the result (arXiv 2103.12803).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from loopdit.command import option
from loopdit.errors import ConfigError

# Of the columns of dR, each scaled to length 1. In float32 differences of nearby states have four
# digits or so, and a worse conditioned system is solved for their rounding errors.
_MAX_CONDITION = 1e4
# How much larger an extrapolation may leave the residual. At 1 a map that expands in a few
# directions is solved in 16 to 155 steps, at 2 in 12 (10 numbers of state, 5 seeds); contractive
# maps need as many at 1 as at any other.
_MAX_GROWTH = 2.0


@dataclass(frozen=True)
class AndersonConfig:
    """How a fixed point is sought."""

    memory: int = option(5, "updates that the next state is extrapolated from; 0: plain iteration")
    damping: float = option(1.0, "share of the latest update in the next state, in (0, 1]")
    tolerance: float = option(1e-4, "largest residual of a sample that has arrived")
    max_steps: int = option(50, "applications of the loop at most")

    def __post_init__(self) -> None:
        if self.memory < 0:
            raise ConfigError(f"memory={self.memory} must be 0 or more.")
        if not 0 < self.damping <= 1:
            raise ConfigError(f"damping={self.damping} must be above 0 and at most 1.")
        if not self.tolerance >= 0:
            raise ConfigError(f"tolerance={self.tolerance} must be 0 or more.")
        if self.max_steps < 1:
            raise ConfigError(f"max_steps={self.max_steps} must be at least 1.")

    def plain(self) -> "AndersonConfig":
        """The same without extrapolation."""
        return replace(self, memory=0)


class Solution(NamedTuple):
    """What `solve` found for each sample.

    `state` (B, ...) is f of the best state h met, `residual` (B,) is |f(h) - h| / |f(start)| of
    that one, `converged` (B,) bool says whether it is within the tolerance. `steps` (B,) int64 is
    how often f was applied; `residuals` (S, B) has each application's, NaN after a sample's end.

    The residual is not relative to the state itself: of one that grows by as much in each loop, as
    those of residual networks do, that would shrink to any tolerance.
    """

    state: Tensor
    residual: Tensor
    converged: Tensor
    steps: Tensor
    residuals: Tensor


@torch.no_grad()
def solve(
    function: Callable[[Tensor], Tensor], start: Tensor, config: AndersonConfig | None = None
) -> Solution:
    """Seek each sample's fixed point of `function`, from `start` (B, ...).

    The function is given all samples each time, those that have ended as they were.
    """
    config = config or AndersonConfig()
    history = _History(config.memory, start)
    state = kept = kept_value = best = start
    lowest = kept_residual = start.new_full((len(start),), torch.inf)
    active = torch.ones(len(start), dtype=torch.bool, device=start.device)
    steps = torch.zeros(len(start), dtype=torch.int64, device=start.device)
    extrapolated = ~active
    residuals: list[Tensor] = []
    size = start.new_ones(len(start))
    for step in range(config.max_steps):
        value = function(state)
        if not step:
            size = _length(value).clamp_min(torch.finfo(value.dtype).tiny)
        residual = _length(value - state) / size
        residuals.append(torch.where(active, residual, torch.nan))
        steps = steps + active
        better = active & (residual < lowest)
        best, lowest = _choose(better, value, best), torch.where(better, residual, lowest)
        active = active & (lowest > config.tolerance)
        if not bool(active.any()):
            break
        accepted = ~(
            extrapolated & ~(residual <= _MAX_GROWTH * kept_residual)
        )  # rejects what is no number, too
        if step:
            history.add(state - kept, (value - state) - (kept_value - kept), accepted)
        kept, kept_value = _choose(accepted, state, kept), _choose(accepted, value, kept_value)
        kept_residual = torch.where(accepted, residual, kept_residual)
        proposed, extrapolated = history.extrapolate(kept, kept_value, config.damping)
        state = _choose(active, _choose(extrapolated, proposed, kept_value), state)
    return Solution(best, lowest, lowest <= config.tolerance, steps, torch.stack(residuals))


class _History:
    """Each sample's last differences of states and of residuals, forgotten sample by sample."""

    def __init__(self, memory: int, start: Tensor) -> None:
        size = (len(start), start[0].numel(), memory)
        self.states = start.new_zeros(size)
        self.residuals = start.new_zeros(size)
        self.known = torch.zeros(len(start), memory, dtype=torch.bool, device=start.device)

    def add(self, states: Tensor, residuals: Tensor, accepted: Tensor) -> None:
        """The differences (B, ...) to the step before; where not `accepted` (B,), forget all."""
        if not self.known.shape[1]:
            return
        self.states = torch.cat([states.flatten(1)[..., None], self.states[..., :-1]], dim=-1)
        self.residuals = torch.cat(
            [residuals.flatten(1)[..., None], self.residuals[..., :-1]], dim=-1
        )
        known = torch.cat([torch.ones_like(accepted)[:, None], self.known[:, :-1]], dim=1)
        self.known = known & accepted[:, None]

    def extrapolate(self, state: Tensor, value: Tensor, damping: float) -> tuple[Tensor, Tensor]:
        """(B, ...) and f of it -> the next state, and for which samples (B,) it is sound.

        What is known of the others is forgotten.
        """
        known = self.known
        if not known.shape[1] or not bool(known.any()):
            return value, torch.zeros(len(state), dtype=torch.bool, device=state.device)
        residual = (value - state).flatten(1)
        lengths = self.residuals.norm(dim=1)  # (B, m)
        usable = known & (lengths > 0)
        scaled = (self.residuals / torch.where(usable, lengths, 1)[:, None]).double()
        scaled = scaled * usable[:, None]
        # A column that is not there is one of its own: its coefficient is 0, its eigenvalue 1.
        gram = scaled.mT @ scaled + torch.diag_embed((~usable).double())  # (B, m, m)
        finite = gram.flatten(1).isfinite().all(dim=1)
        gram = torch.where(finite[:, None, None], gram, torch.eye(gram.shape[-1]).to(gram))
        eigenvalues = torch.linalg.eigvalsh(gram)  # ascending; the squares of scaled dR's
        sound = eigenvalues[:, 0] * _MAX_CONDITION**2 > eigenvalues[:, -1]
        sound = sound & finite & usable.any(dim=1)
        self.known = known & sound[:, None]
        identity = torch.eye(gram.shape[-1]).to(gram)
        gram = torch.where(sound[:, None, None], gram, identity)
        coefficients = torch.linalg.solve(gram, (scaled.mT @ residual.double()[..., None])[..., 0])
        coefficients = (coefficients / torch.where(usable, lengths, 1)).to(state)
        back = ((self.states + damping * self.residuals) @ coefficients[..., None])[..., 0]
        return (state.flatten(1) + damping * residual - back).view_as(state), sound


def _length(state: Tensor) -> Tensor:
    """(B, ...) -> (B,)."""
    return state.flatten(1).norm(dim=1)


def _choose(first: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """`one` for the samples where `first` (B,), `other` (B, ...) for the rest."""
    return torch.where(first.view(-1, *[1] * (one.ndim - 1)), one, other)
