from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopdit.datasets.spec import TensorSpec
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


TWO_ARMS = TensorSpec(
    "action",
    (4,),
    "float32",
    labels=("left_elbow", "left_gripper", "right_elbow", "right_gripper"),
    units=("rad", "1", "rad", "1"),
    low=(-2.0, 0.0, -1.0, 0.0),
    high=(2.0, 1.0, 1.0, 1.0),
)


def test_an_action_of_another_spec_gets_a_share_of_each_range_and_grippers_none():
    steps = 20_000
    rng = np.random.default_rng(5)
    perturbation = draw_perturbation(NoiseConfig(share=0.02), TWO_ARMS, steps, rng)
    action = np.array([0.5, 1, -0.5, 0], np.float32)
    strayed = np.array([perturbation.apply(action, i) - action for i in range(steps)])
    # Ranges of 4 and 2; the spread's own error is 0.5 %, so that 3 % is 6 of those.
    np.testing.assert_allclose(strayed.std(axis=0)[[0, 2]], [0.08, 0.04], rtol=0.03)
    assert (strayed[:, [1, 3]] == 0).all()
    assert not perturbation.kicked.any()


def test_an_action_of_another_spec_stays_within_its_limits_and_more_steps_only_add():
    config = NoiseConfig(share=0.5)
    some, more = (
        draw_perturbation(config, TWO_ARMS, steps, np.random.default_rng(6)) for steps in (30, 60)
    )
    at_limit = np.array([2, 1, -1, 0], np.float32)
    for step in range(30):
        executed = some.apply(at_limit, step)
        assert (executed >= TWO_ARMS.low).all()
        assert (executed <= TWO_ARMS.high).all()
        np.testing.assert_array_equal(executed, more.apply(at_limit, step))


def test_the_arms_labels_in_other_units_are_not_the_arm():
    fractions = replace(ACTION, units=("1",) * 7, low=(-1.0,) * 7, high=(1.0,) * 7)
    steps = 2000
    perturbation = draw_perturbation(
        NoiseConfig(translation_m=0, yaw_rad=0, kick_probability=1, share=0.1),
        fractions,
        steps,
        np.random.default_rng(7),
    )
    strayed = [perturbation.apply(np.zeros(7, np.float32), i) for i in range(steps)]
    # n = 2000: the spread's own error is 1.6 %.
    np.testing.assert_allclose(np.std(strayed, axis=0)[:6], 0.2, rtol=0.1)


def test_an_action_without_limits_is_executed_as_it_is():
    free = TensorSpec("action", (2,), "float32")
    perturbation = draw_perturbation(NoiseConfig(), free, 5, np.random.default_rng(8))
    np.testing.assert_array_equal(perturbation.apply(np.array([3.0, -9.0]), 0), [3, -9])
