from collections import deque
from collections.abc import Callable

import numpy as np
import pytest
from tests.envs.episodes import attempt, finish

from loopdit.envs.arm_env import ArmEnv

pytestmark = pytest.mark.parametrize("env", ["catch-roll"], indirect=True)


def late_expert(env: ArmEnv, delay: int) -> Callable[[], np.ndarray]:
    """The expert, each of its actions `delay` control steps after it was chosen."""
    expert = env.expert()
    waiting = deque([env.idle(None)] * delay)

    def choose() -> np.ndarray:
        waiting.append(expert.action())
        return waiting.popleft()

    return choose


def test_a_delay_of_two_control_steps_loses_the_ball(env: ArmEnv):
    caught = 0
    for seed in range(20):
        env.reset(seed=seed)
        caught += finish(env, late_expert(env, delay=2))
    assert caught <= 4


def test_left_alone_the_ball_rolls_on_at_its_speed_through_the_workspace(env: ArmEnv):
    for seed in range(10):
        env.reset(seed=seed)
        speed = np.linalg.norm(env.arm.data.joint("ball").qvel[:2])
        start = env.arm.body_position("ball")
        assert 0.24 < abs(start[1]) < 0.31
        for _ in range(20):
            env.step(env.idle(None))
        after = np.linalg.norm(env.arm.data.joint("ball").qvel[:2])
        assert 0.095 < speed < 0.225
        assert after == pytest.approx(speed, rel=0.05)
        travelled = np.linalg.norm(env.arm.body_position("ball") - start)
        assert travelled == pytest.approx(2.0 * speed, rel=0.05)


def test_it_comes_from_both_sides(env: ArmEnv):
    sides = set[float]()
    for seed in range(20):
        env.reset(seed=seed)
        sides.add(float(np.sign(env.arm.body_position("ball")[1])))
    assert sides == {-1.0, 1.0}


def test_a_ball_in_the_air_that_nobody_holds_is_not_caught(env: ArmEnv):
    env.reset(seed=0)
    assert not env.task.achieved(env.arm)
    env.arm.place("ball", np.array([0.35, 0.1, 0.2]), 0.0)
    env.arm.settle(0.004)
    assert not env.task.achieved(env.arm)


def test_a_ball_that_is_let_pass_is_lost(env: ArmEnv):
    env.reset(seed=0)
    infos = list(attempt(env, lambda: env.idle(None)))
    assert not infos[-1]["success"]
    assert {info["stage"] for info in infos} == {"start"}
    assert len(infos) == env.max_steps == 70
