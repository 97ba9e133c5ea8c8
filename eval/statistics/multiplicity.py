"""Many comparisons at once: p values that keep the chance of even one false finding.

Holm's step-down: of m p values in rising order the first counts m times, the second m - 1 times,
and so on, none less than the one before it. It needs no independence and finds whatever
Bonferroni's finds.
"""

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values in the order given, each at least its own and at most 1: those at or below
    alpha are findings, of which with probability 1 - alpha none is false.

    Raises ValueError for what is no p value.
    """
    for p in p_values:
        if not 0 <= p <= 1:
            raise ValueError(f"{p} is not a p value: it must be from 0 to 1.")
    count = len(p_values)
    adjusted = [0.0] * count
    largest = 0.0
    for rank, index in enumerate(sorted(range(count), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (count - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
