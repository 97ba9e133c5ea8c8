"""Answers about how cells differ: ratio, paired, welch, no_worse, threshold, spread, equivalence,
best.

A ratio is an improvement: above 1 where `of` is better than `against`, whichever way its metric
improves. It is the geometric mean over seeds, so that its test is a t test of logarithms.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations

import numpy as np
from scipy import stats

from loopdit.eval.experiments.analysis.finding import (
    Finding,
    equivalent,
    least_shown,
    over_seeds,
    sized,
    with_p,
)
from loopdit.eval.experiments.analysis.question import Question, Selection, improves_downwards
from loopdit.eval.experiments.analysis.seed_table import NotThere, SeedTable, common
from loopdit.eval.statistics.t_test import Summary, welch

_PAIRED = "paired t test over seeds"


def log_improvement(
    table: SeedTable, question: Question, at: Selection, metric: str = ""
) -> dict[int, float]:
    """By seed the logarithm of a ratio, above 0 where `of` is better than `against`."""
    metric = metric or question.metric
    of = table.by_seed(metric, question.of, at, log=True)
    against = table.by_seed(
        question.against_metric or metric, question.against or question.of, at, log=True
    )
    sign = -1 if improves_downwards(question) else 1
    return {seed: sign * (of[seed] - against[seed]) for seed in of if seed in against}


def ratio(table: SeedTable, question: Question) -> Finding:
    """An improvement, or with `than` one improvement over another."""
    needed = math.log(_needed(question))
    return over_seeds(question, _ratios(table, question), _PAIRED, 0.0, needed, is_log=True)


def paired(table: SeedTable, question: Question) -> Finding:
    """`of` less `against`, of a seed's pair."""
    return over_seeds(question, _differences(table, question), _PAIRED, 0.0, _needed(question))


def threshold(table: SeedTable, question: Question) -> Finding:
    """The metric itself against a value; the paper's number, or `least`, is what is needed."""
    bound = question.below if question.above is None else question.above
    assert bound is not None
    needed = bound if question.needed is None else question.needed
    values = np.array([*table.by_seed(question.metric, question.of, question.at).values()])
    return over_seeds(question, values, "t test over seeds", bound, needed)


def no_worse(table: SeedTable, question: Question) -> Finding:
    """An improvement, or gain, that is not below what the margin allows."""
    margin = question.margin
    assert margin is not None
    asked = replace(question, above=margin)
    if question.of_ratio:
        least = -math.log(margin)
        values, test = _ratios(table, asked), f"{_PAIRED}, no worse by {margin:g}x"
    else:
        least, test = -margin, f"{_PAIRED}, no worse by {margin:g}"
        values = _gains(table, asked)
    return over_seeds(asked, values, test, least, least, is_log=question.of_ratio)


def of_two_groups(table: SeedTable, question: Question) -> Finding:
    """`welch`: mean of `of` less that of `against`, whose seeds have nothing in common."""
    first, second = _groups(table, question)
    found = Finding(
        id=question.id,
        says=question.says or question.words(),
        test="Welch's t test",
        unit="",
        value=float(first.mean() - second.mean()),
        n=min(len(first), len(second)),
        claimed=question.claimed,
        beside=question.beside,
    )
    if found.n < 2:
        return replace(found, note="one seed has no interval and no test")
    estimate = welch(Summary.of(first), Summary.of(second))
    low, high = estimate.interval()
    needed = _needed(question)
    found = with_p(replace(found, low=low, high=high), estimate, 0.0, needed, needed > 0)
    return sized(found, 0.0)


def spread(table: SeedTable, question: Question) -> Finding:
    """Standard deviation over seeds of `against` over that of `of`: above 1 where `of` varies less.

    The F test of two variances, which holds for what is normally distributed.
    """
    of, against = _groups(table, question)
    needed = _needed(question)
    df = len(against) - 1, len(of) - 1
    if min(df) < 1 or np.ptp(of) == 0 or np.ptp(against) == 0:
        raise NotThere("a spread takes two seeds or more, which differ")
    variance = float(np.var(against, ddof=1) / np.var(of, ddof=1))
    low, high = (math.sqrt(variance / float(stats.f.ppf(tail, *df))) for tail in (0.975, 0.025))
    beyond, short = (stats.f.sf, stats.f.cdf) if needed > 1 else (stats.f.cdf, stats.f.sf)
    found = Finding(
        id=question.id,
        says=question.says or f"standard deviation over seeds of {question.words()}",
        test="F test of two variances",
        unit="x",
        value=math.sqrt(variance),
        n=min(df) + 1,
        low=low,
        high=high,
        claimed=question.claimed,
        p_supports=min(1.0, 2 * float(beyond(variance, *df))),
        p_refutes=min(1.0, 2 * float(short(variance / needed**2, *df))),
        beside=question.beside,
    )
    return sized(found, 1.0)


