import math

import numpy as np
import pytest
from tests.envs.episodes import attempt, finish

from loopdit.envs.arm_env import ArmEnv

pytestmark = pytest.mark.parametrize("env", ["place"], indirect=True)


def put_cube(env: ArmEnv, from_bowl: tuple[float, float, float], yaw: float = 0.0) -> None:
    env.arm.place("red", env.arm.body_position("bowl") + np.array(from_bowl), yaw)
    env.arm.settle(0.4)


def test_the_expert_picks_up_a_cube_that_fell_beside_the_bowl_or_lies_on_its_rim(env: ArmEnv):
    for seed, angle in enumerate((0.0, 0.7, -0.7, 1.6, -1.6)):
        env.reset(seed=seed)
        env.arm.place("bowl", np.array([0.27, 0.0, 0.0]), 0.0)
        put_cube(env, (0.09 * math.cos(angle), 0.09 * math.sin(angle), 0.021), yaw=0.3)
        assert finish(env)
        env.reset(seed=seed)
        env.arm.place("bowl", np.array([0.27, 0.0, 0.0]), 0.0)
        put_cube(env, (0.057 * math.cos(angle), 0.057 * math.sin(angle), 0.051), yaw=angle)
        assert finish(env)


def test_a_cube_held_above_the_bowl_is_not_placed_in_it(env: ArmEnv):
    """At no step before the fingers have opened does the goal hold."""
    env.reset(seed=0)
    held_over_bowl = 0
    for _ in attempt(env):
        offset = env.arm.body_position("red") - env.arm.body_position("bowl")
        if env.arm.pads_touching("red") == 2 and np.linalg.norm(offset[:2]) < 0.02:
            held_over_bowl += 1
            assert not env.task.achieved(env.arm)
    assert held_over_bowl >= 2


@pytest.mark.parametrize(
    ("from_bowl", "placed"),
    [
        ((0.0, 0.0, 0.03), True),
        ((0.02, -0.01, 0.03), True),
        ((0.09, 0.0, 0.021), False),  # beside it, leaning on nothing
        ((0.057, 0.0, 0.051), False),  # on the rim
    ],
)
def test_only_a_cube_that_rests_inside_the_bowl_is_placed(
    env: ArmEnv, from_bowl: tuple[float, float, float], placed: bool
):
    env.reset(seed=0)
    put_cube(env, from_bowl)
    assert env.task.achieved(env.arm) == placed


def test_a_cube_falling_into_the_bowl_is_not_placed_before_it_rests(env: ArmEnv):
    env.reset(seed=0)
    at = env.arm.body_position("bowl") + np.array([0.0, 0.0, 0.04])
    env.arm.place("red", at, 0.0, velocity=np.array([0.0, 0.0, -0.5, 0.0, 0.0, 0.0]))
    env.arm.settle(0.004)
    assert not env.task.achieved(env.arm)
    env.arm.settle(0.4)
    assert env.task.achieved(env.arm)


def test_bowl_and_cube_start_apart_and_where_the_front_camera_sees_all_of_them(env: ArmEnv):
    camera = env.arm.model.camera("front").id
    half_view = math.tan(math.radians(env.arm.model.cam_fovy[camera]) / 2)
    around = np.linspace(0, 2 * math.pi, 12)
    for seed in range(200):
        env.reset(seed=seed)
        cube, bowl = env.arm.body_position("red"), env.arm.body_position("bowl")
        assert np.linalg.norm(cube - bowl) > 0.11
        rim = bowl + 0.059 * np.stack([np.cos(around), np.sin(around), 0 * around], axis=1)
        from_camera = np.vstack([rim, cube]) - env.arm.data.cam_xpos[camera]
        seen = from_camera @ env.arm.data.cam_xmat[camera].reshape(3, 3)
        assert np.abs(seen[:, :2] / seen[:, 2:]).max() < half_view
