from collections import Counter

import pytest

from loopdit.errors import ConfigError
from loopdit.policy.training.curriculum import CurriculumConfig, loops_at


def test_the_papers_ramp_adds_a_loop_every_thousand_steps_up_to_the_most():
    config = CurriculumConfig(loops="growing")
    counts = Counter(loops_at(step, 4, config) for step in range(5000))
    assert counts == {1: 1000, 2: 1000, 3: 1000, 4: 2000}
    assert [loops_at(step, 4, config) for step in (0, 999, 1000, 2999, 3000)] == [1, 1, 2, 3, 4]


def test_without_a_curriculum_every_step_runs_all_loops():
    assert {loops_at(step, 3, CurriculumConfig()) for step in range(10)} == {3}


def test_random_loops_are_even_and_a_function_of_seed_and_step():
    config = CurriculumConfig(loops="random")
    drawn = [loops_at(step, 4, config, seed=1) for step in range(8000)]
    again = [loops_at(step, 4, config, seed=1) for step in range(8000)]
    other = [loops_at(step, 4, config, seed=2) for step in range(8000)]
    assert drawn == again
    assert drawn != other
    # 2,000 of each are expected, with a standard deviation of 39; six of those.
    assert all(abs(drawn.count(loops) - 2000) < 234 for loops in (1, 2, 3, 4))


@pytest.mark.parametrize(
    ("options", "said"), [({"loops": "ramp"}, "none, growing or random"), ({"stage": 0}, "stage=0")]
)
def test_a_curriculum_that_cannot_be_is_refused(options: dict[str, str], said: str):
    with pytest.raises(ConfigError, match=said):
        CurriculumConfig(**options)  # pyright: ignore[reportArgumentType] - that is the test
