"""Which frames of an episode are one clip for a video model, and how they fill its picture.

Shapes: T steps of an episode, F frames of a clip, H x W the clip's picture. uint8 RGB throughout.

A clip ends at the present: it is the frame of step t and those of the F - 1 steps before it, the
episode's first frame standing for what was before its start. That is what a policy that is served
has seen at step t, so features that actions are learned from never hold the future. F is 4 k + 1,
which CogVideoX's autoencoder makes k + 1 latent frames of; or 1, the present frame alone, which it
makes one of: a third of the transformer's work on 9, and nothing is seen of what moves.

A picture keeps its proportions: it is scaled to fit into H x W with black beside it (pad), or to
cover it with its edges cut off (crop). Robots work at the edges of their pictures, and a third of
a square one would be cut off for 480x720, so the default is pad. `stretch` is for pictures whose
proportions were lost before, as 256x256 made of 480x640.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from loopdit.command import option, require_choice
from loopdit.datasets.mixing import DataPart
from loopdit.datasets.spec import PolicySpec, TensorSpec
from loopdit.errors import ConfigError, StoreError

PAD, CROP, STRETCH = "pad", "crop", "stretch"
FITS = (PAD, CROP, STRETCH)
ONE_FRAME, LEAST_FRAMES, MOST_FRAMES = 1, 9, 49
TIME_STRIDE = 4  # frames that are one latent frame, after the first
_MULTIPLE = 16  # pixels of a side: the autoencoder's 8 times the transformer's patch of 2
_NAMED = 3  # short episodes in a message


@dataclass(frozen=True)
class ClipConfig:
    """The video that a policy is shown."""

    camera: str = option("", "the camera whose video is used; empty: the data's first")
    frames: int = option(
        9, "frames of a clip, up to the present: 4 k + 1, from 9 to 49, or 1, the present alone"
    )
    height: int = option(480, "pixels, a multiple of 16")
    width: int = option(720, "pixels, a multiple of 16")
    fit: str = option(PAD, "pad (nothing is cut off), crop (nothing is added), or stretch")
    every: int = option(1, "steps between two clips that are trained on; each is kept as latents")

    def __post_init__(self) -> None:
        inside = self.frames == ONE_FRAME or LEAST_FRAMES <= self.frames <= MOST_FRAMES
        if not inside or self.frames % TIME_STRIDE != 1:
            below = max(LEAST_FRAMES, min(MOST_FRAMES, (self.frames - 1) // 4 * 4 + 1))
            raise ConfigError(
                f"video.frames={self.frames} must be 4 k + 1, from {LEAST_FRAMES} to "
                f"{MOST_FRAMES}, or {ONE_FRAME}: the autoencoder makes one latent frame of four. "
                f"Use {below}."
            )
        for name in ("height", "width"):
            if getattr(self, name) < _MULTIPLE or getattr(self, name) % _MULTIPLE:
                raise ConfigError(
                    f"video.{name}={getattr(self, name)} must be a multiple of {_MULTIPLE}."
                )
        require_choice("video.fit", self.fit, FITS)
        if self.every < 1:
            raise ConfigError(f"video.every={self.every} must be at least 1.")

    @property
    def latent_frames(self) -> int:
        """What the autoencoder makes of the frames."""
        return (self.frames - 1) // TIME_STRIDE + 1

    def chosen_camera(self, spec: PolicySpec) -> TensorSpec:
        """The camera of `spec` whose video it is. Raises ConfigError where there is none."""
        cameras = {camera.name: camera for camera in spec.cameras}
        if not cameras:
            raise ConfigError("the data has no camera, and a video policy needs one.")
        name = self.camera or next(iter(cameras))
        found = cameras.get(name) or cameras.get(f"images.{name}")
        if found is None:
            raise ConfigError(
                f"video.camera={name} is no camera of the data, which has {', '.join(cameras)}."
            )
        return found

    def steps(self, length: int) -> range:
        """The steps at which clips of an episode of so many steps end."""
        return clip_ends(length, self.every)


def clip_ends(length: int, every: int) -> range:
    """The steps of an episode of so many at which clips end, one `every` so many steps."""
    return range(0, length, every)


def clip_steps(steps: np.ndarray, frames: int) -> np.ndarray:
    """The steps (B, F) of the clips that end at `steps` (B,), the oldest first; 0 before 0."""
    return np.maximum(steps[:, None] + np.arange(1 - frames, 1), 0)


def short_clips(part: DataPart, frames: int) -> list[int]:
    """The episodes of `part` that have fewer steps than a clip has frames, by index: most of each
    of their clips would be one frame repeated."""
    return [i for i in part.in_order() if part.store.episodes[i].length < frames]


def require_whole_clips(parts: Sequence[DataPart], frames: int) -> None:
    """Raise StoreError, naming the first of them, where an episode is shorter than a clip."""
    short = [(part.store, index) for part in parts for index in short_clips(part, frames)]
    if not short:
        return
    named = "; ".join(
        f"{store.episodes[index].id} of {store.path} ({store.episodes[index].length} steps)"
        for store, index in short[:_NAMED]
    )
    more = f"; {len(short) - _NAMED} more" if len(short) > _NAMED else ""
    raise StoreError(
        f"too few frames for a clip of video.frames={frames}: {named}{more}. Use fewer frames, or "
        f"leave short episodes out: filter.min_steps={frames}."
    )


def fitted(frames: np.ndarray, height: int, width: int, fit: str) -> np.ndarray:
    """Frames (F, H, W, 3) uint8 -> (F, height, width, 3) uint8, bicubic, black where padded."""
    own_height, own_width = frames.shape[1:3]
    if (own_height, own_width) == (height, width):
        return frames
    tall, wide = _scaled_size(own_height, own_width, height, width, fit)
    result = np.zeros((len(frames), height, width, 3), np.uint8)
    top, left = (height - tall) // 2, (width - wide) // 2  # negative: so much is cut off
    place = (slice(max(0, top), max(0, top) + tall), slice(max(0, left), max(0, left) + wide))
    part = (slice(max(0, -top), max(0, -top) + height), slice(max(0, -left), max(0, -left) + width))
    for frame, picture in zip(frames, result, strict=True):
        scaled = Image.fromarray(frame).resize((wide, tall), Image.Resampling.BICUBIC)
        picture[place] = np.asarray(scaled)[part]
    return result


def _scaled_size(
    own_height: int, own_width: int, height: int, width: int, fit: str
) -> tuple[int, int]:
    if fit == STRETCH:
        return height, width
    factors = (height / own_height, width / own_width)
    factor = min(factors) if fit == PAD else max(factors)
    return round(own_height * factor), round(own_width * factor)
