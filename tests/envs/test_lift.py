import pytest

from loopdit.envs.arm_env import ArmEnv

pytestmark = pytest.mark.parametrize("env", ["lift"], indirect=True)


def test_a_cube_lying_on_the_table_or_touched_by_one_finger_is_not_lifted(env: ArmEnv):
    env.reset(seed=0)
    assert not env.task.achieved(env.arm)
    # Thrown up: high, but in nobody's hand.
    address = env.arm.model.joint("red").qposadr[0]
    env.arm.data.qpos[address + 2] = 0.3
    env.arm.settle(0.004)
    assert env.arm.body_position("red")[2] > 0.2
    assert not env.task.achieved(env.arm)
