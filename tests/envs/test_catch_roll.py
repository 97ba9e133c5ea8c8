from collections import deque

import numpy as np
import pytest

from loopdit.envs.arm_env import ArmEnv
from loopdit.envs.registry import make_env


@pytest.fixture(scope="module")
def env():
    env = make_env("catch-roll", image_size=16)
    env.observing = False
    yield env
    env.close()


def finish(env: ArmEnv, delay: int = 0) -> bool:
    """Play the expert to the end, each action `delay` control steps after it was chosen."""
    expert = env.expert()
    late = deque([env.idle(None)] * delay)
    terminated = truncated = False
    while not (terminated or truncated):
        late.append(expert.action())
        _, _, terminated, truncated, _ = env.step(late.popleft())
    return terminated


def caught(env: ArmEnv, seeds: int, delay: int) -> int:
    total = 0
    for seed in range(seeds):
        env.reset(seed=seed)
        total += finish(env, delay)
    return total


def test_the_expert_catches_the_ball_from_forty_starts(env: ArmEnv):
    assert caught(env, seeds=40, delay=0) >= 39


def test_a_delay_of_two_control_steps_loses_the_ball(env: ArmEnv):
    assert caught(env, seeds=20, delay=2) <= 4


def test_left_alone_the_ball_rolls_on_at_its_speed_through_the_workspace(env: ArmEnv):
    for seed in range(10):
        env.reset(seed=seed)
        speed = np.linalg.norm(env.arm.data.joint("ball").qvel[:2])
        start = env.arm.body_position("ball")
        assert 0.24 < abs(start[1]) < 0.31
        for _ in range(20):
            env.step(env.idle(None))
        after = np.linalg.norm(env.arm.data.joint("ball").qvel[:2])
        assert 0.095 < speed < 0.225
        assert after == pytest.approx(speed, rel=0.05)
        travelled = np.linalg.norm(env.arm.body_position("ball") - start)
        assert travelled == pytest.approx(2.0 * speed, rel=0.05)


def test_it_comes_from_both_sides(env: ArmEnv):
    sides = set[float]()
    for seed in range(20):
        env.reset(seed=seed)
        sides.add(float(np.sign(env.arm.body_position("ball")[1])))
    assert sides == {-1.0, 1.0}


def test_the_expert_recovers_from_a_kick(env: ArmEnv):
    recovered = 0
    for seed in range(15):
        env.reset(seed=seed)
        rng = np.random.default_rng(seed)
        expert = env.expert()
        for _ in range(int(rng.integers(3, 12))):
            env.step(expert.action())
        kick = np.array([*rng.uniform(-0.03, 0.03, 3), 0, 0, 0.2, rng.integers(0, 2)])
        for _ in range(2):
            env.step(kick.astype(np.float32))
        recovered += finish(env)
    assert recovered >= 12


def test_the_expert_is_memoryless(env: ArmEnv):
    env.reset(seed=1)
    expert = env.expert()
    for _ in range(12):
        action = expert.action()
        np.testing.assert_array_equal(action, env.expert().action())
        env.step(action)


def test_the_expert_stays_within_the_action_limits(env: ArmEnv):
    env.reset(seed=2)
    expert = env.expert()
    for _ in range(12):
        action = expert.action()
        assert env.action_space.contains(action)
        env.step(action)


def test_a_ball_in_the_air_that_nobody_holds_is_not_caught(env: ArmEnv):
    env.reset(seed=0)
    assert not env.task.achieved(env.arm)
    env.arm.place("ball", np.array([0.35, 0.1, 0.2]), 0.0)
    env.arm.settle(0.004)
    assert not env.task.achieved(env.arm)


def test_a_ball_that_is_let_pass_is_lost(env: ArmEnv):
    env.reset(seed=0)
    steps = 0
    terminated = truncated = False
    while not (terminated or truncated):
        _, _, terminated, truncated, info = env.step(env.idle(None))
        steps += 1
        assert info["stage"] == "start"
    assert truncated
    assert steps == env.max_steps == 70


def test_the_stages_rise_to_the_goal(env: ArmEnv):
    env.reset(seed=3)
    expert = env.expert()
    order = ["start", *env.stages]
    reached = 0
    terminated = False
    while not terminated:
        *_, terminated, _, info = env.step(expert.action())
        assert order.index(info["stage"]) >= reached
        reached = order.index(info["stage"])
    assert order[reached] == "lifted"
