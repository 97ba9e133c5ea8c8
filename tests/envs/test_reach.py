import numpy as np
import pytest
from tests.envs.episodes import finish

from loopdit.envs.arm_env import ArmEnv

pytestmark = pytest.mark.parametrize("env", ["reach"], indirect=True)


def test_the_expert_touches_the_marker_after_a_kick_at_the_start(env: ArmEnv):
    for seed in range(1, 40, 2):
        env.reset(seed=seed)
        rng = np.random.default_rng(seed)
        kick = np.array([*rng.uniform(-0.03, 0.03, 3), 0, 0, 0.2, 0])
        for _ in range(4):
            env.step(kick)
        assert finish(env)


def test_the_marker_starts_away_from_the_gripper_and_passing_through_it_is_no_success(env: ArmEnv):
    for seed in range(100):
        env.reset(seed=seed)
        distance = np.linalg.norm(env.arm.position - env.arm.body_position("goal"))
        assert distance > 0.09
    way = env.arm.body_position("goal") - env.arm.reference_position
    step = 0.03 * way / np.linalg.norm(way)
    touched = terminated = False
    for _ in range(round(float(np.linalg.norm(way)) / 0.03) + 4):
        *_, terminated, _, info = env.step(np.array([*step, 0, 0, 0, 1.0]))
        touched = touched or info["stage"] == "touched"
    assert touched
    assert not terminated
