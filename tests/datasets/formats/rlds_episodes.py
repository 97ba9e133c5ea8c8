"""Small foreign episodes and RLDS data sets made of them, and records read the slow way."""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from loopdit.datasets.formats import rlds
from loopdit.datasets.formats.foreign import Export, ForeignEpisode

IMAGES = ("observation/front", "observation/wrist")


def foreign_episode(seed: int, length: int = 4, **changed: Any) -> ForeignEpisode:
    """Random content; `changed` replaces or adds steps, with "/" written "__"."""
    random = np.random.default_rng(seed)
    steps: dict[str, np.ndarray] = {
        key: random.integers(1, 256, (length, 6, 8, 3), dtype=np.uint8) for key in IMAGES
    }
    steps["observation/state"] = random.normal(size=(length, 3)).astype(np.float32)
    steps["action"] = random.uniform(-1, 1, (length, 4)).astype(np.float32)
    steps["reward"] = random.normal(size=length)
    steps |= {key.replace("__", "/"): value for key, value in changed.items()}
    return ForeignEpisode(
        where=f"episode {seed}",
        steps=steps,
        texts={"language_instruction": (f"lift cube {seed}",)},
        metadata={"episode_metadata/file": f"take {seed}", "episode_metadata/number": seed},
    )


def write_data_set(path: Path, *episodes: ForeignEpisode) -> Path:
    """An RLDS data set with these episodes, at `path`."""
    images = [key for key, values in episodes[0].steps.items() if values.dtype == np.uint8]
    export = Export(iter(episodes), len(episodes), 10.0, images, {}, {})
    rlds.write(path, export)
    return path


def same_episode(one: ForeignEpisode, other: ForeignEpisode) -> None:
    """Assert that all but `where` is equal, bit by bit."""
    assert set(one.steps) == set(other.steps)
    for key, values in one.steps.items():
        there = other.steps[key]
        assert (values.dtype, values.shape) == (there.dtype, there.shape), key
        assert values.tobytes() == there.tobytes(), key
    assert one.texts == other.texts
    assert one.metadata == other.metadata


def slow_records(path: Path) -> list[dict[str, list[Any]]]:
    """Every tf.train.Example of a file, decoded by the wire format alone."""
    data, offset, found = path.read_bytes(), 0, list[dict[str, list[Any]]]()
    while offset < len(data):
        (length,) = struct.unpack_from("<Q", data, offset)
        found.append(_example(data[offset + 12 : offset + 12 + length]))
        offset += 16 + length
    return found


def _example(data: bytes) -> dict[str, list[Any]]:
    features: dict[str, list[Any]] = {}
    for _, body in _fields(data):  # Example.features
        for _, entry in _fields(body):  # Features.feature, a map's entry
            named: Mapping[int, Any] = dict(_fields(entry))
            features[named[1].decode()] = [
                value for kind, body in _fields(named[2]) for value in _list(kind, body)
            ]
    return features


def _list(kind: int, body: bytes) -> list[Any]:
    """The values of a BytesList (1), FloatList (2) or Int64List (3)."""
    found: list[Any] = []
    for _, packed in _fields(body):
        if kind == 1:
            found.append(packed)
        elif kind == 2:
            found += struct.unpack(f"<{len(packed) // 4}f", packed)
        else:
            at = 0
            while at < len(packed):
                value, at = _varint(packed, at)
                found.append(value - (1 << 64) if value >> 63 else value)
    return found


def _fields(data: bytes) -> list[tuple[int, Any]]:
    found, at = list[tuple[int, Any]](), 0
    while at < len(data):
        tag, at = _varint(data, at)
        assert tag & 7 == 2, "only length-delimited fields are written"
        size, at = _varint(data, at)
        found.append((tag >> 3, data[at : at + size]))
        at += size
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
