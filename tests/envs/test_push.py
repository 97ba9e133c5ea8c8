import numpy as np
import pytest
from tests.envs.episodes import attempt

from loopdit.envs.arm_env import ArmEnv

pytestmark = pytest.mark.parametrize("env", ["push"], indirect=True)


def put_cube(env: ArmEnv, offset: list[float]) -> None:
    """The cube's centre at `offset` (3,) m from the marker's, in the air or on the table."""
    env.arm.place("red", env.arm.body_position("goal") + np.array(offset), 0.0)


def test_the_expert_pushes_and_does_not_carry(env: ArmEnv):
    for seed in range(10):
        env.reset(seed=seed)
        for _ in attempt(env):
            assert env.arm.pads_touching("red") == 0 or env.arm.body_position("red")[2] < 0.03


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
