import math

import numpy as np
import pytest
from tests.envs.episodes import attempt, finish

from loopdit.envs.arm_env import ArmEnv

pytestmark = pytest.mark.parametrize("env", ["stack"], indirect=True)


def put_red(env: ArmEnv, from_blue: tuple[float, float, float]) -> None:
    env.arm.place("blue", np.array([0.28, 0.0, 0.02]), 0.0)
    env.arm.place("red", np.array([0.28, 0.0, 0.02]) + np.array(from_blue), 0.0)
    env.arm.settle(0.4)


def test_the_expert_stacks_cubes_that_stand_side_by_side(env: ArmEnv):
    """Fingers at the red cube's nearest heading would come down on the blue one."""
    for seed, angle in enumerate((0.0, math.pi / 2, math.pi, -math.pi / 2)):
        env.reset(seed=seed)
        put_red(env, (0.041 * math.cos(angle), 0.041 * math.sin(angle), 0.0))
        assert finish(env)


def test_a_cube_still_held_on_the_other_is_not_stacked(env: ArmEnv):
    """At no step at which a finger touches the red cube does the goal hold."""
    env.reset(seed=0)
    held_on_top = 0
    for _ in attempt(env):
        offset = env.arm.body_position("red") - env.arm.body_position("blue")
        on_top = np.linalg.norm(offset[:2]) < 0.02 and abs(offset[2] - 0.04) < 0.02
        if env.arm.pads_touching("red") and on_top:
            held_on_top += 1
            assert not env.task.achieved(env.arm)
    assert held_on_top >= 1


@pytest.mark.parametrize(
    ("from_blue", "stacked"),
    [
        ((0.0, 0.0, 0.041), True),
        ((0.015, -0.01, 0.041), True),
        ((0.041, 0.0, 0.0), False),  # side by side
        ((0.0, 0.0, 0.20), True),  # dropped, and it stays on top
        ((0.0, 0.10, 0.0), False),
    ],
)
def test_only_a_red_cube_that_rests_on_the_blue_one_is_stacked(
    env: ArmEnv, from_blue: tuple[float, float, float], stacked: bool
):
    env.reset(seed=0)
    put_red(env, from_blue)
    assert env.task.achieved(env.arm) == stacked


def test_the_blue_cube_on_the_red_one_is_not_stacked(env: ArmEnv):
    env.reset(seed=0)
    env.arm.place("red", np.array([0.28, 0.0, 0.02]), 0.0)
    env.arm.place("blue", np.array([0.28, 0.0, 0.061]), 0.0)
    env.arm.settle(0.4)
    assert env.arm.body_position("blue")[2] > 0.055
    assert not env.task.achieved(env.arm)
