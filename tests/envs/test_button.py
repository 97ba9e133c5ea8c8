import numpy as np
import pytest

from loopdit.envs.arm_env import ArmEnv
from loopdit.envs.registry import make_env


@pytest.fixture(scope="module")
def env():
    env = make_env("button", image_size=16)
    env.observing = False
    yield env
    env.close()


def finish(env: ArmEnv) -> bool:
    expert = env.expert()
    terminated = truncated = False
    while not (terminated or truncated):
        _, _, terminated, truncated, _ = env.step(expert.action())
    return terminated


def test_the_expert_presses_the_button_from_forty_starts(env: ArmEnv):
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


def test_the_stages_are_touched_then_pressed(env: ArmEnv):
    """Slowly: at its own pace the expert does both in one control step."""
    env.reset(seed=3)
    expert = env.expert()
    seen = ["start"]
    terminated = False
    while not terminated:
        action = expert.action()
        action[:3] /= 4
        *_, terminated, _, info = env.step(action)
        if info["stage"] != seen[-1]:
            seen.append(info["stage"])
    assert seen == ["start", "touched", "pressed"]


def test_a_button_touched_or_half_pressed_is_not_pressed(env: ArmEnv):
    """The finger comes down on it a millimetre at a time, pressing less hard than it could."""
    env.reset(seed=0)
    depth = env.arm.data.joint("button").qpos
    over = env.arm.body_position("button") - env.arm.reference_position
    for _ in range(30):
        step = np.clip([over[0], over[1], 0.0], -0.03, 0.03)
        env.step(np.array([*step, 0.0, 0.0, 0.0, 0.0], np.float32))
        over = env.arm.body_position("button") - env.arm.reference_position
    depths = list[float]()
    while not env.task.achieved(env.arm):
        env.step(np.array([0.0, 0.0, -0.001, 0.0, 0.0, 0.0, 0.0], np.float32))
        depths.append(float(depth[0]))
    assert max(depths[:-1]) <= 0.008 < depths[-1]
    assert sum(0.001 < d < 0.007 for d in depths) >= 3


def test_a_cap_held_down_by_no_finger_is_not_pressed(env: ArmEnv):
    env.reset(seed=0)
    env.arm.data.joint("button").qpos[0] = 0.012
    assert not env.task.achieved(env.arm)


def test_a_released_button_comes_up_again(env: ArmEnv):
    env.reset(seed=0)
    assert finish(env)
    for _ in range(6):
        env.step(np.array([0.0, 0.0, 0.03, 0.0, 0.0, 0.0, 0.0], np.float32))
    assert env.arm.data.joint("button").qpos[0] == pytest.approx(0.0, abs=0.001)
    assert not env.task.achieved(env.arm)
