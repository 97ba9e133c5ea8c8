"""Encode frames to MP4 and decode a stretch of one, with every frame counted.

T frames, H x W pixels, RGB uint8 (T, H, W, 3). Times are seconds from the start of the file. A
frame belongs to the step whose time it is nearest to; a stretch with another number of frames than
steps is an error, never a repeated or dropped frame. It knows nothing of data sets.
"""

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext, suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter

from loopdit.datasets.formats.priority import keeping_priority
from loopdit.datasets.formats.refusals import is_file
from loopdit.errors import StoreError

# What LeRobot encodes with: every second frame is a key frame, so that a random frame costs at
# most two decoded ones.
_OPTIONS = {"g": "2", "crf": "30"}
_ENCODERS = {"av1": "libsvtav1", "h264": "libx264"}
_ONE_THREAD: dict[str, Any] = {"threads": 1} if int(av.__version__.split(".")[0]) >= 18 else {}
_SAMPLED = 16  # frames of a file that its fidelity is told by


def can_encode(codec: str) -> bool:
    """Whether PyAV has an encoder for "av1" or "h264" here."""
    return _ENCODERS[codec] in av.codecs_available


class VideoEncoder:
    """One MP4 being written, frame after frame. `frames` counts them, `close` ends the file.

    Few frames are in memory at once, however long the file becomes.
    """

    def __init__(self, path: Path, codec: str, rate: Fraction) -> None:
        # SVT-AV1 prints ten lines about itself for each file unless this is set.
        os.environ.setdefault("SVT_LOG", "1")
        self.path, self.codec, self.frames = path, codec, 0
        self._container: Any = av.open(str(path), "w", options={"movflags": "faststart"})
        options = _OPTIONS | ({"preset": "12"} if codec == "av1" else {})
        self._stream: Any = self._container.add_stream(_ENCODERS[codec], rate, options=options)
        self._stream.pix_fmt = "yuv420p"
        self._rate = rate
        self._originals: dict[int, np.ndarray] = {}

    def add(self, frames: np.ndarray) -> None:
        """Append (T, H, W, 3) uint8 RGB, of the same H and W each time."""
        if self.frames == 0:
            self._stream.height, self._stream.width = frames.shape[1:3]
            chosen = np.linspace(0, len(frames) - 1, min(_SAMPLED, len(frames))).round()
            self._originals = {int(i): frames[int(i)].copy() for i in chosen}
        with _failing_as_oserror(self.path):
            for i, frame in enumerate(frames):
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                # The first frame is what starts the encoder and its threads.
                with nullcontext() if self.frames + i else keeping_priority():
                    packets = self._stream.encode(picture)
                self._container.mux(packets)
        self.frames += len(frames)

    def bytes_written(self) -> int:
        """About how large the file is by now."""
        return self.path.stat().st_size if self.path.exists() else 0  # encoders wait for frames

    def close(self) -> None:
        """Write what the encoder still holds, and the index without which nothing can be read."""
        container, self._container = self._container, None
        if container is not None:
            with _failing_as_oserror(self.path), container:
                container.mux(self._stream.encode())

    def abandon(self) -> None:
        """Let go of the file without caring what becomes of it."""
        container, self._container = self._container, None
        if container is not None:
            with suppress(FFmpegError, OSError):
                self._stream.encode()  # SVT-AV1 complains on the terminal unless it is told the end
            with suppress(FFmpegError, OSError):
                container.close()

    def psnr(self) -> float:
        """Peak signal to noise, dB, of up to 16 frames of the first call of `add`.

        Decodes the closed file's beginning; infinite where nothing was lost.
        """
        last = max(self._originals)
        decoded = read_frames(
            self.path, str(self.path), last + 1, float(self._rate), 0.0, (last + 1) / self._rate
        )
        pairs = [(decoded[i].astype(np.float64), kept) for i, kept in self._originals.items()]
        error = float(np.mean([((now - before) ** 2).mean() for now, before in pairs]))
        return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def video_info(path: Path) -> dict[str, Any]:
    """What LeRobot's info.json says of a video feature, read from the file."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return {
            "video.height": stream.height,
            "video.width": stream.width,
            "video.codec": stream.codec.canonical_name,
            "video.pix_fmt": stream.pix_fmt,
            "video.is_depth_map": False,
            "video.fps": int(stream.base_rate or 0),
            "video.channels": 3,
            "has_audio": bool(container.streams.audio),
        }


def read_frames(
    path: Path,
    where: str,
    count: int,
    rate_hz: float,
    start_s: float = 0.0,
    stop_s: float | Fraction | None = None,
) -> np.ndarray:
    """The `count` frames (T, H, W, 3) from `start_s` up to `stop_s`, or to the file's end.

    Raises StoreError with `where` for a file that is missing, cannot be decoded, or has another
    number of frames there, or frames of several sizes.
    """
    half = 0.5 / rate_hz
    stop = float("inf") if stop_s is None else float(stop_s) - half
    if not is_file(path):
        raise StoreError(f"{where}: there is no video {path!s:.300}. Restore that file.")
    frames: np.ndarray | None = None
    found = 0
    # One for all frames: each frame's own starts a thread for every core, 0.6 ms for 0.01 of work.
    to_rgb = VideoReformatter()
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise StoreError(f"{where}: {path} has no video stream. Restore that file.")
            for time_s, frame in _frames_from(container, start_s - half):
                if time_s >= stop:
                    break
                if found < count:
                    picture = to_rgb.reformat(frame, format="rgb24", **_ONE_THREAD).to_ndarray()
                    if frames is None:
                        frames = np.empty((count, *picture.shape), np.uint8)
                    if picture.shape != frames.shape[1:]:
                        raise StoreError(
                            f"{where}: frame {found} of {path} is {picture.shape[1]}x"
                            f"{picture.shape[0]}, the ones before {frames.shape[2]}x"
                            f"{frames.shape[1]}. Encode the video again in one size."
                        )
                    frames[found] = picture
                found += 1
    except (FFmpegError, OSError) as error:
        raise StoreError(
            f"{where}: {path} cannot be decoded after {found} of {count} frames "
            f"({_reason(error)}). Restore that file, or leave the episode out with skip_bad=true."
        ) from error
    if frames is None or found != count:
        raise StoreError(
            f"{where}: {path} has {found} frames from {start_s:.3f} s on for an episode of {count} "
            f"steps. Restore that file, or leave the episode out with skip_bad=true."
        )
    return frames


def _frames_from(container: Any, start_s: float) -> Iterator[tuple[float, Any]]:
    """Each frame from `start_s` on with its time, in the order of their showing."""
    stream = container.streams.video[0]
    # An index may lead behind the wanted frames; then everything before them is decoded too.
    for seek_to in (int(start_s / stream.time_base), 0) if start_s > 0 else (0,):
        if start_s > 0:
            container.seek(seek_to, stream=stream)
        timed = (
            (float(f.pts * f.time_base), f) for f in container.decode(stream) if f.pts is not None
        )
        first = next(timed, None)
        if first is None or (first[0] > start_s and seek_to > 0):
            continue
        yield from (item for item in chain([first], timed) if item[0] >= start_s)
        return


@contextmanager
def _failing_as_oserror(path: Path) -> Generator[None]:
    """PyAV's errors are not all OSErrors: a full disk must look like one to whoever writes."""
    try:
        yield
    except FFmpegError as error:
        raise OSError(error.errno, f"{_reason(error)} while encoding", str(path)) from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
