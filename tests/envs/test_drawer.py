import numpy as np
import pytest

from loopdit.envs.arm_env import ArmEnv
from loopdit.envs.registry import make_env


@pytest.fixture(scope="module")
def env():
    env = make_env("drawer", image_size=16)
    env.observing = False
    yield env
    env.close()


def finish(env: ArmEnv) -> bool:
    expert = env.expert()
    terminated = truncated = False
    while not (terminated or truncated):
        _, _, terminated, truncated, _ = env.step(expert.action())
    return terminated


def test_the_expert_opens_the_drawer_from_forty_starts(env: ArmEnv):
    done = 0
    for seed in range(40):
        env.reset(seed=seed)
        done += finish(env)
    assert done == 40


def test_the_expert_recovers_from_kicks_and_an_open_gripper(env: ArmEnv):
    recovered = 0
    for seed in range(15):
        env.reset(seed=seed)
        rng = np.random.default_rng(seed)
        expert = env.expert()
        for _ in range(int(rng.integers(3, 10))):
            env.step(expert.action())
        kick = np.array([*rng.uniform(-0.03, 0.03, 3), 0, 0, 0.2, rng.integers(0, 2)])
        for _ in range(4):
            env.step(kick.astype(np.float32))
        recovered += finish(env)
    assert recovered >= 14


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
    for _ in range(10):
        action = expert.action()
        assert env.action_space.contains(action)
        env.step(action)


def test_the_stages_rise_to_the_goal(env: ArmEnv):
    env.reset(seed=3)
    expert = env.expert()
    seen = ["start"]
    terminated = False
    while not terminated:
        *_, terminated, _, info = env.step(expert.action())
        if info["stage"] != seen[-1]:
            seen.append(info["stage"])
    assert seen == ["start", *env.stages]


def test_a_drawer_pulled_half_way_is_not_open(env: ArmEnv):
    env.reset(seed=0)
    opening = env.arm.data.joint("drawer").qpos
    assert opening[0] == pytest.approx(0.0, abs=0.002)
    for out, is_open in ((0.05, False), (0.09, False), (0.12, True)):
        opening[0] = out
        assert env.task.achieved(env.arm) is is_open


def test_the_drawer_comes_out_to_the_side_of_the_cabinet_that_its_handle_is_on(env: ArmEnv):
    """Moving the cabinet at a reset moves the drawer in it, heading and all."""
    env.reset(seed=5)
    closed = env.arm.body_position("drawer")
    towards_handle = env.arm.data.geom("handle").xpos - closed
    env.arm.data.joint("drawer").qpos[0] = 0.1
    env.arm.settle(0.004)
    moved = env.arm.body_position("drawer") - closed
    assert np.linalg.norm(moved) == pytest.approx(0.1, abs=0.002)
    np.testing.assert_allclose(moved / 0.1, towards_handle / 0.075, atol=0.03)


def test_pushing_against_the_closed_drawer_does_not_open_it(env: ArmEnv):
    env.reset(seed=0)
    handle = env.arm.data.geom("handle").xpos.copy()
    for _ in range(20):
        step = handle + np.array([0.0, 0.1, 0.0]) - env.arm.reference_position
        step[2] = 0.048 - env.arm.reference_position[2]
        if env.arm.position[2] > 0.06:
            step[:2] = handle[:2] + np.array([0.0, -0.04]) - env.arm.reference_position[:2]
        move = np.clip(step, -0.02, 0.02)
        env.step(np.array([*move, 0.0, 0.0, 0.0, 0.0], np.float32))
    assert env.arm.data.joint("drawer").qpos[0] < 0.01
