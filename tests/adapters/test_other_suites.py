"""Gymnasium's runners, gymnasium-robotics and dm_control, each wherever its package is."""

import numpy as np
import pytest
from tests.adapters.conftest import MakeSuiteEnv
from tests.adapters.contract import check_contract, check_determinism

RUNNERS = {
    "Ant-v5": (105, 8),
    "HalfCheetah-v5": (17, 6),
    "Walker2d-v5": (17, 6),
    "Hopper-v5": (11, 3),
    "Swimmer-v5": (8, 2),
}


@pytest.mark.parametrize("task", RUNNERS)
def test_a_runner_has_the_suites_observation_and_is_deterministic(make: MakeSuiteEnv, task: str):
    env = make(f"gymnasium/{task}")
    check_contract(env)
    sizes = (env.policy_spec.proprio.shape[0], env.policy_spec.action.shape[0])
    assert sizes == RUNNERS[task]
    assert env.policy_spec.cameras == ()
    check_determinism(env, make(f"gymnasium/{task}"))


def test_a_fall_ends_a_run_without_success(make: MakeSuiteEnv):
    env = make("gymnasium/Hopper-v5")
    _, info = env.reset(seed=0)
    truncated, steps = False, 0
    while not truncated:
        _, _, terminated, truncated, info = env.step(env.idle(None))
        steps += 1
        assert not terminated
    assert steps < env.max_steps
    assert not info["success"]


@pytest.mark.parametrize("task", ["FetchReach-v4", "FetchPickAndPlace-v4", "AdroitHandDoor-v1"])
def test_gymnasium_robotics(make: MakeSuiteEnv, task: str):
    env = make(f"robotics/{task}")
    check_contract(env)
    check_determinism(env, make(f"robotics/{task}"))


def test_fetch_reach_is_solved_by_going_to_the_goal_that_is_observed(make: MakeSuiteEnv):
    env = make("robotics/FetchReach-v4")
    successes = 0
    for seed in range(10):
        observation, info = env.reset(seed=seed)
        for _ in range(env.max_steps):
            proprio = observation["proprio"]
            shift = np.clip(10 * (proprio[-3:] - proprio[:3]), -1, 1)
            observation, _, terminated, _, info = env.step(np.array([*shift, 0], np.float32))
            if terminated:
                break
        successes += info["success"]
    assert successes == 10


@pytest.mark.parametrize(
    "name",
    [
        "dm_control/cartpole-swingup",
        "dm_control/ball_in_cup-catch",
        "dm_control/humanoid-run",
        "dm_manipulation/reach_site_features",
        "dm_manipulation/stack_2_bricks_features",
    ],
)
def test_dm_control(make: MakeSuiteEnv, name: str):
    env = make(name)
    check_contract(env)
    check_determinism(env, make(name))


def test_frames_follow_a_model_that_is_compiled_anew_at_each_reset(make: MakeSuiteEnv):
    env = make("dm_manipulation/lift_brick_features", 32)
    camera = env.policy_spec.cameras[0].name
    frames = [env.reset(seed=seed)[0][camera].copy() for seed in (1, 2, 1)]
    assert (frames[0] == frames[2]).all()
    assert (frames[0] != frames[1]).any()
