import json

import pytest

from loopdit.errors import ConfigError
from loopdit.eval.rollouts.condition import Condition


def test_a_condition_comes_back_from_json():
    condition = Condition(2, 10, delay="uniform:1-3", execution="naive", rate_hz=5.0, fault="black")
    assert Condition.from_dict(json.loads(json.dumps(condition.to_dict()))) == condition


def test_the_text_names_the_depth_and_what_is_not_as_usual():
    assert Condition(loops=0, steps=0).text == "as it comes"
    assert Condition(loops=3, steps=10).text == "K=3, 10 steps"
    assert Condition(2, 0, delay="2", execution="naive", execute_horizon=4, rate_hz=20).text == (
        "K=2, delay 2, naive, executing 4, 20 Hz"
    )
    assert Condition(0, 0, variation="light", fault="frozen:front").text == (
        "light, fault frozen:front"
    )


@pytest.mark.parametrize("wrong", [{"execute_horizon": 0}, {"rate_hz": -1.0}, {"loops": -1}])
def test_numbers_below_what_they_can_be_are_refused(wrong: dict[str, float]):
    settings: dict[str, float] = {"loops": 1, "steps": 0, **wrong}
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))}=.* must be at least"):
        Condition(**settings)  # pyright: ignore[reportArgumentType] - the numbers are of mixed kinds
