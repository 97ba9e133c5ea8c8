"""gym-aloha through the wire, from the environment that `make suites SUITE=aloha` makes."""

import numpy as np
import pytest
from tests.adapters.conftest import MakeSuiteEnv
from tests.adapters.contract import check_contract, check_determinism

from loopdit.errors import ConfigError


@pytest.mark.parametrize("task", ["transfer-cube", "insertion"])
def test_a_task_keeps_the_contract(make: MakeSuiteEnv, task: str):
    env = make(f"aloha/{task}", 32)
    check_contract(env)
    assert env.policy_spec.action.shape == (14,)
    assert env.control_period_s == pytest.approx(0.02)


def test_the_same_seed_gives_the_same_states_in_two_processes(make: MakeSuiteEnv):
    check_determinism(make("aloha/transfer-cube"), make("aloha/transfer-cube"))


def test_idle_arms_stay_where_they_are(make: MakeSuiteEnv):
    env = make("aloha/transfer-cube")
    observation, _ = env.reset(seed=1)
    for _ in range(20):  # they settle under their weight
        observation, *_ = env.step(env.idle(None))
    before = observation["proprio"][:14].copy()
    for _ in range(50):
        observation, *_ = env.step(env.idle(None))
    assert np.abs(observation["proprio"][:14] - before).max() < 0.01


def test_physics_that_break_end_the_episode_and_say_so(make: MakeSuiteEnv):
    env = make("aloha/transfer-cube")
    rng = np.random.default_rng(5)
    spec = env.policy_spec.action
    _, info = env.reset(seed=5)
    steps, terminated = 0, False
    while not info["unstable"] and steps < 100:  # full swings of both arms, 50 a second
        _, _, terminated, _, info = env.step(rng.uniform(spec.low, spec.high))
        steps += 1
    assert info["unstable"]
    assert not info["success"]
    assert not terminated
    env.reset(seed=5)
    assert not env.step(env.idle(None))[4]["unstable"]


def test_a_suite_without_an_expert_says_so(make: MakeSuiteEnv):
    env = make("aloha/transfer-cube")
    env.reset(seed=0)
    with pytest.raises(ConfigError, match="env=aloha/transfer-cube has no scripted expert"):
        env.expert()
