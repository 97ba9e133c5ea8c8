# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false
import hashlib
import subprocess
import sys

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from loopdit.envs.arm_env import ArmEnv
from loopdit.envs.registry import make_env
from loopdit.errors import ConfigError

HOLD = np.array([0, 0, 0, 0, 0, 0, 1], dtype=np.float32)


@pytest.fixture(scope="module")
def env():
    env = make_env("lift", image_size=32)
    yield env
    env.close()


def state_and_pixels(env: ArmEnv, seed: int) -> str:
    """A digest of ten steps of the expert: every state and every pixel."""
    found = hashlib.sha256()
    observation, _ = env.reset(seed=seed)
    expert = env.expert()
    for _ in range(10):
        observation, *_ = env.step(expert.action())
        found.update(env.arm.data.qpos.tobytes())
        for name in sorted(observation):
            found.update(observation[name].tobytes())
    return found.hexdigest()


def test_commanding_for_a_moment_shows_experts_what_executing_would_and_moves_nothing(env: ArmEnv):
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (4, 7)) * [0.02, 0.02, 0.02, 0, 0, 0.2, 1]
    env.reset(seed=0)
    before = env.state()
    with env.as_commanded(actions):
        promised = env.arm.reference_position, env.arm.reference_quaternion
    np.testing.assert_array_equal(env.state(), before)
    for action in actions:
        env.step(action)
    np.testing.assert_array_equal(promised[0], env.arm.reference_position)
    np.testing.assert_array_equal(promised[1], env.arm.reference_quaternion)


@pytest.mark.filterwarnings("ignore:.*Box observation space m..imum value is.*")
@pytest.mark.filterwarnings("ignore:.*we recommend using a symmetric and normalized space")
@pytest.mark.filterwarnings("ignore:.*not None, but this environment was not created through")
def test_gymnasium_finds_nothing_wrong(env: ArmEnv):
    check_env(env, skip_render_check=True)


def test_gymnasium_makes_it_by_its_id():
    env = gymnasium.make("loopdit.envs.registry:loopdit/Lift-v0", image_size=32)
    try:
        observation, _ = env.reset(seed=0)
        assert observation["images.wrist"].shape == (32, 32, 3)
    finally:
        env.close()


def test_observations_are_what_the_spec_declares(env: ArmEnv):
    observation, _ = env.reset(seed=0)
    env.policy_spec.check_observation(observation)
    observation, *_ = env.step(HOLD)
    env.policy_spec.check_observation(observation)


def test_the_same_seed_gives_the_same_states_and_pixels(env: ArmEnv):
    assert state_and_pixels(env, 3) == state_and_pixels(env, 3)
    assert state_and_pixels(env, 3) != state_and_pixels(env, 4)


def test_another_process_sees_the_same_states_and_pixels(env: ArmEnv):
    code = (
        "from tests.envs.test_arm_env import state_and_pixels\n"
        "from loopdit.envs.registry import make_env\n"
        "print(state_and_pixels(make_env('lift', image_size=32), 3))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == state_and_pixels(env, 3)
    assert other.stderr == ""  # in particular no traceback from freeing OpenGL at exit


def test_the_command_moves_the_end_effector_by_what_it_says(env: ArmEnv):
    env.reset(seed=0)
    for _ in range(3):
        env.step(HOLD)
    before = env.arm.position
    for _ in range(4):
        env.step(np.array([0.01, -0.02, -0.01, 0, 0, 0, 1], dtype=np.float32))
    for _ in range(5):
        env.step(HOLD)
    np.testing.assert_allclose(env.arm.position - before, [0.04, -0.08, -0.04], atol=0.002)


def test_the_gripper_opens_and_closes(env: ArmEnv):
    env.reset(seed=0)
    for _ in range(8):
        env.step(np.array([0, 0, 0, 0, 0, 0, 0], dtype=np.float32))
    assert env.arm.opening < 0.05
    for _ in range(8):
        env.step(HOLD)
    assert env.arm.opening > 0.95


def test_commands_cannot_wind_the_reference_up_out_of_reach(env: ArmEnv):
    env.reset(seed=0)
    for _ in range(60):
        env.step(np.array([0.03, 0.03, 0.03, 0, 0, 0, 1], dtype=np.float32))
    assert np.linalg.norm(env.arm.reference_position - env.arm.position) < 0.02


@pytest.mark.parametrize("action", [np.zeros(6), np.full(7, np.nan), np.zeros((7, 1))])
def test_an_action_that_is_not_seven_finite_numbers_is_refused(env: ArmEnv, action: np.ndarray):
    env.reset(seed=0)
    with pytest.raises(ValueError, match="7 finite numbers"):
        env.step(action)


def test_doing_nothing_ends_at_the_time_limit_without_success(env: ArmEnv):
    env.reset(seed=0)
    steps = 0
    truncated = terminated = False
    info = {}
    while not (terminated or truncated):
        *_, terminated, truncated, info = env.step(HOLD)
        steps += 1
    assert (steps, terminated, info["success"]) == (env.max_steps, False, False)


def test_an_unstable_simulation_ends_the_episode_and_is_never_a_success(env: ArmEnv):
    env.reset(seed=0)
    env.arm.data.qvel[:] = np.inf
    *_, terminated, truncated, info = env.step(HOLD)
    assert (terminated, truncated, info["unstable"], info["success"]) == (False, True, True, False)


def test_frames_show_the_scene_from_two_places(env: ArmEnv):
    observation, _ = env.reset(seed=0)
    front, wrist = observation["images.front"], observation["images.wrist"]
    red = (front[..., 0].astype(int) - front[..., 2]) > 120
    assert 3 < red.sum() < 200  # the cube, and little else, is red
    assert front.std() > 10
    assert np.abs(front.astype(int) - wrist).mean() > 10


def test_rendering_does_not_touch_the_physics():
    def last_state(size: int) -> np.ndarray:
        env = make_env("lift", image_size=size)
        env.reset(seed=5)
        expert = env.expert()
        for _ in range(10):
            env.step(expert.action())
        env.close()
        return env.arm.data.qpos.copy()

    np.testing.assert_array_equal(last_state(16), last_state(48))


def test_an_unknown_environment_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"The environments are: .*lift"):
        make_env("lfit")


def test_frames_too_small_to_see_anything_in_are_refused():
    with pytest.raises(ConfigError, match="image_size=0 is too small for env=lift"):
        make_env("lift", image_size=0)


def test_inverse_kinematics_reaches_what_is_in_reach(env: ArmEnv):
    from loopdit.envs.kinematics import InverseKinematics
    from loopdit.envs.rotations import tool_down

    solver = InverseKinematics(env.arm.model)
    rng = np.random.default_rng(0)
    home = np.array([0.0, -0.6, 0.6, 0.0, 1.5, 0.0])
    data = mujoco.MjData(env.arm.model)
    for _ in range(30):
        distance, azimuth = rng.uniform(0.18, 0.38), rng.uniform(-0.5, 0.5)
        target = [distance * np.cos(azimuth), distance * np.sin(azimuth), rng.uniform(0.02, 0.2)]
        joints, residual = solver.solve(
            np.array(target), tool_down(rng.uniform(-0.7, 0.7)), home, iterations=100
        )
        assert residual < 3e-4
        # Checked by MuJoCo's own forward kinematics, not by the solver's idea of its error.
        data.qpos[:6] = joints
        mujoco.mj_kinematics(env.arm.model, data)
        np.testing.assert_allclose(data.site("end_effector").xpos, target, atol=5e-4)
