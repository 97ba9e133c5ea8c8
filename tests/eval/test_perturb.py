import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopdit.envs.arm_env import arm_spec
from loopdit.errors import ConfigError
from loopdit.eval.perturb import NoiseConfig, Perturbation, draw_perturbation

ACTION = arm_spec(image_size=16).action
LOW, HIGH = np.array(ACTION.low, np.float32), np.array(ACTION.high, np.float32)
STEPS = 60
noises = st.builds(
    NoiseConfig,
    translation_m=st.floats(0, 0.1),
    yaw_rad=st.floats(0, 1),
    kick_probability=st.floats(0, 1),
)


def draw(config: NoiseConfig, seed: int, steps: int = STEPS) -> Perturbation:
    return draw_perturbation(config, ACTION, steps, np.random.default_rng(seed))


def some_action(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(LOW, HIGH).astype(np.float32)


@given(noises, st.integers(0, 2**32), st.integers(0, STEPS - 1))
def test_executed_actions_stay_within_the_limits(config: NoiseConfig, seed: int, step: int):
    executed = draw(config, seed).apply(some_action(seed), step)
    assert executed.dtype == np.float32
    assert (executed >= LOW).all()
    assert (executed <= HIGH).all()


@given(noises, st.integers(0, 2**32), st.integers(0, STEPS - 1))
def test_one_seed_gives_one_perturbation_and_leaves_the_label_alone(
    config: NoiseConfig, seed: int, step: int
):
    action = some_action(seed)
    label = action.copy()
    once, again = draw(config, seed), draw(config, seed)
    again.apply(action, 0)  # the order of calls does not matter
    np.testing.assert_array_equal(once.apply(action, step), again.apply(action, step))
    np.testing.assert_array_equal(action, label)


@given(noises, st.integers(0, 2**32), st.integers(1, STEPS))
def test_a_longer_episode_is_perturbed_as_a_shorter_one_in_its_first_steps(
    config: NoiseConfig, seed: int, steps: int
):
    short, long = draw(config, seed, steps), draw(config, seed, STEPS)
    for step in range(steps):
        action = some_action(step)
        np.testing.assert_array_equal(short.apply(action, step), long.apply(action, step))


def test_no_noise_executes_the_action_itself():
    silent = draw(NoiseConfig(translation_m=0, yaw_rad=0, kick_probability=0), seed=1)
    for step in range(STEPS):
        np.testing.assert_array_equal(silent.apply(some_action(step), step), some_action(step))


def test_noise_has_the_asked_spread_on_position_and_yaw_and_none_elsewhere():
    config = NoiseConfig(translation_m=0.004, yaw_rad=0.05, kick_probability=0)
    steps = 20_000
    perturbation = draw(config, seed=2, steps=steps)
    action = np.array([0, 0, 0, 0.1, -0.1, 0, 1], np.float32)
    spread = np.std([perturbation.apply(action, i) - action for i in range(steps)], axis=0)
    # The spread's own error is 0.5 % (1 / sqrt(2 n)): a deviation of 3 % is 6 of those.
    np.testing.assert_allclose(spread[[0, 1, 2, 5]], [0.004, 0.004, 0.004, 0.05], rtol=0.03)
    assert (spread[[3, 4, 6]] == 0).all()


def test_a_kick_is_one_drift_for_two_to_five_steps():
    quiet_otherwise = NoiseConfig(translation_m=0, yaw_rad=0, kick_probability=0.05)
    perturbation = draw(quiet_otherwise, seed=3, steps=2000)
    action = np.zeros(7, np.float32)
    drifts = np.array([perturbation.apply(action, i)[[0, 1, 2, 5]] for i in range(2000)])
    changes = np.flatnonzero(np.any(np.diff(drifts, axis=0), axis=1)) + 1
    lengths = {
        len(run)
        for run in np.split(np.arange(2000), changes)[1:-1]
        if drifts[run[0]].any()  # a kick, not the quiet between two
    }
    assert lengths == {2, 3, 4, 5}


def test_some_kicks_turn_the_gripper_command_over_and_nothing_else_does():
    perturbation = draw(NoiseConfig(kick_probability=0.05), seed=4, steps=2000)
    open_gripper = np.array([0, 0, 0, 0, 0, 0, 1], np.float32)
    commands = np.array([perturbation.apply(open_gripper, i)[6] for i in range(2000)])
    assert set(commands) == {0, 1}
    assert (commands[~perturbation.kicked] == 1).all()
    assert 0 < (commands[perturbation.kicked] == 0).mean() < 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"translation_m": -0.001}, "noise.translation_m=-0.001"),
        ({"yaw_rad": float("nan")}, "noise.yaw_rad=nan"),
        ({"kick_probability": 1.5}, "noise.kick_probability=1.5"),
    ],
)
def test_impossible_noise_is_refused_by_name_and_value(settings: dict[str, float], said: str):
    with pytest.raises(ConfigError, match=said):
        NoiseConfig(**settings)
