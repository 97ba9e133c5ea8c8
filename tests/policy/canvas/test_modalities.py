import pytest
import torch

from loopdit.errors import ConfigError
from loopdit.policy.canvas.modalities import ModalityConfig, frames_of, patches


def test_patches_are_cut_row_by_row_and_put_back_together():
    frames = torch.randn(2, 3, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    cut = patches(frames)
    assert cut.shape == (2, 3 * 2 * 3, 192)
    second_of_the_lower_row = frames[1, 2, :, 8:16, 8:16].flatten()
    torch.testing.assert_close(cut[1, 2 * 6 + 3 + 1], second_of_the_lower_row)
    torch.testing.assert_close(frames_of(cut, rows=2, columns=3), frames)


def test_a_size_of_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"modalities.action=0 must be at least 1"):
        ModalityConfig(action=0)
