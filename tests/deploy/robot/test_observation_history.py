import numpy as np
import pytest

from loopdit.deploy.robot.observation_history import ObservationHistory


def observed(step: int) -> dict[str, np.ndarray]:
    return {"proprio": np.full(2, step, np.float32), "images.front": np.full((1, 1, 3), step)}


def steps_seen(history: ObservationHistory) -> list[float]:
    stacked = history.stacked()
    assert stacked["images.front"].shape[1:] == (1, 1, 3)
    assert stacked["images.front"][:, 0, 0, 0].tolist() == stacked["proprio"][:, 0].tolist()
    return stacked["proprio"][:, 0].tolist()


def test_the_latest_steps_come_oldest_first_and_the_first_one_is_repeated():
    history = ObservationHistory(3)
    seen: list[list[float]] = []
    for step in range(5):
        history.add(observed(step))
        seen.append(steps_seen(history))
    assert seen == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]]
    history.reset()
    history.add(observed(9))
    assert steps_seen(history) == [9, 9, 9]


def test_a_camera_may_write_into_the_same_memory_again():
    history = ObservationHistory(2)
    frame = np.zeros((1, 1, 3), np.uint8)
    for value in (1, 2):
        frame[:] = value
        history.add({"images.front": frame})
    assert history.stacked()["images.front"][:, 0, 0, 0].tolist() == [1, 2]


def test_without_history_the_observation_is_passed_on_as_it_is():
    history = ObservationHistory(1)
    latest = observed(4)
    history.add(observed(3))
    history.add(latest)
    assert history.stacked() is latest


def test_a_history_of_nothing_is_refused():
    with pytest.raises(ValueError, match="nothing observed yet"):
        ObservationHistory(2).stacked()
    with pytest.raises(ValueError, match="steps=0"):
        ObservationHistory(0)


def test_a_camera_that_was_missing_once_is_left_out_until_it_has_a_whole_history():
    history = ObservationHistory(2)
    both = {"images.front": np.zeros((2, 2, 3), np.uint8), "proprio": np.zeros(3, np.float32)}
    blind = {"proprio": both["proprio"]}
    found: list[list[str]] = []
    for observation in (both, blind, both, both):
        history.add(observation)
        found.append(sorted(history.stacked()))
    assert found == [[*both], ["proprio"], ["proprio"], [*both]]
