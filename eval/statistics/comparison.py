"""Two rows of results compared, and what may be said about them in one sentence.

Which rollouts make a pair says `seed_pairs`. It is the caller's part that the rows are about the
same thing: pairs of different environments mean nothing. Rates are from 0 to 1, differences B - A.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from loopdit.eval.reporting.table import percent
from loopdit.eval.statistics.multiplicity import holm
from loopdit.eval.statistics.paired import Difference, discordant, mcnemar_p_value, paired_bootstrap
from loopdit.eval.statistics.planning import (
    detectable_difference,
    found_by_e_process,
    found_by_mcnemar,
)
from loopdit.eval.statistics.seed_pairs import LeftOut, Row, SeedPairs, pair_by_seed, row_name
from loopdit.eval.statistics.sequential import PairedEProcess
from loopdit.eval.statistics.success import clopper_pearson_interval

ALPHA = 0.05
_POWER = 0.8


@dataclass(frozen=True)
class Comparison:
    """B against A on the seeds that both have.

    `seconds` compares the time to success, on seeds where both succeed. `p_adjusted` is `p_value`
    corrected for `comparisons` of them. `sequential` says that the number of pairs was not fixed
    beforehand: then p values mean nothing, and `e_peak`, the highest e-value on the way, decides.
    """

    a: str
    b: str
    pairs: int
    successes_a: int
    successes_b: int
    only_a: int
    only_b: int
    difference: Difference
    seconds: Difference | None
    p_value: float
    p_adjusted: float
    comparisons: int
    e_value: float
    e_peak: float
    sequential: bool
    left_out_a: LeftOut
    left_out_b: LeftOut

    @property
    def rate_a(self) -> float:
        """Success rate of A on the pairs."""
        return self.successes_a / self.pairs

    @property
    def rate_b(self) -> float:
        """Success rate of B on the pairs."""
        return self.successes_b / self.pairs

    @property
    def shown(self) -> bool:
        """Whether a difference is shown at 5 %, corrected for all comparisons: p values by Holm,
        e-values by Bonferroni."""
        if self.sequential:
            return self.e_peak >= self.comparisons / ALPHA
        return self.p_adjusted <= ALPHA

    @property
    def detectable(self) -> float | None:
        """The difference that this test with as many pairs would find with chance 80 %, were A as
        good as here and seeds as alike; None when no difference would be."""
        found = found_by_e_process if self.sequential else found_by_mcnemar
        alpha = ALPHA / self.comparisons
        return detectable_difference(self.pairs, self.rate_a, self._rho(), alpha, found, _POWER)

    def sentence(self) -> str:
        """What is shown, or that nothing is."""
        low, high = self.difference.low, self.difference.high
        starts = f"of the same {_counted(self.pairs, 'start')}"
        if not self.shown:
            return (
                f"This run does not show a difference between {self.a} and {self.b}: "
                f"{percent(self.rate_a)} % and {percent(self.rate_b)} % {starts}, "
                f"{100 * self.difference.value:+.0f} points "
                f"(95 % interval {100 * low:+.0f} to {100 * high:+.0f}), {self._test()}; "
                f"{self._would_have_shown()}."
            )
        b_better = self.only_b > self.only_a
        better, worse = (self.b, self.a) if b_better else (self.a, self.b)
        rates = (self.rate_b, self.rate_a) if b_better else (self.rate_a, self.rate_b)
        low, high = (low, high) if b_better else (-high, -low)
        return (
            f"{better} succeeds more often than {worse}: {percent(rates[0])} % against "
            f"{percent(rates[1])} % {starts}, {100 * (rates[0] - rates[1]):.0f} points more "
            f"(95 % interval {100 * low:.0f} to {100 * high:.0f}), {self._test()}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        derived = {name: getattr(self, name) for name in ("rate_a", "rate_b", "shown")}
        return {**asdict(self), **derived, "sentence": self.sentence()}

    def _rho(self) -> float:
        """Correlation of the outcomes on one seed; 0 where a row has one outcome alone."""
        a, b = self.rate_a, self.rate_b
        spread = (a * (1 - a) * b * (1 - b)) ** 0.5
        both = (self.successes_a - self.only_a) / self.pairs
        return (both - a * b) / spread if spread else 0.0

    def _test(self) -> str:
        if self.sequential:
            return f"e-value {self.e_value:.3g}"
        p_value = p_number(self.p_value)
        test = f"McNemar p {p_value}" if p_value.startswith("<") else f"McNemar p = {p_value}"
        if self.comparisons == 1:
            return test
        return f"{test} ({p_number(self.p_adjusted)} corrected for {self.comparisons} comparisons)"

    def _would_have_shown(self) -> str:
        least = self.detectable
        if least is None:
            few = _counted(self.pairs, "pair")
            return f"with n={few} no difference, however large, could well have been found"
        return (
            f"with n={_counted(self.pairs, 'pair')} a difference of about {100 * least:.0f} points "
            f"would have been found {10 * _POWER:.0f} times in 10"
        )


def compare_rows(a: Row, b: Row, names: tuple[str, str] | None = None) -> Comparison:
    """B against A, uncorrected. `names` is what to call them; else their label and depth.

    Raises ConfigError when they have no seed in common, or none with a verdict in both.
    """
    name_a, name_b = names or (row_name(a), row_name(b))
    pairs = pair_by_seed(a, b, (name_a, name_b))
    evidence = PairedEProcess()
    for one, other in zip(pairs.success_a, pairs.success_b, strict=True):
        evidence.update(bool(one), bool(other))
    only_a, only_b = discordant(pairs.success_a, pairs.success_b)
    p_value = mcnemar_p_value(only_a, only_b)
    return Comparison(
        a=name_a,
        b=name_b,
        pairs=len(pairs.seeds),
        successes_a=int(pairs.success_a.sum()),
        successes_b=int(pairs.success_b.sum()),
        only_a=only_a,
        only_b=only_b,
        difference=success_difference(pairs.success_a, pairs.success_b),
        seconds=_seconds_difference(pairs),
        p_value=p_value,
        p_adjusted=p_value,
        comparisons=1,
        e_value=evidence.e_value,
        e_peak=evidence.e_peak,
        sequential=bool(a.get("sequential") or b.get("sequential")),
        left_out_a=pairs.left_out_a,
        left_out_b=pairs.left_out_b,
    )


def compare_family(rows: Sequence[Row], reference: Row) -> list[Comparison]:
    """Each of `rows` against `reference`, corrected for their number. Raises as `compare_rows`."""
    return corrected([compare_rows(reference, row) for row in rows])


def corrected(family: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons, as members of one family."""
    adjusted = holm([comparison.p_value for comparison in family])
    return [
        replace(comparison, p_adjusted=p_adjusted, comparisons=len(family))
        for comparison, p_adjusted in zip(family, adjusted, strict=True)
    ]


