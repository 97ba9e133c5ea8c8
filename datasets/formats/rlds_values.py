"""One feature's list in a record as an array or texts, and back.

T steps. Tensors are flat lists of all steps, or raw bytes of each step; images are encoded bytes of
each step, decoded by Pillow (TensorFlow's JPEG decoder may differ from it by a level or two).
Bytes of a text that are not UTF-8 survive as lone surrogates.
"""

import io
import zlib
from collections.abc import Sequence
from math import prod

import numpy as np
from PIL import Image

from loopdit.datasets.formats.rlds_features import IMAGE, TENSOR, RldsFeature
from loopdit.datasets.formats.tf_example import Feature

_EXACT_IN_LISTS = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")
_FLOATS_IN_LISTS = ("float16", "float32")


def decoded(feature: RldsFeature, values: Feature, count: int) -> np.ndarray | list[str]:
    """`count` tensors or images stacked (count, ...), or the texts. Raises ValueError saying what
    does not fit, with the number of the step."""
    if feature.kind == IMAGE:
        return _images(feature, _as_bytes(values), count)
    if feature.kind == TENSOR:
        if feature.encoding in ("bytes", "zlib"):
            return _from_bytes(feature, _as_bytes(values), count)
        return _from_list(feature, values, count)
    texts = _as_bytes(values)
    if feature.shape:
        raise ValueError("has several texts a step, which this loopdit cannot read")
    if len(texts) != count:
        raise ValueError(f"has {len(texts)} texts for {count} steps")
    return [text.decode("utf-8", "surrogateescape") for text in texts]


def encoded(feature: RldsFeature, values: np.ndarray | Sequence[str]) -> Feature:
    """What `decoded` reads. `values` fit the feature."""
    if not isinstance(values, np.ndarray):
        return [text.encode("utf-8", "surrogateescape") for text in values]
    if feature.kind == IMAGE:
        return [_png(frame) for frame in values]
    if feature.encoding in ("bytes", "zlib"):
        steps = [np.ascontiguousarray(step).tobytes() for step in values]
        return [zlib.compress(step) for step in steps] if feature.encoding == "zlib" else steps
    return values.reshape(-1)


def tensor_feature(path: str, shape: tuple[int, ...], dtype: np.dtype) -> RldsFeature:
    """The feature that holds such tensors exactly: as a list where int64 or float32 can hold the
    dtype, else as bytes."""
    listed = dtype.name in (*_EXACT_IN_LISTS, *_FLOATS_IN_LISTS)
    return RldsFeature(path, TENSOR, tuple(shape), dtype.name, "none" if listed else "bytes")


def _as_bytes(values: Feature) -> list[bytes]:
    if isinstance(values, list):
        return values
    if len(values) == 0:
        return []
    raise ValueError("has numbers where its description says bytes")


def _from_list(feature: RldsFeature, values: Feature, count: int) -> np.ndarray:
    if isinstance(values, list):
        raise ValueError("has bytes where its description says numbers")
    sizes = [size for size in feature.shape if size is not None]
    unknown = len(feature.shape) - len(sizes)
    if unknown > 1:
        raise ValueError("has more than one size that varies, which this loopdit cannot read")
    whole = prod(sizes) * count
    if not whole or (len(values) % whole if unknown else len(values) != whole):
        raise ValueError(
            f"has {len(values)} values for {count} steps of shape {feature.shape}, "
            f"{prod(sizes)} each"
        )
    if values.dtype.kind == "f" and np.dtype(feature.dtype).kind in "iub":
        raise ValueError(f"has floats where its description says {feature.dtype}")
    shape = (count, *(-1 if size is None else size for size in feature.shape))
    return values.reshape(shape).astype(feature.dtype)


def _from_bytes(feature: RldsFeature, values: list[bytes], count: int) -> np.ndarray:
    shape = tuple(size for size in feature.shape if size is not None)
    if len(shape) < len(feature.shape):
        raise ValueError("has a size that varies, which this loopdit cannot read")
    if len(values) != count:
        raise ValueError(f"has {len(values)} tensors for {count} steps")
    dtype = np.dtype(feature.dtype).newbyteorder("<")
    steps: list[np.ndarray] = []
    for number, data in enumerate(values):
        try:
            plain = zlib.decompress(data) if feature.encoding == "zlib" else data
            steps.append(np.frombuffer(plain, dtype).reshape(shape))
        except (zlib.error, ValueError) as error:
            raise ValueError(f"is damaged at step {number} ({error})") from error
    return np.stack(steps)


def _images(feature: RldsFeature, values: list[bytes], count: int) -> np.ndarray:
    if len(values) != count:
        raise ValueError(f"has {len(values)} images for {count} steps")
    frames: list[np.ndarray] = []
    for number, data in enumerate(values):
        try:
            frame = _decoded_image(data, feature)
        except Exception as error:  # Pillow raises what its plug-ins raise: OSError, SyntaxError...
            if isinstance(error, MemoryError):
                raise
            raise ValueError(f"has an image that cannot be read at step {number}") from error
        if frames and frame.shape != frames[0].shape:
            raise ValueError(
                f"has an image of shape {frame.shape} at step {number}, "
                f"of shape {frames[0].shape} before"
            )
        frames.append(frame)
    return np.stack(frames)


def _decoded_image(data: bytes, feature: RldsFeature) -> np.ndarray:
    """(H, W, C) in the feature's dtype. Floats of a depth image are stored as the four channels
    of a PNG, as TFDS does it."""
    with Image.open(io.BytesIO(data)) as image:
        channels = feature.shape[-1] if feature.shape else 3
        if channels == 3 and feature.dtype == "uint8" and image.mode != "RGB":
            image = image.convert("RGB")
        frame = np.asarray(image)
    if feature.dtype == "float32":
        return np.ascontiguousarray(frame).view("<f4")
    return (frame[..., None] if frame.ndim == 2 else frame).astype(feature.dtype)


def _png(frame: np.ndarray) -> bytes:
    if frame.dtype == np.float32:
        frame = np.ascontiguousarray(frame, dtype="<f4").view(np.uint8)
    flat = frame[..., 0] if frame.shape[-1] == 1 else frame
    buffer = io.BytesIO()
    # Level 1: frames of a camera are 2 to 3 times as fast to write for a few per cent of size.
    Image.fromarray(flat).save(buffer, "png", compress_level=1)
    return buffer.getvalue()
