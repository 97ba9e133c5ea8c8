"""Beads on a wire, against the exact solution: beads of equal mass that exchange velocities are, as
a set, beads that pass through each other; and walls that reflect are a fold of the free motion."""

import numpy as np
import pytest

from loopdit.eval.experiments.tasks.collisions import LEVELS, CollisionsTask, meeting_times


def free(place: np.ndarray, velocity: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Where each would be at its times without the others, between the walls."""
    along = np.mod(place + velocity * time + 1, 4)
    return np.where(along < 2, along, 4 - along) - 1


@pytest.mark.parametrize("split", CollisionsTask().splits)
def test_beads_are_where_beads_that_pass_through_each_other_are(split: str):
    beads = CollisionsTask().beads(200, 4, split)
    expected = np.sort(free(beads.place, beads.velocity, beads.time[:, None]), axis=1)
    np.testing.assert_allclose(beads.after, expected, atol=1e-9)


@pytest.mark.parametrize("level", range(1, LEVELS + 1))
def test_a_level_is_the_number_of_meetings_before_the_answer(level: int):
    """A meeting is two free beads changing places, seen on a fine grid of times."""
    beads = CollisionsTask().beads(50, 1, f"level_{level}")
    for place, velocity, time in zip(beads.place, beads.velocity, beads.time, strict=True):
        times = np.linspace(0, time, 20_000)[:, None]
        order = np.argsort(free(place, velocity, times), axis=1, kind="stable")
        rank = np.argsort(order, axis=1)
        above = rank[:, :, None] < rank[:, None, :]
        swaps = int((above[1:] != above[:-1]).sum()) // 2
        assert swaps == level


def test_training_has_the_trained_levels_and_no_other():
    beads = CollisionsTask().beads(300, 0, "train")
    times = meeting_times(beads.place, beads.velocity, LEVELS + 1)
    met = (times <= beads.time[:, None]).sum(1)
    assert set(met.tolist()) == {1, 2}
