"""The files of Zarr v3 groups and arrays as we write them, without the zarr library.

Each array is ONE uncompressed chunk, so its chunk file is plain C-order bytes: `np.memmap` maps it
as it lies, and reads cost a page fault. Measured for an episode of 40 steps with two 64x64
cameras: zarr 3.1.6 takes 20 ms to write it before any fsync, this module 2 ms, and an array read
through zarr costs about 1 ms where a map costs none. zarr would also leave out the chunk file of
an array that is all zeros. The zarr library reads what is written here (tests hold it to that).
"""

import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

METADATA = "zarr.json"


def write_group(folder: Path, attributes: Mapping[str, Any]) -> None:
    """Give the existing `folder` the metadata of a group."""
    _write_json(
        folder / METADATA,
        {"attributes": attributes, "zarr_format": 3, "node_type": "group"},
    )


def write_array(folder: Path, array: np.ndarray) -> None:
    """Make `folder` an array of one chunk."""
    folder.mkdir()
    _write_json(folder / METADATA, _array_metadata(array))
    with open(chunk_file(folder, array.ndim), "wb") as file:
        file.write(np.ascontiguousarray(array).data)


def chunk_file(folder: Path, axes: int) -> Path:
    """Where the only chunk of an array with this many axes lies: `c.0.0` for two."""
    return folder / ".".join(["c", *["0"] * axes])


def sync_tree(folder: Path) -> None:
    """Return when every file and folder below and including `folder` is on the disk."""
    paths = [folder, *folder.rglob("*")]
    # At once, because the file system then commits its journal for many: on a busy ext4 disk the
    # 14 paths of an episode took 40 to 60 ms one after the other, 2 to 11 ms this way.
    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(_sync, paths))  # list() raises what a thread raised


def sync_folder(folder: Path) -> None:
    """Return when the names in `folder` are on the disk (a rename is not until then)."""
    _sync(folder)


def _array_metadata(array: np.ndarray) -> dict[str, Any]:
    kind = array.dtype.kind
    endian = {} if array.dtype.itemsize == 1 else {"configuration": {"endian": "little"}}
    return {
        "shape": array.shape,
        "data_type": array.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": array.shape}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": False if kind == "b" else 0.0 if kind == "f" else 0,
        "codecs": [{"name": "bytes"} | endian],
        "attributes": {},
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }


def _write_json(file: Path, data: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(data, indent=2))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
