"""The options as they are typed."""

import pytest

from loopdit.command import run_command
from loopdit.errors import ConfigError
from loopdit.eval.eval_config import EvalConfig
from loopdit.eval.evaluate import COMMAND
from loopdit.eval.open_env import open_env


def typed(monkeypatch: pytest.MonkeyPatch, *options: str) -> EvalConfig:
    """What the command gets of `options`."""
    got: list[EvalConfig] = []
    monkeypatch.setattr("sys.argv", ["policy-eval", *options])
    run_command(COMMAND, EvalConfig, got.append)
    (config,) = got
    return config


def test_the_contract_of_the_first_issue_is_still_understood(monkeypatch: pytest.MonkeyPatch):
    config = typed(
        monkeypatch,
        *("env=lift", "policy=expert", "loops=[1,2,3]", "episodes=100", "seed=900000"),
        *("workers=2", "steps=0", "out=DIR"),
    )
    assert (config.most_episodes, config.seed, config.workers) == (100, 900_000, 2)
    assert config.axes["loops"] == [1, 2, 3]
    assert config.axes["steps"] == [0]
    assert not config.sequential


def test_lists_of_conditions_are_read_as_what_they_are(monkeypatch: pytest.MonkeyPatch):
    config = typed(
        monkeypatch,
        *("delay=[0,2,uniform:1-3,normal:80:20,wall]", "steps=[5,10]", "rate_hz=[0,20]"),
        *(
            "fault=[none,frozen:wrist,dropped:0.2+proprio-noise:0.01]",
            "variation=[none,lights:0.5]",
        ),
        "episodes=auto",
    )
    assert config.axes["delay"] == ["0", "2", "uniform:1-3", "normal:80:20", "wall"]
    assert config.axes["steps"] == [5, 10]
    assert config.axes["rate_hz"] == [0.0, 20.0]
    assert config.axes["fault"][2] == "dropped:0.2+proprio-noise:0.01"
    assert (config.sequential, config.most_episodes) == (True, 400)
    assert list(config.axes)[-2:] == ["steps", "loops"]  # what varies fastest


@pytest.mark.parametrize("recipe", ["lift", "latency", "cameras", "variations"])
def test_every_recipe_is_one_that_can_be_run(monkeypatch: pytest.MonkeyPatch, recipe: str):
    config = typed(monkeypatch, f"recipe={recipe}")
    first = {name: values[0] for name, values in config.axes.items()}
    # What the others are compared with is the undisturbed one.
    assert (first["delay"], first["fault"], first["variation"]) == ("0", "none", "none")


def test_what_a_suite_does_not_have_is_refused():
    with pytest.raises(ConfigError, match=r"rate_hz=20.* is not there for env=metaworld/reach-v3"):
        open_env("metaworld/reach-v3", rate_hz=20.0)
    with pytest.raises(ConfigError, match="variation=lights is not there"):
        open_env("tcp://127.0.0.1:1", variation="lights")


def test_seeds_begin_where_those_of_the_purpose_do(monkeypatch: pytest.MonkeyPatch):
    assert typed(monkeypatch).first_seed == 900_000
    assert typed(monkeypatch, "purpose=selection").first_seed == 800_000
    assert typed(monkeypatch, "purpose=selection", "seed=800020").first_seed == 800_020
