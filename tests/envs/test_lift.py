import numpy as np
import pytest

from loopdit.envs.arm_env import ArmEnv
from loopdit.envs.registry import make_env


@pytest.fixture(scope="module")
def env():
    env = make_env("lift", image_size=16)
    yield env
    env.close()


def finish(env: ArmEnv) -> bool:
    expert = env.expert()
    terminated = truncated = False
    while not (terminated or truncated):
        _, _, terminated, truncated, _ = env.step(expert.action())
    return terminated


def test_the_expert_lifts_the_cube_from_forty_starts(env: ArmEnv):
    lifted = 0
    for seed in range(40):
        env.reset(seed=seed)
        lifted += finish(env)
    assert lifted == 40


def test_the_expert_recovers_from_drops_kicks_and_a_closed_gripper(env: ArmEnv):
    """What the policy is to learn from: the way back from states off the expert's path."""
    recovered = 0
    for seed in range(15):
        env.reset(seed=seed)
        rng = np.random.default_rng(seed)
        expert = env.expert()
        for _ in range(int(rng.integers(3, 14))):
            env.step(expert.action())
        kick = np.array([*rng.uniform(-0.03, 0.03, 3), 0, 0, 0.2, rng.integers(0, 2)])
        for _ in range(4):
            env.step(kick.astype(np.float32))
        recovered += finish(env)
    assert recovered >= 14


def test_the_expert_is_memoryless(env: ArmEnv):
    """A fresh expert in the middle of an episode does what the old one would: so the present
    state, which a policy can see, explains the action."""
    env.reset(seed=1)
    expert = env.expert()
    for _ in range(12):
        action = expert.action()
        np.testing.assert_array_equal(action, env.expert().action())
        env.step(action)


def test_the_expert_stays_within_the_action_limits(env: ArmEnv):
    env.reset(seed=2)
    expert = env.expert()
    for _ in range(15):
        action = expert.action()
        assert env.action_space.contains(action)
        env.step(action)


def test_a_cube_lying_on_the_table_or_touched_by_one_finger_is_not_lifted(env: ArmEnv):
    env.reset(seed=0)
    assert not env.task.achieved(env.arm)
    # Thrown up: high, but in nobody's hand.
    address = env.arm.model.joint("red").qposadr[0]
    env.arm.data.qpos[address + 2] = 0.3
    env.arm.settle(0.004)
    assert env.arm.body_position("red")[2] > 0.2
    assert not env.task.achieved(env.arm)


def test_success_needs_the_goal_to_hold(env: ArmEnv):
    env.reset(seed=0)
    expert = env.expert()
    achieved_for = 0
    terminated = False
    while not terminated:
        *_, terminated, _, _ = env.step(expert.action())
        achieved_for = achieved_for + 1 if env.task.achieved(env.arm) else 0
    assert achieved_for == 3
