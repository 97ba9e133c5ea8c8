"""What a question's answer is: a value with its interval, and two p values.

    p_supports   of "the claim is wrong": small when the claim is shown
    p_refutes    of "the claim is right": small when it is shown not to be

For a claim of an effect the first is of "there is none", the second of "it is as large as needed";
for a claim of no effect the first is the equivalence test's, the second of "it lies within the
margin". With too few seeds both are large. They are two-sided, but for the equivalence test's.
"""

import math
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from loopdit.eval.experiments.analysis.question import Question
from loopdit.eval.statistics.t_power import one_sample_n, one_sample_power
from loopdit.eval.statistics.t_test import one_sample

POWER = 0.8


@dataclass(frozen=True)
class Finding:
    """The answer to one question.

    value, low, high: in `unit` ("x" for ratios, else the metric's); the interval is of 95 %, and
    None where one seed has none. n: seeds. size: how the value compares with the paper's number,
    "as claimed" where the interval holds it. power: the chance to show the effect that is needed,
    with as many seeds; seeds_needed: those that make it 80 %.
    """

    id: str
    says: str
    test: str
    unit: str
    value: float
    n: int
    low: float | None = None
    high: float | None = None
    claimed: float | None = None
    p_supports: float | None = None
    p_refutes: float | None = None
    size: str = ""
    power: float | None = None
    seeds_needed: int | None = None
    note: str = ""
    beside: bool = False


class Evidence(Protocol):
    """What a mean over seeds shows: `Estimate`, or `Same`."""

    def interval(self, level: float = 0.95) -> tuple[float, float]: ...  # noqa: D102
    def p_above(self, bound: float) -> float: ...  # noqa: D102
    def p_below(self, bound: float) -> float: ...  # noqa: D102
    def p_within(self, low: float, high: float) -> float: ...  # noqa: D102
    def p_outside(self, low: float, high: float) -> float: ...  # noqa: D102


@dataclass(frozen=True)
class Same:
    """All n seeds gave one value, so that no t test can be made: the sign test remains. Were the
    median seed beyond a bound, as many would lie on this side of it with chance 1/2^n."""

    value: float
    n: int

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Without a width."""
        return self.value, self.value

    def p_above(self, bound: float) -> float:
        """One-sided p value of "the median is at most `bound`"."""
        return 0.5**self.n if self.value > bound else 1.0

    def p_below(self, bound: float) -> float:
        """One-sided p value of "the median is at least `bound`"."""
        return 0.5**self.n if self.value < bound else 1.0

    def p_within(self, low: float, high: float) -> float:
        """Of "the median is outside (low, high)"."""
        return max(self.p_above(low), self.p_below(high))

    def p_outside(self, low: float, high: float) -> float:
        """Of "the median is within [low, high]"."""
        return min(1.0, 2 * min(self.p_below(low), self.p_above(high)))


def evidence_of(values: np.ndarray) -> Evidence | None:
    """Of one number a seed (n,); None of one seed alone."""
    if len(values) < 2:
        return None
    if np.ptp(values) <= 1e-12 * np.max(np.abs(values)):
        return Same(float(values[0]), len(values))
    return one_sample(values)


def over_seeds(
    question: Question,
    values: np.ndarray,
    test: str,
    null: float,
    needed: float,
    is_log: bool = False,
) -> Finding:
    """A claim that the mean of `values` (n,) lies beyond `null`, by as much as `needed`. Of
    logarithms the finding is of the ratio. `needed` may be `null` itself: then its sign is that of
    `rises_of`."""
    found = _shown(question, values, test, "x" if is_log else "", is_log)
    evidence = evidence_of(values)
    if evidence is None:
        return replace(found, note="one seed has no interval and no test")
    found = with_p(found, evidence, null, needed, rises_of(question, null, needed))
    found = sized(found, 1.0 if is_log else null)
    return found if isinstance(evidence, Same) else with_power(found, values, needed - null)


def equivalent(
    question: Question, says: str, values: np.ndarray, reach: float, test: str, is_log: bool
) -> Finding:
    """A claim that the mean of `values` (n,) lies within +-`reach`."""
    found = _shown(question, values, test, "x" if is_log else "", is_log)
    found = replace(found, says=says)
    evidence = evidence_of(values)
    if evidence is None:
        return replace(found, note="one seed has no interval and no test")
    return replace(
        found,
        p_supports=evidence.p_within(-reach, reach),
        p_refutes=evidence.p_outside(-reach, reach),
    )


def rises_of(question: Question, null: float, needed: float) -> bool:
    """Whether the claim is of something above `null`."""
    return question.above is not None if needed == null else needed > null


def with_p(found: Finding, evidence: Evidence, null: float, needed: float, rises: bool) -> Finding:
    """With both p values of a claim of an effect."""
    beyond, short = (
        (evidence.p_above(null), evidence.p_below(needed))
        if rises
        else (evidence.p_below(null), evidence.p_above(needed))
    )
    return replace(found, p_supports=min(1.0, 2 * beyond), p_refutes=min(1.0, 2 * short))


def sized(found: Finding, null: float) -> Finding:
    """With `size`, where the paper has a number and there is an interval."""
    claimed, low, high = found.claimed, found.low, found.high
    if claimed is None or low is None or high is None:
        return found
    if low <= claimed <= high:
        return replace(found, size="as claimed")
    if (found.value - null) * (claimed - null) < 0:
        return replace(found, size="the other way")
    return replace(found, size="smaller" if (high < claimed) == (claimed > null) else "larger")


def with_power(found: Finding, values: np.ndarray, effect: float) -> Finding:
    """With the power of a t test over seeds that vary as `values` (n,) do, for this effect."""
    if effect == 0:
        return found
    d = abs(effect) / float(np.std(values, ddof=1))
    try:
        needed = one_sample_n(d, POWER)
    except ValueError:  # so small an effect that a million seeds would not show it
        needed = None
    return replace(found, power=one_sample_power(d, len(values)), seeds_needed=needed)


def least_shown(found: list[Finding]) -> Finding:
    """Of answers that all have to be shown: the one with the largest p_supports. Any of them
    refutes, with the smallest p times their number."""
    untested = next((one for one in found if one.p_supports is None), None)
    if untested is not None:
        return untested
    least = max(found, key=lambda one: one.p_supports or 0.0)
    if len(found) == 1:
        return least
    p_refutes = min(1.0, len(found) * min(one.p_refutes or 0.0 for one in found))
    return replace(least, p_refutes=p_refutes, note=f"the least shown of {len(found)}")


def _shown(question: Question, values: np.ndarray, test: str, unit: str, is_log: bool) -> Finding:
    """The value and its interval."""
    evidence = evidence_of(values)
    bounds = None if evidence is None else evidence.interval()
    value = float(values.mean())
    test = "sign test, as all seeds gave one value" if isinstance(evidence, Same) else test
    if is_log:
        value = math.exp(value)
        bounds = bounds and (math.exp(bounds[0]), math.exp(bounds[1]))
    return Finding(
        id=question.id,
        says=question.says or question.words(),
        test=f"{test}, of logarithms" if is_log else test,
        unit=unit,
        value=value,
        n=len(values),
        low=bounds and bounds[0],
        high=bounds and bounds[1],
        claimed=question.claimed,
        beside=question.beside,
    )