def success_difference(a: np.ndarray, b: np.ndarray) -> Difference:
    """Of success (n,), as a rate or yes and no: the bootstrap's; where all pairs fell out alike it
    has no width, and the interval is how many unlike ones could have been missed (Clopper-Pearson
    of 0 in as many) instead."""
    found = paired_bootstrap(a, b)
    if found.low < found.high:
        return found
    unseen = clopper_pearson_interval(0, len(a))[1] * (1 + abs(found.value))
    return replace(found, low=max(-1.0, found.value - unseen), high=min(1.0, found.value + unseen))


def p_number(p_value: float) -> str:
    """ "0.012", "< 0.001"."""
    return "< 0.001" if p_value < 0.001 else f"{p_value:.2g}"


def _seconds_difference(pairs: SeedPairs) -> Difference | None:
    """Of the time to success where both succeed; None where they never do or it is unknown."""
    both = pairs.success_a & pairs.success_b
    seconds_a, seconds_b = pairs.seconds_a[both], pairs.seconds_b[both]
    if not both.any() or np.isnan([seconds_a, seconds_b]).any():
        return None
    return paired_bootstrap(seconds_a, seconds_b)


def _counted(count: int, name: str) -> str:
    return f"{count} {name}" if count == 1 else f"{count} {name}s"
