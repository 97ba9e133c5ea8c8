"""Experiments 2 to 16 of the paper, recomputed from the numbers in its sentences."""

from typing import Any

import numpy as np
from scipy import stats

from loopdit.eval.experiments.paper.check import (
    Check,
    estimate_dict,
    number,
    number_check,
    numbers,
    printed,
    ratio_reach,
)
from loopdit.eval.statistics.rank_correlation import exact_p
from loopdit.eval.statistics.t_test import Estimate, Summary, welch


def looping_tables() -> dict[str, Any]:
    """What `paper.exp2` to `paper.exp12` of the report hold."""
    return {
        "exp2": {"spearman": {"rho": _hops_rho(), "p": _hops_p()}},
        "exp6": {
            "total_ratio": ratio_reach("exp6.total_deep", "exp6.total_looped").value,
            "welch": estimate_dict(_depth()),
            "variance_ratio": {"F": _variance_ratio(), "p": _variance_p()},
        },
        "exp12": {"contraction_by_steps": _contractions()},
    }


def looping_checks() -> list[Check]:
    """Everything of them that can be recomputed."""
    return [*_hops_checks(), *_depth_checks(), *_convergence_checks()]


def _hops_rho() -> float:
    ratios = [ratio.value for ratio in numbers("exp2.ratio")]
    return float(np.corrcoef(stats.rankdata(ratios), printed()["exp2"]["hops"])[0, 1])


def _hops_p() -> float:
    return exact_p(printed()["exp2"]["hops"], [ratio.value for ratio in numbers("exp2.ratio")])


def _hops_checks() -> list[Check]:
    rho, p = _hops_rho(), _hops_p()
    texts = ", ".join(ratio.text for ratio in numbers("exp2.ratio"))
    return [
        Check.of_claim(
            "exp2.inverted",
            "rho",
            2,
            "Section 4.3",
            f"the improvement ratio decreases with hops: {texts}",
            rho,
            rho == -1 and p <= 0.05,
            f"It falls and rises again, rho = {rho:.1f}; three numbers show no order whatever "
            f"they are (exact p = {p:.2g}, at best {2 / 6:.2f}), and no spread is given.",
        )
    ]


def _depth() -> Estimate:
    n = int(printed()["exp6"]["n"])
    deep, looped = (
        Summary(number(f"exp6.total_{name}").value, number(f"exp6.std_{name}").value, n)
        for name in ("deep", "looped")
    )
    return welch(deep, looped)


def _variance_ratio() -> float:
    return (number("exp6.std_deep").value / number("exp6.std_looped").value) ** 2


def _variance_p() -> float:
    """Two-sided, of the F test of two variances."""
    df = int(printed()["exp6"]["n"]) - 1
    ratio = _variance_ratio()
    return float(2 * min(stats.f.sf(ratio, df, df), stats.f.cdf(ratio, df, df)))


def _depth_checks() -> list[Check]:
    shared, noise = ratio_reach("exp16.unique", "exp16.shared"), number("exp15.visual_ratio").value
    return [
        number_check("exp6.total_ratio", 6, ratio_reach("exp6.total_deep", "exp6.total_looped")),
        number_check("exp6.visual_ratio", 6, ratio_reach("exp6.visual_deep", "exp6.visual_looped")),
        number_check("exp6.std_ratio", 6, ratio_reach("exp6.std_deep", "exp6.std_looped")),
        Check.of_claim(
            "exp6.significant",
            "p",
            6,
            "Section 4.1",
            "1.73x lower total loss, p < 0.001",
            _depth().p_value(),
            _depth().p_value() < 0.001,
            "It is not, with the standard deviations given.",
        ),
        Check.of_claim(
            "exp6.variance",
            "p",
            15,
            "Abstract, section 4.1",
            "3x lower variance across seeds",
            _variance_p(),
            _variance_p() <= 0.05,
            f"The factor is of standard deviations; of variances it is {_variance_ratio():.1f}. "
            f"With five seeds an F test does not show it: p = {_variance_p():.3f}, uncorrected.",
        ),
        Check.of_claim(
            "exp16.shared_wins",
            "ratio",
            16,
            "Section 4.1",
            "shared weights outperform unique ones, 0.01819 against 0.01849",
            shared.value,
            shared.value > noise,
            f"By {100 * (shared.value - 1):.1f} %, in three runs, without a spread or a test; "
            f"experiment 15 calls {100 * (noise - 1):.0f} % of this loss not significant.",
        ),
    ]


def _contractions() -> dict[str, float]:
    """How much of the velocity is left after one loop, were it measured over as many loops."""
    first, last = number("exp12.velocity_first").value, number("exp12.velocity_last").value
    return {str(steps): (last / first) ** (1 / steps) for steps in range(3, 8)}


def _convergence_checks() -> list[Check]:
    low, high = (edge.value for edge in numbers("exp12.contraction"))
    four_loops = _contractions()["3"]
    cosines = [cosine.value for cosine in numbers("exp12.cosine")]
    # Of two vectors of one length with cosine c, the difference is sqrt(2 - 2 c) of them.
    lengths = [(2 - 2 * cosine) ** 0.5 for cosine in cosines]
    by_cosine = (lengths[-1] / lengths[0]) ** (1 / (len(lengths) - 1))
    return [
        Check.of_claim(
            "exp12.contraction",
            "left a loop",
            12,
            "Section 4.2",
            f"velocity 0.675 to 0.133 (loops 1 to 4): contraction of about {low:g} to {high:g}",
            four_loops,
            low <= four_loops <= high,
            f"Over the three steps between four loops that is {four_loops:.2f} a loop, and the "
            f"cosines give {by_cosine:.2f}. {low:g} to {high:g} takes five to seven steps. "
            f"Neither shows a contraction: random weights have a cosine of 0.98.",
        )
    ]
