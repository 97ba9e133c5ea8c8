"""An experiment made up of one question, results of it, and what is judged of them."""

import math
from collections.abc import Callable, Mapping

import numpy as np

from loopdit.eval.experiments.analysis.verdict import Verdict, verdicts
from loopdit.eval.experiments.experiment import Experiment, read
from loopdit.eval.experiments.store import CellResult

Metrics = Callable[[Mapping[str, str], int], Mapping[str, float]]


HEAD = """
number: {number}
title: A title
claim: A claim.
choices: [One.]
study: canvas
metric: loss
better: lower
factors:
  loops: [1, 2, 3, 4]
  size: [small, large]
scales:
  smoke: {{seeds: 1}}
  cpu: {{seeds: 5}}
  paper: {{seeds: 5}}
analysis:
"""


def experiment(analysis: str, number: int | str = 1) -> Experiment:
    return read("one", HEAD.format(number=number) + analysis)


def results(of: Experiment, metrics: Metrics, seeds: int = 6) -> list[CellResult]:
    return [
        CellResult(
            experiment=of.name,
            number=of.number,
            scale="cpu",
            factors=cell,
            seed=seed,
            metrics=metrics(cell, seed),
            curve=None,
            config_hash="",
            options={},
            parameters=1,
            wall_s=1.0,
            provenance={},
        )
        for cell in of.cells()
        for seed in range(seeds)
    ]


def judged(of: Experiment, metrics: Metrics, seeds: int = 6, scale: str = "cpu") -> Verdict:
    return verdicts([(of, scale, results(of, metrics, seeds))])[0]


def noise(cell: Mapping[str, str], seed: int, size: float = 0.02) -> float:
    """A seed's own level, which pairs share, and the cell's own noise."""
    own = np.random.default_rng([seed, 0]).normal(0, 0.3)
    number = 10 * int(cell["loops"]) + (cell["size"] == "large")
    return float(own + np.random.default_rng([seed, number]).normal(0, size))


def standard(seed: int, seeds: int) -> float:
    """Of as many numbers with mean 0 and standard deviation 1."""
    numbers = np.arange(seeds) - (seeds - 1) / 2
    return float(numbers[seed] / numbers.std(ddof=1))


def improving(factor: float) -> Metrics:
    """Loss that 4 loops divide by `factor`."""

    def metrics(cell: Mapping[str, str], seed: int) -> Mapping[str, float]:
        gain = factor if cell["loops"] == "4" else 1.0
        return {"loss": math.exp(noise(cell, seed)) / gain}

    return metrics


RATIO = "  - {id: total, kind: ratio, of: {loops: 4}, against: {loops: 1}, claimed: 1.5}"


def log_ratios(of: Experiment, metrics: Metrics, seeds: int = 6) -> np.ndarray:
    """log loss of 1 loop less that of 4, mean over sizes, for each seed: the slow way."""
    loss = {
        (r.factors["loops"], r.factors["size"], r.seed): math.log(r.metrics["loss"])
        for r in results(of, metrics, seeds)
    }
    return np.array(
        [
            np.mean([loss["1", size, seed] - loss["4", size, seed] for size in ("small", "large")])
            for seed in range(seeds)
        ]
    )


def lower_by(gain: float) -> Metrics:
    """Loss that is lower by `gain` with 4 loops; `other` is what it was."""

    def metrics(cell: Mapping[str, str], seed: int) -> Mapping[str, float]:
        loss = 3 + noise(cell, seed, size=0.1)
        return {"loss": loss - gain if cell["loops"] == "4" else loss, "other": loss}

    return metrics


def column(metrics: Metrics, loops: str, name: str = "loss") -> np.ndarray:
    """(6,): the mean over sizes, by seed."""
    sizes = ("small", "large")
    return np.array(
        [
            np.mean([metrics({"loops": loops, "size": size}, seed)[name] for size in sizes])
            for seed in range(6)
        ]
    )
