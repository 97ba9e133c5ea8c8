"""A camera frame as a handful of tokens: small convolutions, then expected keypoint positions.

Tokens are what costs on a CPU. A spatial softmax (arXiv 1509.06113) turns each feature map into
where its feature is, to a fraction of a pixel, which is what reaching for things needs. Wider
stems, finer maps and a flattened map did no better on `lift` in equal time
(docs/experiments/2026-11-23-lift.md).
"""

import torch
from torch import Tensor, nn

from loopdit.policy.encoders.stem import STEM_CHANNELS, stem

_CHANNELS = 64
TOKENS_PER_CAMERA = 4


class KeypointEncoder(nn.Module):
    """One camera: (B, 3, S, S) in [-1, 1] -> (B, 4, width)."""

    tokens = TOKENS_PER_CAMERA

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = nn.Sequential(*stem(), nn.Conv2d(STEM_CHANNELS, _CHANNELS, 1))
        self.project = nn.Linear(3 * _CHANNELS // TOKENS_PER_CAMERA, width)

    def forward(self, frame: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, TOKENS_PER_CAMERA, width)."""
        features = self.features(frame)  # (B, C, h, w)
        keypoints = _keypoints(features)  # (B, C, 3)
        return self.project(keypoints.reshape(frame.shape[0], TOKENS_PER_CAMERA, -1))


def _keypoints(features: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C, 3): expected x and y in [-1, 1], and how strong the feature is."""
    height, width = features.shape[-2:]
    flat = features.flatten(2)
    attention = flat.softmax(-1)  # (B, C, h * w)
    y = torch.linspace(-1, 1, height, device=features.device).repeat_interleave(width)
    x = torch.linspace(-1, 1, width, device=features.device).repeat(height)
    strength = 0.1 * flat.amax(-1)  # 0.1 brings it to the scale of the positions
    return torch.stack([attention @ x, attention @ y, strength], dim=-1)
