import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.policy.policies import small_spec

from loopdit.datasets.statistics import VectorStatistics
from loopdit.policy.normalizer import Normalizer


def fitted(mean: tuple[float, ...], std: tuple[float, ...]) -> Normalizer:
    normalizer = Normalizer(small_spec())
    action = VectorStatistics(mean, std, mean, mean, mean, mean)
    zeros, ones = (0.0,) * 3, (1.0,) * 3
    proprio = VectorStatistics(zeros, ones, zeros, zeros, zeros, zeros)
    normalizer.fit({"action": action, "proprio": proprio})
    return normalizer


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_normalising_and_back_keeps_actions_within_their_limits(values: list[float]):
    normalizer = fitted(mean=(0.2, 0.5), std=(0.3, 0.4))
    raw = torch.tensor(values).reshape(1, 2, 2)
    torch.testing.assert_close(normalizer.raw_chunk(normalizer.chunk(raw)), raw)


def test_an_action_that_hardly_moves_is_not_blown_up():
    still = fitted(mean=(0.0, 0.0), std=(0.0, 1e-9))
    # The floor is 2 % of the declared ranges, 2 and 1.
    assert still.action_spread.tolist() == pytest.approx([0.04, 0.02], rel=1e-3)


def test_frames_map_to_minus_one_to_one_channels_first():
    frame = torch.from_numpy(np.array([[[[0, 127, 255]]]], dtype=np.uint8))
    assert fitted((0.0, 0.0), (1.0, 1.0)).frame(frame).flatten().tolist() == pytest.approx(
        [-1.0, -0.0039, 1.0], abs=1e-4
    )
