import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopdit.errors import ConfigError
from loopdit.eval.seeds import (
    SEEDS,
    require_purpose,
    require_unseen,
    trained_envs,
    trained_seeds,
)


def test_no_seed_is_for_two_purposes_and_the_ranges_leave_no_gap():
    training, selection, test = (SEEDS[name] for name in ("training", "selection", "test"))
    assert training.stop == selection.start == 800_000
    assert selection.stop == test.start == 900_000


@given(st.sampled_from(sorted(SEEDS)), st.integers(0, 10**6), st.integers(1, 10**5))
def test_a_run_is_allowed_exactly_when_every_seed_of_it_is_for_its_purpose(
    purpose: str, first: int, count: int
):
    allowed = {"training": (0, 800_000), "selection": (800_000, 900_000), "test": (900_000, 2**31)}
    low, high = allowed[purpose]
    if low <= first and first + count <= high:
        require_purpose(first, count, purpose)
    else:
        with pytest.raises(ConfigError, match=f"must be for {purpose}"):
            require_purpose(first, count, purpose)


def test_seeds_that_were_demonstrated_are_refused_and_a_free_one_is_named():
    require_unseen(900_000, 10, [5, 899_999, 900_010], "it")
    with pytest.raises(ConfigError, match=r"seed 900003 and 1 more.*it was trained.*seed=950001"):
        require_unseen(900_000, 10, [900_003, 900_004, 950_000], "it")


def test_provenance_says_which_seeds_were_trained_on():
    collected = {"data_provenance": {"settings": {"seed": 100}}, "episodes": 3}
    assert trained_seeds(collected) == range(100, 103)
    assert trained_seeds({**collected, "data_seeds": [90, 110]}) == range(90, 111)
    assert len(trained_seeds({})) == 0


def test_what_was_demonstrated_is_known_of_one_data_set_and_of_several():
    lift, push = ({"settings": {"env": name}} for name in ("lift", "push"))
    assert trained_envs({"data_provenance": lift}) == ["lift"]
    stores = [{"provenance": lift}, {"provenance": push}, {"provenance": {}}]
    assert trained_envs({"data_provenance": {"stores": stores}}) == ["lift", "push"]
    assert trained_envs({}) == trained_envs({"data_provenance": {}}) == []
