"""Experiment 26: its effect size and power, and the seeds of Table 5 behind Table 3."""

from itertools import pairwise
from typing import Any

import numpy as np

from loopdit.eval.experiments.paper.check import Check, entry, number, number_check, printed
from loopdit.eval.experiments.paper.grid import largest_d
from loopdit.eval.experiments.paper.grid_cells import (
    ACTION,
    SEEDS,
    cell_keys,
    grid_of,
    printed_values,
    reach_of_cells,
)
from loopdit.eval.experiments.paper.rounding import Printed, reach
from loopdit.eval.statistics.effect_size import cohen_d, cohen_d_interval
from loopdit.eval.statistics.t_power import two_sample_n, two_sample_power
from loopdit.eval.statistics.t_test import welch


def power_checks() -> list[Check]:
    """d, and what it takes to find it."""
    d = reach_of_cells(ACTION, lambda c: cohen_d(c["2", "frozen"], c["3", "frozen"]))
    small = number("exp26.power_d").value
    one, two = (100 * two_sample_power(small, SEEDS, sides=sides) for sides in (1, 2))
    where, power = entry("exp26.power")
    needed = number("exp26.n_needed")
    reached, fewest = two_sample_power(small, needed.value), two_sample_n(small)
    fewest_one_sided = two_sample_n(small, sides=1)
    return [
        number_check("exp26.cohen_d", 26, d),
        _largest_check(),
        Check.of_claim(
            "exp26.power",
            "power, %",
            26,
            where,
            f"at n = {SEEDS} only {power.text} % power",
            two,
            power.may_be(two, two),
            f"{power.text} % is about the power of a one-sided test, {one:.1f} % at d = {small:g}; "
            f"the tests of the paper are two-sided, with {two:.1f} %.",
        ),
        Check.of_claim(
            "exp26.n_needed",
            "power, %",
            26,
            where,
            f"80 % power requires n = {needed.text} per cell",
            100 * reached,
            abs(needed.value - fewest) <= 1,
            f"Two-sided {needed.text} give {100 * reached:.2f} % and {fewest} reach 80 %; "
            f"one-sided, as the paper's {power.text} % are, {fewest_one_sided} would do.",
        ),
    ]


def _largest_check() -> Check:
    cells = grid_of(ACTION)
    first, second, pairs = largest_d()
    low, high = cohen_d_interval(cells[first], cells[second])
    p = welch(cells[first], cells[second]).p_value()
    adjusted = min(1.0, pairs * p)
    return Check.of_claim(
        "exp26.large_effects",
        "corrected p",
        26,
        "Section 4.6",
        f"Effect sizes are large (d up to {number('exp26.cohen_d').text})",
        adjusted,
        adjusted <= 0.05,
        f"That pair ({first[0]} and {second[0]} loops, {first[1]}) is the furthest apart of "
        f"{pairs}, chosen after the fact: the 95 % interval of d is {low:.1f} to {high:.1f}, and "
        f"Welch's p = {p:.3f} becomes {adjusted:.2g} when corrected for {pairs}.",
    )


def seed_checks() -> list[Check]:
    """Do the seeds of Table 5 give the cells of Table 3, and are they different seeds?"""
    checks: list[Check] = []
    for name, found in printed()["exp26"]["seeds"].items():
        if name == "where":
            continue
        inputs = [Printed.of(text) for text in found["value"]]
        place = cell_keys().index(tuple(found["cell"]))
        for what, function in (("mean", np.mean), ("std", lambda v: np.std(v, ddof=1))):
            got = reach(lambda v, function=function: float(function(v)), inputs)
            said = printed_values(ACTION, what)[place]
            checks.append(
                Check.of_number(
                    f"exp26.seeds.{name}.{what}", 26, f"Table 3, {name}", said.text, said, got
                )
            )
        checks.append(_identical(name, found))
    return checks


def _identical(name: str, found: dict[str, Any]) -> Check:
    """The chance that two of the seeds come out alike: the density of the difference of two normal
    values at 0, times the last digit's unit, for each of the pairs."""
    texts = sorted(found["value"])
    alike = sum(first == second for first, second in pairwise(texts))
    std = grid_of(ACTION)[tuple(found["cell"])].std
    pairs = len(texts) * (len(texts) - 1) / 2
    chance = float(pairs * 2 * Printed.of(texts[0]).half / (2 * np.sqrt(np.pi) * std))
    return Check.of_claim(
        f"exp26.seeds.{name}.differ",
        "chance",
        26,
        "Table 5",
        f"{name}: {', '.join(found['value'])}",
        chance,
        alike == 0,
        f"Two seeds of {name} are the same to the last digit, which chance does about once in "
        f"{1 / chance:.0f}: it looks like one run counted twice, or a seed that was not set.",
    )
