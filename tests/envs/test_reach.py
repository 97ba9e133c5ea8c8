import numpy as np
import pytest

from loopdit.envs.arm_env import ArmEnv
from loopdit.envs.registry import make_env


@pytest.fixture(scope="module")
def env():
    env = make_env("reach", image_size=16)
    env.observing = False
    yield env
    env.close()


def finish(env: ArmEnv) -> bool:
    expert = env.expert()
    terminated = truncated = False
    while not (terminated or truncated):
        _, _, terminated, truncated, _ = env.step(expert.action())
    return terminated


def test_the_expert_touches_the_marker_from_forty_starts_and_after_a_kick(env: ArmEnv):
    touched = 0
    for seed in range(40):
        env.reset(seed=seed)
        rng = np.random.default_rng(seed)
        kick = np.array([*rng.uniform(-0.03, 0.03, 3), 0, 0, 0.2, 0])
        for _ in range(4 * (seed % 2)):
            env.step(kick)
        touched += finish(env)
    assert touched == 40


def test_the_expert_is_memoryless_and_stays_within_the_action_limits(env: ArmEnv):
    env.reset(seed=1)
    expert = env.expert()
    terminated = False
    while not terminated:
        action = expert.action()
        np.testing.assert_array_equal(action, env.expert().action())
        assert env.action_space.contains(action)
        *_, terminated, _, _ = env.step(action)


def test_random_actions_do_not_touch_the_marker(env: ArmEnv):
    """A criterion that chance meets would measure nothing."""
    touched = 0
    env.action_space.seed(0)
    for seed in range(50):
        env.reset(seed=seed)
        terminated = truncated = False
        while not (terminated or truncated):
            *_, terminated, truncated, _ = env.step(env.action_space.sample())
        touched += terminated
    assert touched <= 1


def test_the_marker_starts_away_from_the_gripper_and_passing_through_it_is_no_success(env: ArmEnv):
    for seed in range(100):
        env.reset(seed=seed)
        distance = np.linalg.norm(env.arm.position - env.arm.body_position("goal"))
        assert distance > 0.09
    way = env.arm.body_position("goal") - env.arm.reference_position
    step = 0.03 * way / np.linalg.norm(way)
    touched = terminated = False
    for _ in range(round(float(np.linalg.norm(way)) / 0.03) + 4):
        *_, terminated, _, info = env.step(np.array([*step, 0, 0, 0, 1.0]))
        touched = touched or info["stage"] == "touched"
    assert touched
    assert not terminated


def test_an_attempt_goes_through_all_stages_in_order(env: ArmEnv):
    env.reset(seed=4)
    expert = env.expert()
    reached = ["start"]
    terminated = False
    while not terminated:
        *_, terminated, _, info = env.step(expert.action())
        if info["stage"] != reached[-1]:
            reached.append(info["stage"])
    assert reached == ["start", *env.stages]
