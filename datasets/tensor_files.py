"""One array of an episode as files: encoded, read back, and held against what was written.

    <folder>/zarr.json, c.0.0          raw: one plain chunk
    <folder>/zarr.json, c.0.0.0.0 ...  zstd: chunks of whole steps
    <folder>/zarr.json                 jpeg: a group that says how to read its two plain arrays,
    <folder>/offsets/, jpegs/          `frame_codecs.JpegFrames`

Files are asked for by name, whole: from a disk or from an address, which is not known here.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loopdit.datasets.episode import Content, buffer_of, plain_content
from loopdit.datasets.frame_codecs import (
    JPEG,
    RAW,
    ZSTD,
    DamagedFrames,
    JpegFrames,
    decode_jpegs,
    decode_zstd,
    encode_jpegs,
)
from loopdit.datasets.zarr_files import (
    METADATA,
    Buffer,
    array_metadata,
    chunk_count,
    chunk_name,
    group_metadata,
    plain_files,
    zstd_files,
)

# Chosen by scripts/bench_layouts.py, whose table is in docs/data.md.
ZSTD_LEVEL = 3
ZSTD_CHUNK_BYTES = 4 << 20

_OFFSETS, _JPEGS = "offsets", "jpegs"
_JPEG_LAYOUT = "frame t is the JPEG jpegs[offsets[t]:offsets[t + 1]]"

# The bytes (N,) uint8 of a file of the episode, None where there is none.
Read = Callable[[str], np.ndarray | None]


class Damage(Exception):
    """A file of an episode that is not as it was written: its name, and what is wrong with it."""

    def __init__(self, file: str, problem: str) -> None:
        super().__init__(f"{file} {problem}")
        self.file = file
        self.problem = problem


@dataclass(frozen=True)
class Tensor:
    """One array: the folder it lies in, its shape (T, ...), little-endian dtype and encoding."""

    folder: str
    shape: tuple[int, ...]
    dtype: np.dtype
    encoding: str = RAW

    @property
    def nbytes(self) -> int:
        """Its size, decoded."""
        return math.prod(self.shape) * self.dtype.itemsize

    def chunk(self, number: int = 0) -> str:
        """The file of one of its chunks; of a raw array the only one."""
        return f"{self.folder}/{chunk_name(len(self.shape), number)}"


def encode_array(
    array: np.ndarray | JpegFrames, tensor: Tensor, jpeg_quality: int
) -> tuple[dict[str, Buffer], Content]:
    """The files of an array by name, and what it adds to its episode's identity.

    Where the tensor is kept as JPEGs it may be given as some: they are kept as they are.
    """
    if isinstance(array, JpegFrames):
        return _jpeg_files(array, tensor), _jpeg_content(array, tensor)
    if tensor.encoding == JPEG:
        return encode_array(encode_jpegs(array, jpeg_quality), tensor, jpeg_quality)
    if tensor.encoding == ZSTD:
        files = zstd_files(array, ZSTD_LEVEL, ZSTD_CHUNK_BYTES)
    else:
        files = plain_files(array)
    return _below(tensor.folder, files), plain_content(array)


def read_array(read: Read, tensor: Tensor, steps: Sequence[int] | None = None) -> np.ndarray:
    """An array (T, ...), or its rows at `steps`, read-only. Raises Damage.

    Of a raw array it is a view of what `read` returned; of JPEGs and zstd chunks only those that
    have chosen steps are decoded.
    """
    if tensor.encoding == JPEG:
        array = _decoded_jpegs(read, tensor, steps)
    elif tensor.encoding == ZSTD:
        array = _decoded_zstd(read, tensor, steps)
    else:
        plain = _plain(read, tensor.chunk(), tensor.nbytes)
        array = plain.view(tensor.dtype).reshape(tensor.shape)
        array = array if steps is None else array[list(steps)]
    array.flags.writeable = False
    return array


def read_content(read: Read, tensor: Tensor) -> Content:
    """What an array adds to its episode's identity. Raises Damage for what does not decode."""
    if tensor.encoding == JPEG:
        _decoded_jpegs(read, tensor, None)
        return _jpeg_content(read_jpegs(read, tensor), tensor)
    return plain_content(read_array(read, tensor))


def read_jpegs(read: Read, tensor: Tensor) -> JpegFrames:
    """The encoded frames of a tensor that is kept as JPEGs. Raises Damage."""
    file = f"{tensor.folder}/{_OFFSETS}/{chunk_name(1)}"
    offsets = _plain(read, file, 8 * (tensor.shape[0] + 1)).view("<u8")
    if offsets[0] != 0 or (offsets[1:] < offsets[:-1]).any():
        raise Damage(file, "has offsets that do not rise from 0")
    data = _plain(read, f"{tensor.folder}/{_JPEGS}/{chunk_name(1)}", int(offsets[-1]))
    return JpegFrames(offsets, data)


def check_metadata(read: Read, tensor: Tensor) -> None:
    """Raise Damage where a metadata file of the array is not what Zarr readers need there."""
    folder = tensor.folder
    if tensor.encoding == JPEG:
        group = _metadata(read, folder)
        if group.get("node_type") != "group":
            raise Damage(f"{folder}/{METADATA}", "is not a group's")
        size = len(read_jpegs(read, tensor).data)
        offsets = Tensor(f"{folder}/{_OFFSETS}", (tensor.shape[0] + 1,), np.dtype("<u8"))
        check_metadata(read, offsets)
        check_metadata(read, Tensor(f"{folder}/{_JPEGS}", (size,), np.dtype("u1")))
        return
    found = _metadata(read, folder)
    for key, value in json.loads(written_metadata(found, tensor)).items():
        if key not in ("attributes", "storage_transformers") and found.get(key) != value:
            raise Damage(
                f"{folder}/{METADATA}", f"says {key} {found.get(key)}, its episode {value}"
            )


