import numpy as np

from loopdit.envs.suites.locomotion import Locomotion
from loopdit.eval.morphology.demonstrations import demonstrate, embodiment_of, windows_of
from loopdit.eval.morphology.expert import LinearExpert
from loopdit.eval.morphology.running import Run
from loopdit.eval.perturb import NoiseConfig


def pulling_back() -> LinearExpert:
    weights = np.zeros((2, 8))
    weights[0, 1] = weights[1, 2] = -1.0
    return LinearExpert(weights, np.zeros(8), np.ones(8))


def test_a_window_is_an_observation_and_the_actions_from_there():
    runs = [
        Run(np.full((3, 2), 7, np.float32), np.arange(3, dtype=np.float32)[:, None], 0.0),
        Run(np.full((2, 2), 8, np.float32), 10 + np.arange(2, dtype=np.float32)[:, None], 0.0),
    ]
    windows = windows_of(runs, horizon=3)
    assert windows.observations[:, 0].tolist() == [7, 7, 7, 8, 8]
    assert windows.chunks[..., 0].tolist() == [
        [0, 1, 2],
        [1, 2, 2],
        [2, 2, 2],
        [10, 11, 11],
        [11, 11, 11],
    ]
    assert windows.valid.tolist() == [[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0]]


def test_labels_are_the_experts_own_and_states_are_off_its_path():
    robot, expert = Locomotion("Swimmer-v5"), pulling_back()
    (clean,) = demonstrate(robot, expert, [4], NoiseConfig(share=0.0), steps=30)
    (noisy,) = demonstrate(robot, expert, [4], NoiseConfig(share=0.05), steps=30)
    (again,) = demonstrate(robot, expert, [4], NoiseConfig(share=0.05), steps=30)
    assert np.array_equal(noisy.observations, again.observations)
    assert np.array_equal(noisy.observations[0], clean.observations[0])
    assert np.abs(noisy.observations[-1] - clean.observations[-1]).max() > 0.01
    for seen, label in zip(noisy.observations, noisy.actions, strict=True):
        np.testing.assert_allclose(label, expert.action(seen, 0), atol=1e-6)


def test_a_body_has_gymnasiums_dimensions_and_the_demonstrations_units():
    robot = Locomotion("Swimmer-v5")
    runs = demonstrate(robot, pulling_back(), [0, 1], NoiseConfig(), steps=50)
    windows = windows_of(runs, horizon=4)
    body = embodiment_of(robot, "Swimmer-v5", 0, windows)
    standard = body.observation(windows.observations)
    np.testing.assert_allclose(standard.mean(0), np.zeros(8), atol=1e-4)
    np.testing.assert_allclose(standard.std(0), np.ones(8), atol=1e-3)
    np.testing.assert_allclose(body.chunk(windows.chunks)[:, 0].std(0), np.ones(2), atol=1e-3)
    assert body.reach.tolist() == [1, 1]
    # Three bodies, their five joints, two motors.
    assert (body.tokens(True), body.tokens(False)) == (10, 7)
