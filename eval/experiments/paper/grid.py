"""Experiment 26, recomputed: ANOVA, pairs and marginal means of the grid of Table 3."""

from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np

from loopdit.eval.experiments.paper.check import Check, number, number_check, numbers_check
from loopdit.eval.experiments.paper.grid_cells import (
    ACTION,
    DIFFUSION,
    SEEDS,
    freeze_levels,
    grid_of,
    loop_levels,
    not_frozen,
    reach_of_cells,
    reach_of_means,
)
from loopdit.eval.statistics.anova import Anova, Cells, Effect, level_difference, two_way
from loopdit.eval.statistics.effect_size import cohen_d, cohen_d_interval, hedges_g
from loopdit.eval.statistics.multiplicity import holm
from loopdit.eval.statistics.t_power import f_power, two_sample_n, two_sample_power

_BEST = "3"
_EFFECTS = {"loops": "a", "freeze": "b", "interaction": "interaction"}


def grid_tables() -> dict[str, Any]:
    """What `paper.exp26` of the report holds."""
    cells = grid_of(ACTION)
    found = two_way(cells)
    best, worst = cells["3", "frozen"], cells["2", "frozen"]
    pairwise = _pairwise()
    d = number("exp26.power_d").value
    cohen_f = (found.a.eta2 / (1 - found.a.eta2)) ** 0.5
    return {
        "anova": _anova(found),
        "pairwise": {
            f"{_BEST} v {level}": {"p": p, "p_holm": adjusted}
            for (level, p), adjusted in zip(
                pairwise.items(), holm([*pairwise.values()]), strict=True
            )
        },
        "cohen_d": {
            "value": cohen_d(worst, best),
            "interval": list(cohen_d_interval(worst, best)),
            "hedges_g": hedges_g(worst, best),
        },
        "power": {
            "d": d,
            "n": SEEDS,
            "one_sided": two_sample_power(d, SEEDS, sides=1),
            "two_sided": two_sample_power(d, SEEDS),
            "n_needed": two_sample_n(d),
            "n_needed_one_sided": two_sample_n(d, sides=1),
            "anova_loops": f_power(cohen_f, found.a.df, found.df_error, found.a.n),
        },
        "anova_diffusion": _anova(two_way(grid_of(DIFFUSION))),
        "anova_diffusion_not_frozen": _anova(two_way(not_frozen())),
    }


def largest_d() -> tuple[tuple[str, str], tuple[str, str], int]:
    """The two cells that lie furthest apart in d, and of how many pairs."""
    cells = grid_of(ACTION)
    pairs = list(combinations(cells, 2))
    first, second = max(pairs, key=lambda pair: abs(cohen_d(cells[pair[0]], cells[pair[1]])))
    return first, second, len(pairs)


def grid_checks() -> list[Check]:
    """Of Table 3 and of what the paper says of it."""
    return [*_anova_checks(), _pairwise_check(), _by_chance_check(), *_marginal_checks()]


def _pairwise() -> dict[str, float]:
    """{loops: p of _BEST against it}."""
    cells = grid_of(ACTION)
    others = [level for level in loop_levels() if level != _BEST]
    return {level: level_difference(cells, level, _BEST).p_value() for level in others}


def _anova(found: Anova) -> dict[str, Any]:
    def named(effect: Effect) -> dict[str, Any]:
        values = asdict(effect)
        return {"F": values.pop("statistic"), **values}

    effects = {name: named(getattr(found, field)) for name, field in _EFFECTS.items()}
    return {**effects, "error": {"eta2": found.error_eta2, "df": found.df_error}}


def _anova_checks() -> list[Check]:
    checks: list[Check] = []
    for name, effect in _EFFECTS.items():
        for what, field in (("F", "statistic"), ("p", "p")):

            def value(cells: Cells, effect: str = effect, field: str = field) -> float:
                return float(getattr(getattr(two_way(cells), effect), field))

            found = reach_of_cells(ACTION, value)
            checks.append(number_check(f"exp26.{name}_{what}", 26, found))
    share = reach_of_cells(ACTION, lambda cells: two_way(cells).error_eta2)
    return [*checks, number_check("exp26.error_eta2", 26, share)]


def _pairwise_check() -> Check:
    found = _pairwise()
    listed = ", ".join(f"{_BEST} v {level} {p:.3f}" for level, p in found.items())
    least = min(found.values())
    return Check.of_claim(
        "exp26.three_is_optimal",
        "least p",
        26,
        "Abstract, section 4.6",
        "3 loops is consistently optimal",
        least,
        least <= 0.05,
        f"No pair of loop counts differs, even uncorrected: p = {listed}; the least by Holm is "
        f"{min(holm([*found.values()])):.2f}.",
    )


def _by_chance_check() -> Check:
    columns = len(freeze_levels())
    chance = len(loop_levels()) ** (1 - columns)
    return Check.of_claim(
        "exp26.at_every_freeze_level",
        "chance",
        26,
        "Section 4.6",
        "This holds at every freeze level",
        chance,
        chance <= 0.05,
        f"Were all loop counts alike, one and the same would still be lowest in all {columns} "
        f"columns with chance {chance:.3f}.",
    )


def _marginal_checks() -> list[Check]:
    three, four = loop_levels().index("3"), loop_levels().index("4")
    checks: list[Check] = []
    for place in range(len(loop_levels())):
        found = reach_of_means(ACTION, lambda m, row=place: float(m[row].mean()))
        checks.append(numbers_check("exp26.loop_marginals", place, 26, found))
    for place in range(len(freeze_levels())):
        found = reach_of_means(ACTION, lambda m, column=place: float(m[:, column].mean()))
        checks.append(numbers_check("exp26.freeze_marginals", place, 26, found))
        found = reach_of_means(
            ACTION, lambda m, column=place: float(m[0, column] / m[three, column])
        )
        checks.append(numbers_check("exp26.three_by_one", place, 26, found))
    for name, pick in (("least", np.min), ("most", np.max)):
        found = reach_of_means(ACTION, lambda m, pick=pick: float(pick(m[three] / m[four])))
        checks.append(number_check(f"exp26.three_by_four_{name}", 26, found))
    return checks
