"""Writes the golden latents of format version 1: two clips of one episode.

`make goldens` runs it; the difference to the committed files is then a change of the format.
"""

import shutil
import sys
from pathlib import Path

import numpy as np

from loopdit.datasets.video.latent_store import LatentKey, LatentStore

GOLDEN = Path(__file__).with_name("latents_v1")
KEY = LatentKey("0123456789abcdef", "images.front", 9, 16, 32, "pad", 5)
SHAPE = (3, 2, 2, 4)
EPISODE = "00112233445566778899aabbccddeeff"


def golden_latents() -> np.ndarray:
    """(2, 3, 2, 2, 4) float32 that float16 holds exactly."""
    return (np.arange(2 * 3 * 2 * 2 * 4, dtype=np.float32) / 8 - 6).reshape(2, *SHAPE)


def write_golden(path: Path) -> None:
    LatentStore.at(path, KEY, SHAPE).write(EPISODE, golden_latents())


if __name__ == "__main__":
    if GOLDEN.exists():
        shutil.rmtree(GOLDEN)
    write_golden(GOLDEN)
    sys.stdout.write(f"wrote {GOLDEN}\n")
