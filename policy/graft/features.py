"""What an action decoder reads of a video transformer.

Shapes: B batch, N video tokens, D width, T latent frames, C channels, h and w of a latent frame.
"""

from typing import NamedTuple

from torch import Tensor


class Features(NamedTuple):
    """Of clips at one noise level: `hidden` (B, N, D), the video tokens after the last block and
    its norm; `sample` (B, T, C, h, w), what the transformer says of the noise."""

    hidden: Tensor
    sample: Tensor
