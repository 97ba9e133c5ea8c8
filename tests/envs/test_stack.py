import math

import numpy as np
import pytest

from loopdit.envs.arm_env import ArmEnv
from loopdit.envs.registry import make_env
from loopdit.eval.demonstration import demonstrate
from loopdit.eval.perturb import NoiseConfig


@pytest.fixture(scope="module")
def env():
    env = make_env("stack", image_size=16)
    env.observing = False
    yield env
    env.close()


def finish(env: ArmEnv) -> bool:
    expert = env.expert()
    terminated = truncated = False
    while not (terminated or truncated):
        _, _, terminated, truncated, _ = env.step(expert.action())
    return terminated


def put_red(env: ArmEnv, from_blue: tuple[float, float, float]) -> None:
    env.arm.place("blue", np.array([0.28, 0.0, 0.02]), 0.0)
    env.arm.place("red", np.array([0.28, 0.0, 0.02]) + np.array(from_blue), 0.0)
    env.arm.settle(0.4)


def test_the_expert_stacks_the_cubes_from_forty_starts(env: ArmEnv):
    stacked = 0
    for seed in range(40):
        env.reset(seed=seed)
        stacked += finish(env)
    assert stacked == 40


def test_the_expert_recovers_under_the_noise_of_demonstrations(env: ArmEnv):
    noise = NoiseConfig()
    recovered = sum(demonstrate(env, seed, noise, hold_steps=3) is not None for seed in range(40))
    assert recovered >= 39


def test_the_expert_stacks_cubes_that_stand_side_by_side(env: ArmEnv):
    """Fingers at the red cube's nearest heading would come down on the blue one."""
    for seed, angle in enumerate((0.0, math.pi / 2, math.pi, -math.pi / 2)):
        env.reset(seed=seed)
        put_red(env, (0.041 * math.cos(angle), 0.041 * math.sin(angle), 0.0))
        assert finish(env)


def test_the_expert_is_memoryless_and_stays_within_the_action_limits(env: ArmEnv):
    env.reset(seed=1)
    expert = env.expert()
    terminated = False
    while not terminated:
        action = expert.action()
        np.testing.assert_array_equal(action, env.expert().action())
        assert env.action_space.contains(action)
        *_, terminated, _, _ = env.step(action)


def test_a_cube_still_held_on_the_other_is_not_stacked(env: ArmEnv):
    """At no step at which a finger touches the red cube does the goal hold."""
    env.reset(seed=0)
    expert = env.expert()
    held_on_top = 0
    terminated = False
    while not terminated:
        *_, terminated, _, _ = env.step(expert.action())
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


def test_an_attempt_goes_through_all_stages_in_order(env: ArmEnv):
    env.reset(seed=4)
    expert = env.expert()
    reached = ["start"]
    terminated = False
    while not terminated:
        *_, terminated, _, info = env.step(expert.action())
        if info["stage"] != reached[-1]:
            reached.append(info["stage"])
    assert reached == ["start", *env.stages]
