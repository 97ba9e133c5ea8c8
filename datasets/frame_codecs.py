"""How a store keeps its frames: as they are, compressed without loss, or as JPEGs.

T steps, frames (T, H, W, 3) uint8 RGB, a JPEG quality from 1 to 100.

    raw    one plain chunk: mapped, never decoded
    zstd   Zarr chunks of whole steps through Zarr's own zstd codec: bit for bit what was recorded
    jpeg   every frame a JPEG by itself, one after the other in a one-dimensional array of bytes
           with the offset of each: any frame can be decoded without the others

JPEGs keep full colour resolution (4:4:4): a red cube of 3 pixels, RGB (250, 10, 10), would come
out as (175, 33, 90) at half of it. docs/data.md has sizes, speeds and errors of all of them.
Pillow and zstd release the interpreter's lock while they work, so threads decode side by side.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loopdit.datasets.spec import TensorSpec
from loopdit.errors import ConfigError

RAW, ZSTD, JPEG = FRAMES = ("raw", "zstd", "jpeg")


class DamagedFrames(Exception):
    """Encoded frames that cannot be decoded; the message says why, and not where they lie."""


@dataclass(frozen=True)
class JpegFrames:
    """Frames as `data` (N,) uint8: frame t is `data[offsets[t]:offsets[t + 1]]`, offsets (T+1,)
    uint64."""

    offsets: np.ndarray
    data: np.ndarray


def check_frames(frames: str, jpeg_quality: int) -> None:
    """Raise ConfigError for an unknown way to keep frames, or a quality that no JPEG has."""
    if frames not in FRAMES:
        raise ConfigError(f"frames={frames!r} is unknown. Use one of: {', '.join(FRAMES)}.")
    if not 1 <= jpeg_quality <= 100:
        raise ConfigError(f"jpeg_quality={jpeg_quality} is not from 1 to 100. 95 is the default.")


def encoding_of(tensor: TensorSpec, frames: str) -> str:
    """How a store of this kind keeps one tensor: vectors are always raw, and images that no JPEG
    holds (depth, greyscale) are compressed without loss instead."""
    if not tensor.is_image:
        return RAW
    rgb = len(tensor.shape) == 3 and tensor.shape[-1] == 3 and tensor.dtype == "uint8"
    fits = rgb and all(0 < side < 65536 for side in tensor.shape[:2])
    return ZSTD if frames == JPEG and not fits else frames


def encode_jpegs(frames: np.ndarray, quality: int, subsampling: int = 0) -> JpegFrames:
    """frames (T, H, W, 3) uint8; `subsampling` is Pillow's: 0 is 4:4:4, 2 is 4:2:0."""
    from PIL import Image

    encoded: list[bytes] = []
    for frame in frames:
        file = io.BytesIO()
        image = Image.fromarray(np.ascontiguousarray(frame))
        image.save(file, "JPEG", quality=quality, subsampling=subsampling)
        encoded.append(file.getvalue())
    offsets = np.cumsum([0, *map(len, encoded)]).astype("<u8")
    return JpegFrames(offsets, np.frombuffer(b"".join(encoded), np.uint8))


def decode_jpegs(
    jpegs: JpegFrames, shape: tuple[int, int, int], steps: Sequence[int] | None = None
) -> np.ndarray:
    """The frames at `steps`, or all: (len(steps), H, W, 3) uint8, each of `shape`.

    Reads only the bytes of those frames. Raises DamagedFrames.
    """
    from PIL import Image

    chosen = range(len(jpegs.offsets) - 1) if steps is None else steps
    frames = np.empty((len(chosen), *shape), np.uint8)
    for frame, step in zip(frames, chosen, strict=True):
        start, end = jpegs.offsets[step : step + 2].tolist()
        try:
            with Image.open(io.BytesIO(jpegs.data[start:end].data), formats=["JPEG"]) as image:
                pixels = np.asarray(image)
        except (OSError, SyntaxError) as error:  # what Pillow raises for a damaged JPEG
            raise DamagedFrames(f"the JPEG of step {step} does not decode ({error})") from error
        if pixels.shape != shape:
            raise DamagedFrames(f"the JPEG of step {step} has shape {pixels.shape}, not {shape}")
        frame[...] = pixels
    return frames


def decode_zstd(chunk: bytes | memoryview, expected_bytes: int) -> bytes:
    """The content of one chunk, its checksum verified. Raises DamagedFrames."""
    from numcodecs.zstd import Zstd

    try:
        content = bytes(Zstd().decode(chunk))
    except (RuntimeError, ValueError) as error:
        raise DamagedFrames(f"does not decode ({error})") from error
    if len(content) != expected_bytes:
        raise DamagedFrames(f"decodes to {len(content)} bytes instead of {expected_bytes}")
    return content
