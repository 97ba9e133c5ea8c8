from pathlib import Path

import numpy as np
import pytest

from loopdit.envs.suites.locomotion import Locomotion
from loopdit.errors import ConfigError
from loopdit.eval.morphology.expert import (
    GaitExpert,
    LinearExpert,
    about_expert,
    expert_file,
    load_expert,
    save_expert,
)
from loopdit.eval.morphology.recipes import RECIPES
from loopdit.eval.morphology.running import run_expert, run_random

SHIPPED = [task for task in RECIPES if expert_file(task).is_file()]


def gait() -> GaitExpert:
    return GaitExpert(
        offset=np.array([0.1, -0.2]),
        swing=np.array([0.5, 0.3]),
        phase=np.array([0.0, 1.0]),
        period_steps=12.5,
        stiffness=1.5,
        damping=0.1,
        angles=np.array([1, 0]),
        rates=np.array([3, 2]),
    )


def test_a_linear_expert_normalises_multiplies_and_saturates():
    expert = LinearExpert(np.array([[1.0, 0.0], [0.0, -3.0]]), np.ones(2), np.array([2.0, 1.0]))
    observation = np.array([2.0, 2.0, 99.0])  # it does not see the last one
    np.testing.assert_allclose(expert.action(observation, step=7), [0.5, -1.0])


def test_a_gait_pulls_each_joint_to_where_it_should_be():
    expert, step = gait(), 5
    target = expert.offset + expert.swing * np.sin(2 * np.pi * step / 12.5 + expert.phase)
    at_target = np.array([target[1], target[0], 0.0, 0.0])
    np.testing.assert_allclose(expert.action(at_target, step), [0, 0], atol=1e-6)
    behind = at_target - np.array([0, 0.2, 0, 0])
    np.testing.assert_allclose(expert.action(behind, step), [0.3, 0], atol=1e-6)
    moving = at_target + np.array([0, 0, 2.0, 0])
    np.testing.assert_allclose(expert.action(moving, step), [0, -0.2], atol=1e-6)


def test_a_gait_repeats_itself_after_its_period():
    observation = np.array([0.1, 0.2, 0.3, 0.4])
    for step in range(0, 25, 3):
        again = gait().action(observation, step + 25)  # two periods
        np.testing.assert_allclose(gait().action(observation, step), again, atol=1e-6)


def test_an_expert_is_what_its_file_says(tmp_path: Path):
    path = tmp_path / "Some-v5.json"
    kept = save_expert(gait(), path, {"seed": 3})
    loaded = load_expert(path)
    assert about_expert(path) == {"seed": 3}
    observation = np.array([0.3, 0.1, -0.5, 0.2])
    for expert in (kept, loaded):
        np.testing.assert_allclose(
            expert.action(observation, 4), gait().action(observation, 4), atol=1e-4
        )
    assert np.array_equal(kept.action(observation, 4), loaded.action(observation, 4))


def test_a_missing_expert_says_how_to_make_it(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"morphology\.experts env=gymnasium/Hopper-v5"):
        load_expert(tmp_path / "Hopper-v5.json")


def test_experts_for_four_bodies_and_swimmer_are_shipped_in_small_files():
    assert {"Swimmer-v5", "HalfCheetah-v5", "Ant-v5"} <= set(SHIPPED)
    assert {"Hopper-v5", "Walker2d-v5"} & set(SHIPPED)
    assert all(expert_file(task).stat().st_size < 100_000 for task in SHIPPED)


@pytest.mark.parametrize("task", SHIPPED)
def test_a_shipped_expert_runs_as_its_file_says(task: str):
    about = about_expert(expert_file(task))
    robot = Locomotion(task)
    expert = load_expert(expert_file(task))
    returns, chance = about["returns"], about["random_returns"]
    assert returns["episodes"] >= 20
    assert returns["mean"] > chance["mean"] + 4 * chance["sd"]
    # A start that no search has seen. Four standard deviations leave room for another processor.
    total = run_expert(robot, expert, seed=2_000_000).total
    assert abs(total - returns["mean"]) < 4 * returns["sd"] + 0.05 * abs(returns["mean"])
    assert total > run_random(robot, seed=2_000_000)
