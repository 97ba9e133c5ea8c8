import numpy as np
import pytest

from loopdit.envs.arm_env import ArmEnv

pytestmark = pytest.mark.parametrize("env", ["drawer"], indirect=True)


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
