import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from loopdit.eval.morphology.search import (
    CrossEntropyConfig,
    RandomSearchConfig,
    RunningStatistics,
    cross_entropy,
    random_search,
)

GOAL = np.array([0.5, -1.0, 2.0, 0.0])


def hill(parameters: np.ndarray) -> float:
    return -float(((parameters - GOAL) ** 2).sum())


def test_random_search_climbs_a_hill_to_its_top():
    config = RandomSearchConfig(updates=300, directions=8, best=4, step=0.02, noise=0.03)
    found = random_search(hill, np.zeros(4), config, np.random.default_rng(0))
    np.testing.assert_allclose(found, GOAL, atol=0.05)


def test_cross_entropy_climbs_a_hill_to_its_top():
    config = CrossEntropyConfig(updates=40, samples=40, elite=8, floor=0.01)
    found = cross_entropy(hill, np.zeros(4), np.ones(4), config, np.random.default_rng(0))
    np.testing.assert_allclose(found, GOAL, atol=0.05)


def test_random_search_goes_by_differences_and_not_by_size():
    config = RandomSearchConfig(updates=20)
    first, second = (
        random_search(score, np.zeros(4), config, np.random.default_rng(3))
        for score in (hill, lambda parameters: 1000 * hill(parameters) + 50)
    )
    np.testing.assert_allclose(first, second, atol=1e-6)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_running_statistics_are_those_of_all_values_at_once(sizes: list[int], seed: int):
    rng = np.random.default_rng(seed)
    parts = [rng.normal(5, [1, 10, 0], size=(size, 3)) for size in sizes]
    statistics = RunningStatistics(3)
    for part in parts:
        statistics.add(part)
    whole = np.concatenate(parts)
    np.testing.assert_allclose(statistics.mean, whole.mean(0))
    if len(whole) > 1:
        np.testing.assert_allclose(statistics.spread[:2], whole.std(0)[:2], rtol=1e-6)
    assert statistics.spread[2] == 1  # never varied
