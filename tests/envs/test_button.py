import numpy as np
import pytest
from tests.envs.episodes import finish

from loopdit.envs.arm_env import ArmEnv

pytestmark = pytest.mark.parametrize("env", ["button"], indirect=True)


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
