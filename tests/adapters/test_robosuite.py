"""robosuite through the wire, from the environment that `make suites SUITE=robosuite` makes."""

import numpy as np
import pytest
from tests.adapters.conftest import MakeSuiteEnv
from tests.adapters.contract import check_contract, check_determinism, expert_successes


@pytest.mark.parametrize("image_size", [0, 32])
def test_lift_keeps_the_contract(make: MakeSuiteEnv, image_size: int):
    env = make("robosuite/lift", image_size)
    check_contract(env)
    assert env.control_period_s == pytest.approx(0.05)


def test_the_same_seed_gives_the_same_states_in_two_processes(make: MakeSuiteEnv):
    check_determinism(make("robosuite/lift"), make("robosuite/lift"))


def test_our_expert_lifts_the_cube(make: MakeSuiteEnv):
    assert expert_successes(make("robosuite/lift"), range(20)) >= 19  # 50 of 50 were measured


def test_the_expert_recovers_from_a_hand_that_was_pushed_away(make: MakeSuiteEnv):
    env = make("robosuite/lift")
    env.reset(seed=2)
    expert = env.expert()
    for _ in range(12):
        env.step(expert.action())
    for _ in range(6):
        env.step(np.array([1, 1, 0.5, 0, 0, 1, -1], np.float32))
    ended = info = None
    while not ended:
        _, _, terminated, truncated, info = env.step(expert.action())
        ended = terminated or truncated
    assert info is not None
    assert info["success"]


def test_a_shift_moves_the_gripper_along_its_axis(make: MakeSuiteEnv):
    env = make("robosuite/lift")
    observation, _ = env.reset(seed=0)
    start = observation["proprio"][:3].copy()
    for _ in range(10):
        observation, *_ = env.step(np.array([0, 0.4, 0, 0, 0, 0, -1], np.float32))
    moved = observation["proprio"][:3] - start
    assert moved[1] > 0.03  # about a fifth of what was asked: each shift starts where it is
    assert abs(moved[[0, 2]]).max() < 0.01