def written_metadata(found: Mapping[str, Any], tensor: Tensor) -> bytes:
    """The metadata file of a raw or zstd array as it was written, where `found` is what it says:
    how many steps a chunk has, and the level, were the writer's choice. Raises Damage."""
    if tensor.encoding != ZSTD:
        return array_metadata(tensor.shape, tensor.dtype)
    steps = _chunk_steps(found, f"{tensor.folder}/{METADATA}")
    return array_metadata(tensor.shape, tensor.dtype, steps, _zstd_level(found))


def parsed(read: Read, file: str) -> dict[str, Any]:
    """A file of JSON that holds an object. Raises Damage."""
    content = read(file)
    if content is None:
        raise Damage(file, "is missing")
    try:
        data: Any = json.loads(content.tobytes())
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise Damage(file, "is no JSON of a Zarr group or array")
    return data


def _metadata(read: Read, folder: str) -> dict[str, Any]:
    return parsed(read, f"{folder}/{METADATA}")


def _plain(read: Read, file: str, nbytes: int) -> np.ndarray:
    content = read(file)
    if content is None:
        raise Damage(file, f"is missing, where its episode has {nbytes} bytes")
    if content.nbytes != nbytes:
        raise Damage(file, f"has {content.nbytes} bytes, its episode {nbytes}")
    return content


def _below(folder: str, files: Mapping[str, Buffer]) -> dict[str, Buffer]:
    return {f"{folder}/{name}": content for name, content in files.items()}


def _jpeg_files(jpegs: JpegFrames, tensor: Tensor) -> dict[str, Buffer]:
    attributes = {
        "encoding": JPEG,
        "layout": _JPEG_LAYOUT,
        "shape": tensor.shape,
        "data_type": tensor.dtype.name,
    }
    return {
        f"{tensor.folder}/{METADATA}": group_metadata(attributes),
        **_below(f"{tensor.folder}/{_OFFSETS}", plain_files(jpegs.offsets)),
        **_below(f"{tensor.folder}/{_JPEGS}", plain_files(jpegs.data)),
    }


def _jpeg_content(jpegs: JpegFrames, tensor: Tensor) -> Content:
    described = (tensor.shape, tensor.dtype.name, JPEG)
    return Content(described, (buffer_of(jpegs.offsets), buffer_of(jpegs.data)))


def _decoded_jpegs(read: Read, tensor: Tensor, steps: Sequence[int] | None) -> np.ndarray:
    _, height, width, channels = tensor.shape
    jpegs = read_jpegs(read, tensor)
    try:
        return decode_jpegs(jpegs, (height, width, channels), steps)
    except DamagedFrames as error:
        file = f"{tensor.folder}/{_JPEGS}/{chunk_name(1)}"
        raise Damage(file, f"is damaged: {error}") from error


def _decoded_zstd(read: Read, tensor: Tensor, steps: Sequence[int] | None) -> np.ndarray:
    length, file = tensor.shape[0], f"{tensor.folder}/{METADATA}"
    metadata = _metadata(read, tensor.folder)
    per_chunk = _chunk_steps(metadata, file)
    # Where the list has another length, it may be one for which there is no memory.
    if metadata.get("shape") != list(tensor.shape):
        raise Damage(file, f"says shape {metadata.get('shape')}, its episode {list(tensor.shape)}")
    chosen = np.arange(length) if steps is None else np.asarray(steps, int)
    if (chosen < 0).any() or (chosen >= length).any():
        raise IndexError(f"steps {steps} of an episode of {length}")
    array = np.empty((len(chosen), *tensor.shape[1:]), tensor.dtype)
    for number in range(chunk_count(length, per_chunk)):
        here = chosen // per_chunk == number
        if here.any():
            chunk = _decoded_chunk(read, tensor, number, per_chunk)
            array[here] = chunk[chosen[here] - number * per_chunk]
    return array


def _decoded_chunk(read: Read, tensor: Tensor, number: int, steps: int) -> np.ndarray:
    file, shape = tensor.chunk(number), (steps, *tensor.shape[1:])
    content = read(file)
    if content is None:
        raise Damage(file, "is missing")
    try:
        decoded = decode_zstd(content.data, math.prod(shape) * tensor.dtype.itemsize)
    except DamagedFrames as error:
        raise Damage(file, str(error)) from error
    return np.frombuffer(decoded, tensor.dtype).reshape(shape)


def _chunk_steps(metadata: Mapping[str, Any], file: str) -> int:
    try:
        steps = int(metadata["chunk_grid"]["configuration"]["chunk_shape"][0])
    except (KeyError, TypeError, IndexError, ValueError, OverflowError):
        steps = 0
    if steps < 1:
        raise Damage(file, "does not say how many steps a chunk has")
    return steps


def _zstd_level(metadata: Mapping[str, Any]) -> int:
    """The level does not matter to a reader, so any is right."""
    try:
        level = metadata["codecs"][1]["configuration"]["level"]
    except (KeyError, TypeError, IndexError):
        level = None
    return level if isinstance(level, int) else ZSTD_LEVEL
