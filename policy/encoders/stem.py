"""The convolutions that frames go through first: three halvings, to a feature map of an eighth.

Normalised by groups within a frame: nothing depends on the other frames of a batch.
"""

from torch import nn

STEM_CHANNELS = 64
STEM_STRIDE = 8


def stem() -> list[nn.Module]:
    """Layers from (B, 3, S, S) to (B, STEM_CHANNELS, S / 8, S / 8), halves rounded up."""
    return [
        nn.Conv2d(3, 16, 5, stride=2, padding=2),
        nn.GroupNorm(4, 16),
        nn.SiLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.GroupNorm(8, 32),
        nn.SiLU(),
        nn.Conv2d(32, STEM_CHANNELS, 3, stride=2, padding=1),
        nn.GroupNorm(8, STEM_CHANNELS),
        nn.SiLU(),
    ]