def equivalence(table: SeedTable, question: Question) -> Finding:
    """No effect beyond the margin. Of several pairs of levels, or cells, each has to show it."""
    margin = question.margin
    assert margin is not None
    is_log = question.of_ratio
    reach = math.log(margin) if is_log else margin
    test = f"two one-sided t tests, margin {f'{margin:g}x' if is_log else f'+-{margin:g}'}"

    def answer(one: Question, values: np.ndarray) -> Finding:
        return equivalent(one, one.says or one.words(), values, reach, test, is_log)

    if question.factor:
        levels = question.of.get(question.factor) or table.levels(question.factor)
        pairs = combinations(levels, 2)
        asked = [
            replace(question, of={question.factor: [a]}, against={question.factor: [b]}, says="")
            for a, b in pairs
        ]
    elif question.against is None and not question.against_metric:
        cells = table.cells(question.of, question.at)
        asked = [replace(question, of=_exactly(cell), at={}) for cell in cells]
        return least_shown(
            [answer(one, np.array([*table.by_seed(one.metric, one.of).values()])) for one in asked]
        )
    else:
        asked = [question]
    compared = _ratios if is_log else _differences
    return least_shown([answer(one, compared(table, one)) for one in asked])


def best(table: SeedTable, question: Question) -> Finding:
    """One level's improvement, or gain, over each other one; one that beats it refutes."""
    compared, is_log = (_gains, False) if question.linear else (_ratios, True)
    found: list[Finding] = []
    for level in table.levels(question.factor):
        if level != question.level:
            one = replace(
                question,
                of={question.factor: [question.level]},
                against={question.factor: [level]},
                above=0.0,
                says="",
            )
            found.append(over_seeds(one, compared(table, one), _PAIRED, 0.0, 0.0, is_log))
    return least_shown(found)


def _needed(question: Question) -> float:
    assert question.needed is not None  # as `question` has checked
    return question.needed


def _ratios(table: SeedTable, question: Question) -> np.ndarray:
    """(n,) of logarithms."""
    values = log_improvement(table, question, question.at)
    if question.than is None and not question.than_metric:
        return common(values)[0]
    than = question.at if question.than is None else question.than
    first, second = common(values, log_improvement(table, question, than, question.than_metric))
    return first - second


def _differences(table: SeedTable, question: Question) -> np.ndarray:
    """(n,) of `of` less `against`, with `than` less the same there."""

    def at(where: Selection, metric: str) -> dict[int, float]:
        of = table.by_seed(metric, question.of, where)
        against = table.by_seed(
            question.against_metric or metric, question.against or question.of, where
        )
        return {seed: of[seed] - against[seed] for seed in of if seed in against}

    values = at(question.at, question.metric)
    if question.than is None and not question.than_metric:
        return common(values)[0]
    than = question.at if question.than is None else question.than
    first, second = common(values, at(than, question.than_metric or question.metric))
    return first - second


def _gains(table: SeedTable, question: Question) -> np.ndarray:
    """`_differences`, above 0 where `of` is better."""
    values = _differences(table, question)
    return -values if improves_downwards(question) else values


def _groups(table: SeedTable, question: Question) -> tuple[np.ndarray, np.ndarray]:
    """(n,) of `of`, (m,) of `against`."""
    of = table.by_seed(question.metric, question.of, question.at)
    against = table.by_seed(
        question.against_metric or question.metric, question.against or question.of, question.at
    )
    return np.array([*of.values()]), np.array([*against.values()])


def _exactly(cell: Mapping[str, str]) -> Selection:
    return {factor: [level] for factor, level in cell.items()}
