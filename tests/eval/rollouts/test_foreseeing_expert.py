import time

import numpy as np
import pytest
from tests.eval.conftest import IMAGE_SIZE
from tests.eval.counting_env import CountingEnv

from loopdit.deploy.robot.executions import make_execution
from loopdit.envs.arm_env import ArmEnv
from loopdit.envs.registry import make_env
from loopdit.errors import ConfigError
from loopdit.eval.rollouts.delays import parse_delay
from loopdit.eval.rollouts.foreseeing_expert import ForeseeingExpert
from loopdit.eval.rollouts.rollout import Rollout, rollout

SEED = 1_000_000


@pytest.fixture(scope="module")
def env() -> ArmEnv:
    made = make_env("catch-roll", IMAGE_SIZE)
    made.observing = False
    return made


def driven(env: ArmEnv, execution: str, delay: int, seed: int = SEED, horizon: int = 2) -> Rollout:
    policy = ForeseeingExpert(env)
    action = env.policy_spec.action
    made = make_execution(execution, horizon, action, policy.committed)
    return rollout(env, policy, seed, made, parse_delay(str(delay)), (), time.perf_counter)


def test_what_is_imagined_leaves_the_world_as_it_was_to_the_bit(env: ArmEnv):
    env.reset(seed=SEED)
    before = env.state()
    action = np.array([0.02, 0.01, -0.02, 0, 0, 0.1, 0], np.float32)
    with env.imagined():
        for _ in range(3):
            env.step(action)
        inside = env.state()
    assert np.array_equal(env.state(), before)
    assert not np.array_equal(inside, before)
    for _ in range(3):
        env.step(action)
    assert np.array_equal(env.state(), inside)


def test_without_delay_what_it_foresaw_comes_true_however_many_actions_are_executed(env: ArmEnv):
    often, seldom = (driven(env, "naive", 0, horizon=horizon) for horizon in (1, 12))
    assert often.success
    assert often.state_sha256 == seldom.state_sha256


def test_a_ball_that_rolls_on_is_caught_by_who_foresees_it_and_joins_chunks_by_poses(env: ArmEnv):
    seeds = range(SEED, SEED + 4)
    caught = [
        sum(driven(env, name, 3, seed, horizon).success for seed in seeds)
        for name, horizon in (("tracked", 2), ("informed", 8), ("aligned", 8))
    ]
    assert caught == [4, 4, 0]


def test_an_environment_that_cannot_be_copied_is_refused():
    with pytest.raises(ConfigError, match=r"makes none.*policy=expert"):
        ForeseeingExpert(CountingEnv(goal=1, max_steps=1))
