import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, bootstrap

from loopdit.eval.statistics.paired import (
    discordant,
    mcnemar_exact,
    mcnemar_p_value,
    paired_bootstrap,
)

pair_lists = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


def columns(pairs: list[tuple[bool, bool]]) -> tuple[list[bool], list[bool]]:
    return [a for a, _ in pairs], [b for _, b in pairs]


@given(pair_lists)
def test_mcnemar_is_a_sign_test_of_the_discordant_pairs(pairs: list[tuple[bool, bool]]):
    unlike = [b for a, b in pairs if a != b]
    p_value = mcnemar_exact(*columns(pairs))
    if unlike:
        assert p_value == pytest.approx(binomtest(sum(unlike), len(unlike)).pvalue, rel=1e-9)
    else:
        assert p_value == 1


@given(pair_lists)
def test_mcnemar_asks_about_neither_side_in_particular(pairs: list[tuple[bool, bool]]):
    a, b = columns(pairs)
    assert mcnemar_exact(a, b) == mcnemar_exact(b, a)
    assert discordant(a, b) == discordant(b, a)[::-1]


@pytest.mark.parametrize(("only_a", "only_b", "p_value"), [(0, 5, 2 / 32), (1, 7, 2 * 9 / 256)])
def test_mcnemar_by_hand(only_a: int, only_b: int, p_value: float):
    assert mcnemar_p_value(only_a, only_b) == pytest.approx(p_value, rel=1e-12)


@pytest.mark.parametrize("unlike", [6, 17, 50])
def test_mcnemar_finds_what_is_not_there_in_at_most_5_of_100_runs(unlike: int):
    # Whatever the number of discordant pairs, so for any mixture of them, too.
    rejected = [mcnemar_p_value(unlike - k, k) <= 0.05 for k in range(unlike + 1)]
    assert 0 < binom.pmf(np.arange(unlike + 1), unlike, 0.5) @ rejected <= 0.05


def test_bootstrap_agrees_with_scipys_on_outcomes_and_on_times():
    rng = np.random.default_rng(3)
    outcomes = rng.random(80) < 0.5, rng.random(80) < 0.7
    times = rng.gamma(4, 1, 60), rng.gamma(5, 1, 60)
    for a, b in (outcomes, times):
        ours = paired_bootstrap(a, b, seed=1)
        d = (b.astype(float) - a.astype(float),)
        theirs = bootstrap(d, np.mean, n_resamples=10_000, method="percentile", rng=2)
        interval = theirs.confidence_interval
        assert ours.value == pytest.approx(b.mean() - a.mean())
        # Two bootstraps of 10,000 differ by about 2 % of the interval's width.
        width = interval.high - interval.low
        assert [ours.low, ours.high] == pytest.approx([*interval], abs=0.08 * width)


def test_pairing_narrows_the_interval_where_hard_seeds_are_hard_for_both():
    rng = np.random.default_rng(0)
    difficulty = rng.normal(size=200)
    a = 10 + difficulty + 0.1 * rng.normal(size=200)
    b = 10.5 + difficulty + 0.1 * rng.normal(size=200)
    paired, shuffled = paired_bootstrap(a, b), paired_bootstrap(a, rng.permutation(b))
    assert 0.45 < paired.low < paired.value < paired.high < 0.55
    assert shuffled.high - shuffled.low > 5 * (paired.high - paired.low)


@given(pair_lists, st.integers(0, 2**32))
def test_bootstrap_is_the_same_again_in_any_order_and_mirrored(
    pairs: list[tuple[bool, bool]], seed: int
):
    a, b = columns(pairs)
    found = paired_bootstrap(a, b, seed, resamples=200)
    assert paired_bootstrap(a, b, seed, resamples=200) == found
    assert paired_bootstrap(a[::-1], b[::-1], seed, resamples=200) == found
    assert -1 <= found.low <= found.high <= 1
    assert found.value == pytest.approx(np.mean(b) - np.mean(a))


def test_what_cannot_be_paired_is_refused():
    with pytest.raises(ValueError, match="one length"):
        mcnemar_exact([True], [True, False])
    with pytest.raises(ValueError, match="at least one pair"):
        paired_bootstrap([], [])
    with pytest.raises(ValueError, match="finite"):
        paired_bootstrap([1.0, float("nan")], [1.0, 2.0])
