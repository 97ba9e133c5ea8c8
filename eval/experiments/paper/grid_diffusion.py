"""Experiment 26: the diffusion loss, Table 6."""

import numpy as np

from loopdit.eval.experiments.paper.check import Check, number_check, numbers
from loopdit.eval.experiments.paper.grid_cells import (
    DIFFUSION,
    freeze_levels,
    grid_of,
    loop_levels,
    not_frozen,
    reach_of_means,
)
from loopdit.eval.statistics.anova import two_way

# v-prediction of normalised latents: the target has variance 1, so predicting zero costs 1.
_NOTHING = 1.0


def diffusion_checks() -> list[Check]:
    """Of Table 6 and of what the paper says of it."""
    column = {name: place for place, name in enumerate(freeze_levels())}
    means = np.array([[grid_of(DIFFUSION)[a, b].mean for b in column] for a in loop_levels()])
    frozen, half, unfrozen = (means[:, column[name]] for name in ("frozen", "half", "unfrozen"))
    low, high = numbers("exp26.diffusion_gap")
    gaps = frozen / unfrozen
    trained = two_way(not_frozen()).a
    by_loops = (half + unfrozen) / 2
    best = loop_levels()[int(np.argmin(by_loops))]
    return [
        number_check(
            "exp26.diffusion_frozen",
            26,
            reach_of_means(DIFFUSION, lambda m: float(m[:, 0].mean())),
            f"The frozen cells have a mean of {frozen.mean():.3f}.",
        ),
        number_check(
            "exp26.diffusion_unfrozen",
            26,
            reach_of_means(DIFFUSION, lambda m: float(m[:, 2].mean())),
            f"The unfrozen cells have a mean of {unfrozen.mean():.3f}.",
        ),
        number_check(
            "exp26.diffusion_half_gap",
            26,
            reach_of_means(DIFFUSION, lambda m: float(m[:, 1].mean() / m[:, 2].mean())),
            f"Half-frozen over unfrozen is {half.mean() / unfrozen.mean():.3f}, and at no loop "
            f"count more than {np.max(half / unfrozen):.3f}.",
        ),
        Check.of_claim(
            "exp26.diffusion_gap",
            "of the means",
            26,
            "Section 4.6, Table 6",
            f"{low.text} to {high.text}x gap between frozen and unfrozen",
            float(frozen.mean() / unfrozen.mean()),
            low.value - low.half <= gaps.min() and gaps.max() <= high.value + high.half,
            f"By loop count it is {', '.join(f'{gap:.1f}' for gap in gaps)}.",
        ),
        Check.of_claim(
            "exp26.three_is_optimal_for_diffusion",
            "over the best",
            26,
            "Abstract, Table 6",
            "3 loops is consistently optimal",
            float(by_loops[loop_levels().index("3")] / by_loops.min()),
            best == "3",
            f"Of the action loss alone. Where something is unfrozen the diffusion loss is lowest "
            f"at {best} loop and rises by {100 * (by_loops[-1] / by_loops[0] - 1):.0f} % to 4 "
            f"(F = {trained.statistic:.2f}, p = {trained.p:.3f}, uncorrected), unmentioned.",
        ),
        Check.of_claim(
            "exp26.better_than_nothing",
            "least loss",
            26,
            "Table 6",
            f"diffusion loss, frozen: {', '.join(f'{value:.3f}' for value in frozen)}",
            float(frozen.min()),
            bool(frozen.max() < _NOTHING),
            "Predicting zero costs 1 in the units of the model's v-prediction. The frozen model is "
            "worse than none: a mix-up of prediction types would do that, or gates that halve each "
            "block at the start.",
        ),
    ]
