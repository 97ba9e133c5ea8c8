import numpy as np
import torch

from loopdit.policy.encoders.cameras import drop_cameras


def test_cameras_are_hidden_as_often_as_asked_and_never_the_last_one():
    """n = 100,000 windows of two cameras: both drawn hidden 0.09, so each is hidden with 0.3 less
    half of that; six standard deviations are 0.009."""
    generator = torch.Generator().manual_seed(0)
    available = torch.ones(100_000, 2, dtype=torch.bool)
    chances = torch.rand(100_000, 2, generator=generator)
    left = drop_cameras(available, chances, 0.3)
    assert left.any(1).all()
    hidden = (~left).float().mean(0).numpy()
    np.testing.assert_allclose(hidden, [0.3 - 0.09 / 2] * 2, atol=0.009)


def test_a_camera_that_was_never_there_is_neither_found_nor_counted():
    chances = torch.tensor([[0.1, 0.9], [0.1, 0.9], [0.1, 0.2]])
    available = torch.tensor([[True, False], [False, False], [True, True]])
    assert drop_cameras(available, chances, 0.5).tolist() == [
        [True, False],  # its only camera, although drawn
        [False, False],
        [False, True],  # both drawn: the larger chance stays
    ]


def test_without_dropout_everything_stays_and_with_certainty_one_camera_does():
    chances = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    available = torch.rand(50, 3, generator=torch.Generator().manual_seed(1)) < 0.7
    assert torch.equal(drop_cameras(available, chances, 0.0), available)
    left = drop_cameras(available, chances, 1.0)
    assert torch.equal(left.sum(1), available.any(1).long())
    assert not (left & ~available).any()
