"""What a task for the canvas model is: canvases made from a seed, of a layout and its modalities.

TRAIN and HELD_OUT are drawn alike, from streams of their own; further splits are out of what
training has seen, each in a way that its task says.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from loopdit.policy.canvas.layout import CanvasLayout
from loopdit.policy.canvas.modalities import ModalityConfig

TRAIN, HELD_OUT = "train", "held_out"


class CanvasTask(Protocol):
    """See the module. `main` is the output that the task is about."""

    @property
    def layout(self) -> CanvasLayout:
        """Where things are, and what is to be predicted."""
        ...

    @property
    def modalities(self) -> ModalityConfig:
        """How many numbers a token of each kind has."""
        ...

    @property
    def main(self) -> str:
        """The name of the output that the task is about."""
        ...

    @property
    def splits(self) -> Sequence[str]:
        """TRAIN, HELD_OUT, and those that are out of their distribution."""
        ...

    def canvases(self, count: int, seed: int, split: str) -> dict[str, Tensor]:
        """`count` canvases: by region (count, n, size) float32, of text (count, n) int64."""
        ...


def random_stream(seed: int, split: str, splits: Sequence[str]) -> np.random.Generator:
    """A stream for each split of each seed. Raises ValueError for a split that is none."""
    return np.random.default_rng([seed, list(splits).index(split)])


def tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """A canvas of arrays as what the model takes: integers int64, the rest float32."""
    return {
        name: torch.from_numpy(
            np.ascontiguousarray(values, np.int64 if values.dtype.kind == "i" else np.float32)
        )
        for name, values in arrays.items()
    }
