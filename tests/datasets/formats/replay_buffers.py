"""Replay buffers as Diffusion Policy's published sets are, by zarr alone, and what is in one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numcodecs import Blosc

ENDS = [3, 4, 9]


def write_buffer(path: Path, data: Mapping[str, np.ndarray], ends: list[int] = ENDS) -> None:
    """By zarr alone, in the chunks and with the compressor of the published sets."""
    root = zarr.open_group(path, mode="w", zarr_format=2)
    for key, values in data.items():
        array = root.require_group("data").create_array(
            key, shape=values.shape, dtype=values.dtype, chunks=(4, *values.shape[1:]),
            compressors=Blosc("zstd", clevel=5, shuffle=Blosc.BITSHUFFLE),
        )  # fmt: skip
        array[:] = values
    meta = root.require_group("meta")
    meta.create_array("episode_ends", shape=(len(ends),), dtype="i8")[:] = np.array(ends)


def push_t(frames: str = "float32") -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "img": random.integers(0, 256, (9, 6, 5, 3)).astype(frames),
        "state": random.normal(size=(9, 5)).astype(np.float32),
        "action": random.uniform(0, 512, (9, 2)).astype(np.float32),
        "n_contacts": random.integers(0, 4, (9, 1)).astype(np.float32),
    }


def content(path: Path) -> dict[str, tuple[Any, ...]]:
    root: Any = zarr.open_group(path, mode="r")
    arrays: dict[str, Any] = {f"data/{key}": array for key, array in root["data"].arrays()}
    arrays |= {f"meta/{key}": array for key, array in root["meta"].arrays()}
    return {key: (a.dtype, a.shape, np.asarray(a[...]).tolist()) for key, a in arrays.items()}
