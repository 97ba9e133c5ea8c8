import numpy as np
import pytest

from loopdit.envs.arm_env import ArmEnv
from loopdit.envs.registry import make_env


@pytest.fixture(scope="module")
def env():
    env = make_env("push", image_size=16)
    env.observing = False
    yield env
    env.close()


def finish(env: ArmEnv) -> bool:
    expert = env.expert()
    terminated = truncated = False
    while not (terminated or truncated):
        _, _, terminated, truncated, _ = env.step(expert.action())
    return terminated


def put_cube(env: ArmEnv, offset: list[float]) -> None:
    """The cube's centre at `offset` (3,) m from the marker's, in the air or on the table."""
    env.arm.place("red", env.arm.body_position("goal") + np.array(offset), 0.0)


def test_the_expert_pushes_the_cube_to_the_marker_from_forty_starts(env: ArmEnv):
    pushed = 0
    for seed in range(40):
        env.reset(seed=seed)
        pushed += finish(env)
    assert pushed == 40


def test_the_expert_pushes_and_does_not_carry(env: ArmEnv):
    for seed in range(10):
        env.reset(seed=seed)
        expert = env.expert()
        terminated = False
        while not terminated:
            *_, terminated, _, _ = env.step(expert.action())
            assert env.arm.pads_touching("red") == 0 or env.arm.body_position("red")[2] < 0.03


def test_the_expert_goes_round_again_when_the_cube_slipped_off_or_was_gripped(env: ArmEnv):
    recovered = 0
    for seed in range(15):
        env.reset(seed=seed)
        rng = np.random.default_rng(seed)
        expert = env.expert()
        for _ in range(int(rng.integers(6, 16))):
            env.step(expert.action())
        kick = np.array([*rng.uniform(-0.03, 0.03, 3), 0, 0, 0.2, rng.integers(0, 2)])
        for _ in range(4):
            env.step(kick.astype(np.float32))
        recovered += finish(env)
    assert recovered >= 14


def test_the_expert_is_memoryless(env: ArmEnv):
    env.reset(seed=1)
    expert = env.expert()
    for _ in range(15):
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


def test_only_a_cube_at_rest_on_the_marker_is_pushed_home(env: ArmEnv):
    env.reset(seed=0)
    assert not env.task.achieved(env.arm)
    put_cube(env, [0.0, 0.045, 0.02])
    env.arm.settle()
    assert not env.task.achieved(env.arm)  # next to it
    put_cube(env, [0.0, 0.0, 0.15])
    env.arm.settle(0.004)
    assert not env.task.achieved(env.arm)  # above it
    put_cube(env, [0.0, 0.02, 0.02])
    env.arm.settle(0.3)
    assert env.task.achieved(env.arm)


def test_the_stages_rise_to_the_goal(env: ArmEnv):
    env.reset(seed=3)
    expert = env.expert()
    seen = ["start"]
    terminated = False
    while not terminated:
        *_, terminated, _, info = env.step(expert.action())
        if info["stage"] != seen[-1]:
            seen.append(info["stage"])
    assert seen == ["start", "touched", "near", "at the marker"]
