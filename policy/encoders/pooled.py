"""A camera frame as a handful of tokens: small convolutions, then the mean of each cell of a grid.

The cheapest way to tokens that still say what is where, as coarsely as the grid: unlike a spatial
softmax (`keypoints`) a mean keeps everything that is in a cell, and gives no position within it.
Knows nothing of other cameras.
"""

import torch
from torch import Tensor, nn

from loopdit.errors import ConfigError
from loopdit.policy.encoders.stem import STEM_CHANNELS, STEM_STRIDE, stem


class PooledEncoder(nn.Module):
    """One camera: (B, 3, S, S) in [-1, 1] -> (B, grid * grid, width), row by row."""

    def __init__(self, width: int, image_size: int, grid: int = 2) -> None:
        super().__init__()
        cells = -(-image_size // STEM_STRIDE)
        if not 1 <= grid <= cells:
            raise ConfigError(
                f"policy.encoder=pooled:{grid} asks for {grid} x {grid} cells of a feature map of "
                f"{cells} x {cells}, at frames of {image_size} pixels. Use 1 to {cells}."
            )
        self.tokens = grid * grid
        self.features = nn.Sequential(*stem())
        self.pool = nn.AdaptiveAvgPool2d(grid)
        self.project = nn.Linear(STEM_CHANNELS, width)
        self.position = nn.Parameter(0.02 * torch.randn(self.tokens, width))

    def forward(self, frame: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, tokens, width)."""
        pooled = self.pool(self.features(frame)).flatten(2)  # (B, C, grid * grid)
        return self.project(pooled.mT) + self.position
