"""Frames of one camera as JPEGs of a bounded size and number, for a page or a viewer.

Frames are (T, H, W, 3) uint8 RGB.
"""

import base64
import io
from dataclasses import dataclass

import numpy as np

_QUALITY = 85


@dataclass(frozen=True)
class Film:
    """`steps` are the control steps that `jpegs` show, evenly spaced, first and last among them."""

    steps: tuple[int, ...]
    jpegs: tuple[bytes, ...]
    width: int
    height: int

    @property
    def urls(self) -> list[str]:
        """Each frame as a URL that holds it."""
        return [f"data:image/jpeg;base64,{base64.b64encode(one).decode()}" for one in self.jpegs]


def film(frames: np.ndarray, most: int, widest: int) -> Film:
    """At most `most` frames of at most `widest` pixels across; none is made larger."""
    count = min(most, len(frames))
    steps = np.unique(np.linspace(0, len(frames) - 1, count).round().astype(int))
    height, width = frames.shape[1:3]
    if width > widest:
        height, width = max(1, round(height * widest / width)), widest
    jpegs = tuple(_jpeg(frames[step], width, height) for step in steps)
    return Film(tuple(int(step) for step in steps), jpegs, width, height)


def _jpeg(frame: np.ndarray, width: int, height: int) -> bytes:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(frame))
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    written = io.BytesIO()
    image.save(written, "JPEG", quality=_QUALITY, subsampling=0)  # small things keep their colour
    return written.getvalue()
