"""Contact detection: does a probe touch any of three discs in a square?

The probe is a disc too, and each is a token: its place, its radius, and sine and cosine of its
place at wavelengths of 4, 2, 1 and a half, by which a product of two tokens can tell a short
distance from a long one. The answer is 1 where the probe overlaps any of the others and -1 else.
That takes attending to the nearest and to no others: attention that is nearly a choice.

Places are in a square of side 2 about 0; radii are such that about 4 of 10 probes touch. Among
eight smaller discs no model of the experiments' sizes learned anything in 48,000 examples.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from loopdit.eval.experiments.tasks.canvas_task import HELD_OUT, TRAIN, random_stream, tensors
from loopdit.policy.canvas.layout import CanvasLayout, Region
from loopdit.policy.canvas.modalities import ModalityConfig

PROBE, DISCS, CONTACT = "probe", "discs", "contact"
_OTHERS = 3
_WAVELENGTHS = np.array([4.0, 2.0, 1.0, 0.5])


@dataclass(frozen=True)
class ContactsTask:
    """See the module."""

    @property
    def layout(self) -> CanvasLayout:
        """A row: the probe, the others, the answer."""
        row, end = range(1), 1 + _OTHERS
        return CanvasLayout(
            (1, 1, end + 1),
            (
                Region(PROBE, "proprio", row, row, range(1)),
                Region(DISCS, "proprio", row, row, range(1, end)),
                Region(CONTACT, "reward", row, row, range(end, end + 1)),
            ),
            outputs=(CONTACT,),
        )

    @property
    def modalities(self) -> ModalityConfig:
        """Place, radius, and two numbers for each axis and wavelength."""
        return ModalityConfig(proprio=3 + 4 * len(_WAVELENGTHS))

    @property
    def main(self) -> str:
        """Whether the probe touches."""
        return CONTACT

    @property
    def splits(self) -> tuple[str, ...]:
        """No other."""
        return (TRAIN, HELD_OUT)

    def canvases(self, count: int, seed: int, split: str) -> dict[str, Tensor]:
        """See CanvasTask. A disc's numbers: y, x, ten times its radius, then the waves."""
        rng = random_stream(seed, split, self.splits)
        place = rng.uniform(-1, 1, size=(count, 1 + _OTHERS, 2))
        radius = rng.uniform(0.16, 0.32, size=(*place.shape[:2], 1))
        angle = 2 * np.pi * place[..., None] / _WAVELENGTHS  # (B, n, 2, wavelengths)
        waves = np.concatenate([np.sin(angle), np.cos(angle)], axis=-1)
        seen = np.concatenate([place, 10 * radius, waves.reshape(*place.shape[:2], -1)], axis=-1)
        apart = np.linalg.norm(place[:, 1:] - place[:, :1], axis=-1)  # (B, others)
        touching = (apart < (radius[:, 1:] + radius[:, :1])[..., 0]).any(-1)
        answer = np.where(touching, 1.0, -1.0)[:, None, None]
        return tensors({PROBE: seen[:, :1], DISCS: seen[:, 1:], CONTACT: answer})
