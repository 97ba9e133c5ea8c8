"""Answers about more than two cells: spearman, power_law, anova2."""

from dataclasses import replace

import numpy as np

from loopdit.errors import ConfigError
from loopdit.eval.experiments.analysis.comparisons import log_improvement
from loopdit.eval.experiments.analysis.finding import Finding, over_seeds
from loopdit.eval.experiments.analysis.question import Question, Selection
from loopdit.eval.experiments.analysis.seed_table import (
    NotThere,
    SeedTable,
    common,
    numeric_levels,
)
from loopdit.eval.statistics.anova import two_way
from loopdit.eval.statistics.power_law import fit_power_law, seed_exponents
from loopdit.eval.statistics.rank_correlation import page_p, seed_correlations
from loopdit.eval.statistics.t_test import Summary


def spearman(table: SeedTable, question: Question) -> Finding:
    """The mean over seeds of the rank correlation, by Page's test; its interval by t."""
    x, y = _sequences(table, question)
    needed = question.needed
    assert needed is not None
    try:
        values = seed_correlations(x, y)
    except ValueError as error:
        raise NotThere(str(error).removesuffix(".")) from error
    says = question.says or f"order of {_of_what(question)}"
    found = over_seeds(replace(question, says=says), values, "Page's test over seeds", 0.0, needed)
    if found.p_supports is None or found.low is None or found.high is None:
        return replace(found, unit="rho")
    page = min(1.0, 2 * page_p(x, y, rising=needed > 0))
    low, high = max(-1.0, found.low), min(1.0, found.high)
    return replace(found, unit="rho", low=low, high=high, p_supports=page, power=None)


def power_law(table: SeedTable, question: Question) -> Finding:
    """The mean exponent over seeds; R^2 of the law through the seeds' geometric means."""
    levels = numeric_levels(table, question.factor)
    if len(levels) < 3:
        raise ConfigError(f"{table.experiment.name}: a power law takes three numeric levels.")
    columns = (_at_level(table, question, name) for name in levels.values())
    y = np.stack(common(*columns), axis=1)  # (S, L)
    if y.min() <= 0 or np.ptp(y) == 0:
        raise NotThere(f"no power law fits {question.metric}, from {y.min():g} to {y.max():g}")
    needed = question.needed
    assert needed is not None
    says = question.says or f"alpha of {question.metric} = a n^-alpha, n = {question.factor}"
    asked = replace(question, says=says)
    exponents = seed_exponents([*levels], y)
    found = over_seeds(asked, exponents, "t test of the seeds' exponents", 0.0, needed)
    law = fit_power_law([*levels], np.exp(np.log(y).mean(0)))
    return replace(
        found, unit="alpha", note="; ".join(filter(None, [f"R2 = {law.r2:.3f}", found.note]))
    )


def anova2(table: SeedTable, question: Question) -> Finding:
    """omega^2 of an effect; the interval is of f^2 / (1 + f^2), the share it explains at most and
    at least. `claimed` and `margin` are Cohen's f."""
    a, b = question.factors
    cells = {
        (first, second): _group(table, question, {a: [first], b: [second]})
        for first in table.levels(a)
        for second in table.levels(b)
    }
    n = min(cell.n for cell in cells.values())
    try:
        made = two_way(cells)
    except ValueError as error:  # all seeds alike
        raise NotThere(str(error).removesuffix(".")) from error
    effect = {a: made.a, b: made.b}.get(question.effect, made.interaction)
    low, high = (f2 / (1 + f2) for f2 in effect.f2_interval(0.95))
    wanted = question.margin if question.margin is not None else question.claimed
    assert wanted is not None
    is_absent = question.margin is not None
    shown, against = effect.p_above(0.0), effect.p_below(wanted**2)
    return Finding(
        question.id,
        question.says or f"{question.effect} in {a} x {b} of {question.metric}",
        f"F test ({effect.df}, {effect.df_error}), F = {effect.statistic:.3g}",
        "omega2",
        effect.omega2,
        n,
        low,
        high,
        p_supports=against if is_absent else shown,
        p_refutes=effect.p_above(wanted**2) if is_absent else against,
        beside=question.beside,
    )


def _group(table: SeedTable, question: Question, cell: dict[str, list[str]]) -> Summary:
    values = [*table.by_seed(question.metric, cell, question.at).values()]
    if len(values) < 2:
        raise NotThere("an analysis of variance takes two seeds or more in each cell")
    return Summary.of(values)


def _at_level(table: SeedTable, question: Question, name: str) -> dict[int, float]:
    return table.by_seed(question.metric, question.of, _at(question, name))


def _at(question: Question, name: str) -> Selection:
    """`at`, and a level of the factor."""
    return {**question.at, question.factor: [name]}


def _sequences(table: SeedTable, question: Question) -> tuple[list[float], np.ndarray]:
    """x (L,) and y (S, L)."""
    if question.metrics:
        columns = [
            table.by_seed(name, question.of, question.at)
            if question.against is None
            else log_improvement(table, question, question.at, name)
            for name in question.metrics
        ]
        return list(range(1, len(columns) + 1)), np.stack(common(*columns), axis=1)
    levels = numeric_levels(table, question.factor)
    rows = [
        _at_level(table, question, name)
        if question.against is None
        else log_improvement(table, question, _at(question, name))
        for name in levels.values()
    ]
    return [*levels], np.stack(common(*rows), axis=1)


def _of_what(question: Question) -> str:
    kind = "the improvement of " if question.against is not None else ""
    if question.metrics:
        return kind + ", ".join(question.metrics)
    return f"{kind}{question.metric} over {question.factor}"
