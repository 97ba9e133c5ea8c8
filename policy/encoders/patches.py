"""A camera frame as its patches: each a linear map of its pixels, and a learned position.

What a vision transformer begins with (arXiv 2010.11929). The tokens have seen nothing beyond their
patch, so the blocks behind must do the seeing, and there are many: choose it for models that are
trained on much data, and on a device where tokens are cheap.
"""

import torch
from torch import Tensor, nn

from loopdit.errors import ConfigError

# Patches along a side where nobody says how large they are: 16 tokens at any size of frame.
_GRID = 4


class PatchEncoder(nn.Module):
    """One camera: (B, 3, S, S) in [-1, 1] -> (B, (S / patch) ** 2, width), row by row.

    `patch` 0 takes a quarter of the frame's side.
    """

    def __init__(self, width: int, image_size: int, patch: int = 0) -> None:
        super().__init__()
        self.patch = patch or max(1, image_size // _GRID)
        if not 1 <= self.patch <= image_size or image_size % self.patch:
            fitting = [size for size in range(4, image_size) if image_size % size == 0]
            raise ConfigError(
                f"policy.encoder=patches:{self.patch} does not divide frames of {image_size} "
                f"pixels. Use one of: {', '.join(map(str, fitting)) or image_size}."
            )
        self.tokens = (image_size // self.patch) ** 2
        self.embed = nn.Conv2d(3, width, self.patch, stride=self.patch)
        self.position = nn.Parameter(0.02 * torch.randn(self.tokens, width))

    def forward(self, frame: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, tokens, width)."""
        return self.embed(frame).flatten(2).mT + self.position
