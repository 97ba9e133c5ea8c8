import numpy as np
import pytest
from tests.deploy.soak.memory_trend import trend_of


def wandering(seed: int, samples: int = 3600) -> np.ndarray:
    """What a process's memory does: a value that is held for a while, then another one."""
    random = np.random.default_rng(seed)
    return 200 + np.repeat(random.normal(0, 2, samples // 60), 60)


def test_a_line_is_found_as_it_is():
    seconds = np.arange(3600.0)
    found = trend_of(list(seconds), list(100 + 8 * seconds / 3600))
    assert found.slope == pytest.approx(8)
    assert found.growth_mib == pytest.approx(8, rel=1e-3)
    assert found.low == pytest.approx(8, rel=1e-6)


def test_a_leak_shows_beneath_what_wanders_and_nothing_shows_where_there_is_none():
    seconds = list(np.arange(3600.0))
    leaks = [trend_of(seconds, list(wandering(s) + np.linspace(0, 8, 3600))) for s in range(40)]
    flat = [trend_of(seconds, list(wandering(s))) for s in range(40)]
    assert all(trend.low > 0 for trend in leaks)
    # 95 % of intervals hold the truth: 8 and more of 40 beside it come once in 3000 times.
    assert sum(not trend.low <= 0 <= trend.high for trend in flat) < 8
