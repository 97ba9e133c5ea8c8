"""Camera frames as JPEG on the wire: for a link that is too slow for raw ones.

A client sends a camera's tensor (..., H, W, 3) as the bytes of one JPEG, uint8 (n,), and names it
in its OBS. Leading axes (a history) are part of the height: the frames lie below each other. What a
stranger sends is judged by its header, before anything is decoded: a few bytes can claim to be a
picture that fills all memory. Decoding takes a few hundred microseconds a frame, so it is left to
the thread that computes.

Pillow does the work (`pip install 'loopdit[jpeg]'` for a client; a server has it): unlike OpenCV it
refuses a picture that is cut short, rather than to complete it in grey.
"""

import io
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.tensor_spec import TensorSpec
from loopdit.deploy.messages import ErrorCode, WireError
from loopdit.errors import ConfigError

if TYPE_CHECKING:
    from PIL.JpegImagePlugin import JpegImageFile

JPEG = "jpeg"
# An ordinary JPEG has 1 scan of all pixels, a progressive one some 10; each of thousands would be
# gone through. The rest is for the thumbnail that a camera may put before the picture.
_MAX_SCANS = 16
_SCAN = b"\xff\xda"
_TABLES_BYTES = 4096  # what a JPEG has besides its pixels, which are fewer in a tiny frame

Frames: TypeAlias = Mapping[str, np.ndarray]


@cache
def available() -> bool:
    """Whether Pillow is installed. Asked when it matters: looking for it takes milliseconds."""
    return find_spec("PIL") is not None


def require_available() -> None:
    """Raise ConfigError where frames can be neither made nor read."""
    if not available():
        raise ConfigError("sending frames as JPEG needs Pillow: pip install 'loopdit[jpeg]'.")


def encoded(frames: Frames, spec: PolicySpec, quality: int) -> tuple[Frames, tuple[str, ...]]:
    """An observation with its cameras as JPEG of `quality` (1 to 100), and which those are."""
    cameras = [camera.name for camera in spec.cameras if camera.name in frames]
    made = dict(frames)
    for name in cameras:
        made[name] = np.frombuffer(_jpeg(frames[name], quality), np.uint8)
    return made, tuple(cameras)


def as_received(frame: np.ndarray, quality: int) -> np.ndarray:
    """What a server makes of a frame (..., H, W, 3) uint8 that was sent as JPEG of `quality`."""
    return np.asarray(_opened(_jpeg(frame, quality))).reshape(frame.shape)


def checked(frames: Frames, names: Collection[str], spec: PolicySpec) -> tuple[Frames, Frames]:
    """An observation in which `names` are JPEGs: as it may be kept, in memory of its own where its
    sender could still change what was checked; and with blank frames in their place, to check the
    rest of it.

    Raises WireError(UNKNOWN, SHAPE, TOO_BIG or MALFORMED).
    """
    cameras = {camera.name: camera for camera in spec.cameras}
    kept, shown = dict(frames), dict(frames)
    for name in set(names):
        camera = cameras.get(name)
        if camera is None or name not in frames:
            raise WireError(
                ErrorCode.UNKNOWN,
                f"jpeg names {name[:64]!r}, which is no camera of the policy that was sent.",
            )
        kept[name] = _checked(frames[name], camera)
        shown[name] = np.broadcast_to(np.uint8(0), camera.shape)
    return kept, shown


def decoded(frames: Frames, names: Collection[str], spec: PolicySpec) -> Frames:
    """An observation that was `checked`, with arrays in the place of JPEGs.

    Raises WireError(MALFORMED) for one that is broken behind its header.
    """
    made = dict(frames)
    for camera in spec.cameras:
        if camera.name in names:
            try:
                picture = np.asarray(_opened(frames[camera.name].tobytes()))
            except (OSError, SyntaxError, ValueError) as fault:
                raise _broken(camera.name, fault) from None
            made[camera.name] = picture.reshape(camera.shape)
    return made


def _checked(jpeg: np.ndarray, camera: TensorSpec) -> np.ndarray:
    height, width, _ = _picture_shape(camera.shape)
    if jpeg.dtype != np.uint8 or jpeg.ndim != 1:
        raise WireError(
            ErrorCode.SHAPE,
            f"{camera.name} is {jpeg.dtype} {jpeg.shape}; a JPEG is uint8 (n,), its bytes.",
        )
    if jpeg.nbytes > height * width * 3 + _TABLES_BYTES:
        raise WireError(
            ErrorCode.TOO_BIG,
            f"{camera.name} is a JPEG of {jpeg.nbytes} bytes, more than the frame. Send it raw.",
        )
    own = jpeg.tobytes()
    if own.count(_SCAN) > _MAX_SCANS:
        raise WireError(
            ErrorCode.MALFORMED, f"{camera.name} is a JPEG of more than {_MAX_SCANS} scans."
        )
    try:
        picture = _opened(own)
    except (OSError, SyntaxError, ValueError) as fault:
        raise _broken(camera.name, fault) from None
    if picture.size != (width, height) or picture.mode != "RGB":
        raise WireError(
            ErrorCode.SHAPE,
            f"{camera.name} is a JPEG of {picture.size[0]} x {picture.size[1]}, {picture.mode}; "
            f"the policy takes {width} x {height}, RGB.",
        )
    return np.frombuffer(own, np.uint8)


def _picture_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    *leading, height, width, channels = shape
    return int(np.prod(leading, dtype=int)) * height, width, channels


def _jpeg(frame: np.ndarray, quality: int) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(frame.reshape(_picture_shape(frame.shape))).save(out, "JPEG", quality=quality)
    return out.getvalue()


def _opened(jpeg: bytes) -> "JpegImageFile":
    """By this decoder and no other of Pillow's; its header is read."""
    from PIL.JpegImagePlugin import JpegImageFile

    return JpegImageFile(io.BytesIO(jpeg))


def _broken(name: str, fault: Exception) -> WireError:
    return WireError(ErrorCode.MALFORMED, f"{name} is no whole JPEG: {fault!s:.100}.")
