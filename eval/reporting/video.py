"""Rollout videos that play in a browser: H.264 in MP4, at the speed of the robot.

A picture has what people want to see on the left, and the policy's own camera frames, enlarged
without smoothing, stacked on the right.
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError

from loopdit.errors import ConfigError

_ENCODER = "libx264"


def require_encoder() -> None:
    """Raise ConfigError where PyAV was built without H.264."""
    if _ENCODER not in av.codecs_available:
        raise ConfigError(
            f"videos need PyAV with {_ENCODER}, which is not in this build ({av.__version__}). "
            f"Use videos=0, or install av from PyPI's wheels."
        )


def picture(scene: np.ndarray, frames: Sequence[np.ndarray]) -> np.ndarray:
    """Scene (H, W, 3) and camera frames (h, w, 3), all uint8 -> (H, W + H / len(frames), 3).

    Height and width are even, as the pixel format asks.
    """
    height = scene.shape[0] // (2 * len(frames)) * 2
    inset = np.concatenate([_enlarged(frame, height) for frame in frames])
    return np.concatenate([scene[: inset.shape[0] // 2 * 2], inset], axis=1)


def write_mp4(path: Path, pictures: Sequence[np.ndarray], period_s: float) -> None:
    """Write pictures (H, W, 3) uint8, `period_s` apart. H and W must be even."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, _ = pictures[0].shape
    # faststart puts the index in front, so that playing begins before the whole file is there.
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream(_ENCODER, rate=round(1 / period_s))
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "28", "preset": "slow"}
        for rgb in pictures:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def last_picture(path: Path) -> bytes | None:
    """A JPEG of how a video ends, which a page shows until it plays; None for one that cannot be
    decoded."""
    encoder = av.CodecContext.create("mjpeg", "w")
    last: av.VideoFrame | None = None
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                last = frame
    except FFmpegError:
        return None
    if last is None:
        return None
    encoder.width, encoder.height = last.width, last.height
    encoder.pix_fmt, encoder.time_base = "yuvj420p", Fraction(1, 1)
    packets = encoder.encode(last.reformat(format="yuvj420p"))
    return b"".join(bytes(packet) for packet in [*packets, *encoder.encode()])


def _enlarged(frame: np.ndarray, size: int) -> np.ndarray:
    """Nearest neighbour to (size, size, 3)."""
    rows = np.arange(size) * frame.shape[0] // size
    columns = np.arange(size) * frame.shape[1] // size
    return frame[rows][:, columns]
