"""Do the loops of a model approach a fixed point? Five numbers a loop, beside random weights'.

Shapes: B samples, N tokens, D width, K loops; h_l is the state before loop l, u_l = h_{l+1} - h_l.

A cosine between consecutive states that rises to 1 shows no contraction: a residual network adds
less and less to what is already there, whatever its weights are. So the same architecture with
random weights is measured beside it (the null), and so is what a contraction must show: updates
that shrink from loop to loop, and a Jacobian whose norm (`jacobian.spectral_norm`) is below 1.

Loops may be measured beyond those that were trained. What the step does there is the step's
business; where it repeats the last trained loop, the map no longer changes, and the ratio of the
updates tends to the size of its largest eigenvalue: below 1 the loops converge.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from loopdit.errors import ConfigError
from loopdit.policy.fixed_point.jacobian import spectral_norm
from loopdit.policy.fixed_point.step import LoopedMap, at_loop


@dataclass(frozen=True)
class Curve:
    """One number a loop: over the samples, its median, its 10th and its 90th percentile."""

    median: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class LoopCurves:
    """What one model's loops do; each curve has K numbers.

    `cosine` is between h_l and h_{l+1}, the mean over tokens. `update_norm` is |u_l| over all of a
    sample's state, `relative_update` is |u_l| / |h_l|, `ratio` is |u_l| / |u_{l-1}| and begins
    with the second loop (K - 1 numbers); `lipschitz` is the norm of the Jacobian at h_l.
    """

    cosine: Curve
    update_norm: Curve
    relative_update: Curve
    ratio: Curve
    lipschitz: Curve


@dataclass(frozen=True)
class FixedPointReport:
    """A model's loops and, for each null seed, those of its architecture with random weights.

    `trained_loops` is how many of the K loops the model was trained for.
    """

    samples: int
    trained_loops: int
    model: LoopCurves
    null_seeds: tuple[int, ...]
    null: tuple[LoopCurves, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def measure(looped: LoopedMap, loops: int, seed: int = 0, iterations: int = 50) -> LoopCurves:
    """Run `loops` loops and take the five numbers of each.

    `seed` is of the vector that the power iteration begins with, `iterations` its most steps.
    Raises ConfigError where a state is no longer finite.
    """
    if loops < 2:
        raise ConfigError(f"loops={loops}: what changes from loop to loop takes at least 2.")
    generator = torch.Generator().manual_seed(seed)
    step, state = looped
    names = ("cosine", "update_norm", "relative_update", "ratio", "lipschitz")
    values: dict[str, list[Tensor]] = {name: [] for name in names}
    last: Tensor | None = None
    for loop in range(loops):
        with torch.no_grad():
            after = step(state, loop)
        if not bool(after.isfinite().all()):
            raise ConfigError(
                f"the state is not finite after {loop + 1} of loops={loops}: the loops grow "
                f"without bound. Measure fewer."
            )
        norm = spectral_norm(at_loop(step, loop), state, generator, iterations)
        update = _length(after - state)
        values["cosine"].append(cosine_similarity(state, after, dim=-1).flatten(1).mean(dim=1))
        values["update_norm"].append(update)
        values["relative_update"].append(_quotient(update, _length(state)))
        values["lipschitz"].append(norm)
        if last is not None:
            values["ratio"].append(_quotient(update, last))
        state, last = after, update
    return LoopCurves(**{name: _curve(torch.stack(rows)) for name, rows in values.items()})


def diagnose(
    model: LoopedMap,
    null: Callable[[int], LoopedMap],
    loops: int,
    trained_loops: int,
    null_seeds: Sequence[int] = (0, 1, 2, 3, 4),
    iterations: int = 50,
) -> FixedPointReport:
    """`measure` the model, and what `null` makes of each seed. Raises like `measure`."""
    return FixedPointReport(
        samples=len(model.start),
        trained_loops=trained_loops,
        model=measure(model, loops, iterations=iterations),
        null_seeds=tuple(null_seeds),
        null=tuple(measure(null(seed), loops, iterations=iterations) for seed in null_seeds),
    )


def _length(state: Tensor) -> Tensor:
    """(B, N, D) -> (B,)."""
    return state.flatten(1).norm(dim=1)


def _quotient(above: Tensor, below: Tensor) -> Tensor:
    """0 where nothing moves: 0 / 0 of a loop that has arrived."""
    return torch.where(above > 0, above / below, torch.zeros_like(above))


def _curve(rows: Tensor) -> Curve:
    """(K, B) -> over B."""
    shares = torch.tensor([0.5, 0.1, 0.9], dtype=rows.dtype, device=rows.device)
    median, low, high = (tuple(row.tolist()) for row in torch.quantile(rows, shares, dim=1))
    return Curve(median, low, high)
