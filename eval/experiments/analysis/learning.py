"""Whether anything was learned: arms against who says the same whatever it is shown.

A comparison of models none of which beats the constant predictor, or chance, compares noise. So an
experiment names what has to be beaten (`learned`), and where no cell is shown to beat it by more
than `_LEAST`, seed by seed, nothing is said of the claim. A one-sided t test of the logarithm of
the ratio, or of the metric itself where what has to be beaten is a number; its p value times the
number of cells, as any of them will do.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from loopdit.eval.experiments.analysis.finding import evidence_of
from loopdit.eval.experiments.analysis.question import selection_text
from loopdit.eval.experiments.analysis.seed_table import NotThere, SeedTable, common
from loopdit.eval.experiments.experiment import HIGHER, Cell, Learned

_LEAST = 1.05  # times better than chance; less is no ability, however sure it is
_ALPHA = 0.05


@dataclass(frozen=True)
class BestArm:
    """The arm that is surest to beat chance: `value` is how many times better it is, or its metric
    where a number is to be beaten; p, corrected, of "no arm does"; None of one seed."""

    learned: Learned
    cell: Cell
    value: float
    p: float | None

    @property
    def has_learned(self) -> bool:
        """Whether it is shown."""
        return self.p is not None and self.p <= _ALPHA

    @property
    def seems_learned(self) -> bool:
        """Whether its mean beats chance, whatever the seeds show."""
        bound = _LEAST if self.learned.above is None else self.learned.above
        return self.value > bound

    def text(self) -> str:
        """ "total_loss is 0.98 times as good as constant_loss at best (loops=4)"."""
        where = selection_text({factor: [level] for factor, level in self.cell.items()})
        at = f"at best ({where})" if where else "at best"
        if self.learned.above is not None:
            return f"{self.learned.metric} is {self.value:.3g} {at}, of {self.learned.above:g}"
        against = f"times as good as {self.learned.chance}"
        return f"{self.learned.metric} is {self.value:.3g} {against} {at}"


def unlearned(table: SeedTable) -> BestArm | None:
    """Of the first of the experiment's `learned` that no arm is shown to beat, the best arm; None
    where all are beaten, or no arm has the seeds to tell."""
    for learned in table.experiment.learned:
        best = _best_arm(table, learned)
        if best is not None and best.p is not None and not best.has_learned:
            return best
    return None


def _best_arm(table: SeedTable, learned: Learned) -> BestArm | None:
    """None where no cell has results."""
    arms: list[BestArm] = []
    for cell in table.cells():
        try:
            arms.append(_arm(table, learned, cell))
        except NotThere:
            continue
    if not arms:
        return None
    best = min(arms, key=lambda arm: (2.0 if arm.p is None else arm.p, -arm.value))
    return best if best.p is None else replace(best, p=min(1.0, len(arms) * best.p))


def _arm(table: SeedTable, learned: Learned, cell: Cell) -> BestArm:
    """With its own p value."""
    where = {factor: [level] for factor, level in cell.items()}
    if learned.above is not None:
        values = np.array([*table.by_seed(learned.metric, where).values()])
        return BestArm(learned, cell, float(values.mean()), _p_above(values, learned.above))
    own, chance = (
        table.by_seed(name, where, log=True) for name in (learned.metric, learned.chance)
    )
    first, second = common(own, chance)
    gains = first - second if learned.better == HIGHER else second - first
    return BestArm(learned, cell, math.exp(gains.mean()), _p_above(gains, math.log(_LEAST)))


def _p_above(values: np.ndarray, bound: float) -> float | None:
    """One-sided, of values (n,), one a seed."""
    evidence = evidence_of(values)
    return None if evidence is None else evidence.p_above(bound)
