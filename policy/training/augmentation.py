"""Random changes to what a policy sees in training: frames moved and recoloured, parts hidden.

Shapes: B windows, O observed steps (an axis where the policy has history), S a frame's side, C
cameras, W words of an instruction.

All of it is off by default. It runs on the device that the batch is on, for a whole batch at once,
and is a function of (options, batch, chances), so a resumed run draws what the first one drew.
A window is changed as one: each of its frames of a camera in the same way. A trainer does:

    require_possible(config.augment, policy.spec, instruction)  # before it starts
    chances = draw_chances(config.augment, policy.spec, count, generator, words)
    changed = augmented(config.augment, policy.spec, observations, chances, mean)
    policy.losses(changed.observations, ..., seen=changed.seen)

with `mean = policy.normalizer.proprio_mean`. Chances are rows like the batch's: a batch may be
split, and its chances with it. Without any option on, `draw_chances` draws nothing.

On one CPU thread, default model, two cameras, batch 64: shift and colour add 6 % to a training step
at 64 px and 8 % at 128 px, a crop alone 11 % (medians of 25 interleaved steps).

Colour is one affine map of (r, g, b) for each window and camera: brightness, contrast about the
mean luma, saturation, and hue as a rotation about the grey axis (luma stays; not HSV's).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from loopdit.command import option
from loopdit.datasets.spec import FROM_COMMITTED, IMAGE_PREFIX, PROPRIO, PolicySpec
from loopdit.errors import ConfigError
from loopdit.policy.encoders.absent_cameras import AVAILABLE
from loopdit.policy.encoders.cameras import drop_cameras
from loopdit.policy.encoders.vocabulary import INSTRUCTION, WORDS
from loopdit.policy.encoders.words import drop_words

_PER_CAMERA = 7  # chances: y, x, crop, brightness, contrast, saturation, hue
_PER_WINDOW = 2  # history, proprio
# RGB to luma and two colour differences (YIQ); the differences of a grey are zero.
_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_RGB = torch.linalg.inv(_YIQ)
_LUMA = _YIQ[0]


@dataclass(frozen=True)
class AugmentConfig:
    """How much, none by default. A strength of 0.2 draws a factor from 0.8 to 1.2."""

    shift: float = option(0.0, "frames move by at most this share of their side, as 0.06")
    crop: float = option(0.0, "at most this share of a side is cut off, the rest enlarged, as 0.1")
    brightness: float = option(0.0, "strength, 0 to below 1")
    contrast: float = option(0.0, "strength, 0 to below 1")
    saturation: float = option(0.0, "strength, 0 to 1")
    hue: float = option(0.0, "turn of the colour circle at most, 0 to 0.5")
    cameras: list[str] = option([], "cameras whose frames are changed; empty: all")
    history_dropout: float = option(
        0.0, "chance that a window hides the observations before the latest"
    )
    proprio_dropout: float = option(0.0, "chance that a window hides its proprioception")
    camera_dropout: float = option(
        0.0, "chance that a window hides a camera, for a policy with policy.optional_cameras"
    )
    word_dropout: float = option(
        0.0, "chance that a window hides a word, for a policy with policy.instruction=words"
    )

    def __post_init__(self) -> None:
        most = {"shift": 0.5, "saturation": 1.0, "hue": 0.5}
        for name in (*_FRAME_OPTIONS, *_DROPOUTS):
            value, limit = getattr(self, name), most.get(name)
            if not (0 <= value < 1 if limit is None else 0 <= value <= limit):
                upto = "below 1" if limit is None else f"{limit:g}"
                raise ConfigError(f"augment.{name}={value} must be from 0 to {upto}.")

    @property
    def changes_frames(self) -> bool:
        """Whether anything is done to frames."""
        return any(getattr(self, name) for name in _FRAME_OPTIONS)


_DROPOUTS = ("history_dropout", "proprio_dropout", "camera_dropout", "word_dropout")
_FRAME_OPTIONS = ("shift", "crop", "brightness", "contrast", "saturation", "hue")


class Augmented(NamedTuple):
    """Observations as they were, or frames float32 in [0, 255]; `seen` (B, O) bool where past
    observations are hidden, else None."""

    observations: dict[str, Tensor]
    seen: Tensor | None


def require_possible(config: AugmentConfig, spec: PolicySpec, instruction: str) -> None:
    """Raise ConfigError for a camera that `spec` lacks, or for what is to be hidden and is not
    there, of a policy that is told its task by `instruction`."""
    known = [camera.name.removeprefix(IMAGE_PREFIX) for camera in spec.cameras]
    for camera in config.cameras:
        if camera not in known:
            raise ConfigError(
                f"augment.cameras has {camera!r}. The cameras are: {', '.join(known) or 'none'}."
            )
    if config.history_dropout and spec.history == 1:
        raise ConfigError(
            f"augment.history_dropout={config.history_dropout} has no history to hide. Give the "
            f"policy some, as policy.history=2, or leave it out."
        )
    if config.camera_dropout and not spec.optional:
        raise ConfigError(
            f"augment.camera_dropout={config.camera_dropout} hides cameras that the policy cannot "
            f"do without. Give policy.optional_cameras=true, or leave it out."
        )
    if config.proprio_dropout and spec.chunk_from == FROM_COMMITTED:
        raise ConfigError(
            f"augment.proprio_dropout={config.proprio_dropout} hides what policy.told=rolled rolls "
            f"forward. Use policy.told=prefix, or leave it out."
        )
    if config.word_dropout and instruction != WORDS:
        raise ConfigError(
            f"augment.word_dropout={config.word_dropout} has no words to hide. Give the policy "
            f"policy.instruction=words, or leave it out."
        )


def draw_chances(
    config: AugmentConfig, spec: PolicySpec, count: int, generator: torch.Generator, words: int = 0
) -> Tensor | None:
    """Numbers in [0, 1), a row for each of `count` windows, on the generator's device; None where
    nothing is to be changed. `words`: W, of a policy that is told its task by them."""
    if not (config.changes_frames or any(getattr(config, name) for name in _DROPOUTS)):
        return None
    columns = _PER_CAMERA * len(spec.cameras) + _PER_WINDOW
    columns += len(spec.cameras) if config.camera_dropout else 0
    columns += words if config.word_dropout else 0
    return torch.rand(count, columns, generator=generator, device=generator.device)


def augmented(
    config: AugmentConfig,
    spec: PolicySpec,
    observations: Mapping[str, Tensor],
    chances: Tensor | None,
    proprio_mean: Tensor,
) -> Augmented:
    """Raw observations by name, frames (B, S, S, 3) or (B, O, S, S, 3) uint8, on one device with
    `chances` -> what the policy is to see of them.

    Hidden proprio is `proprio_mean` (P,), which is zero to the model.
    """
    changed = dict(observations)
    if chances is None:
        return Augmented(changed, None)
    for i, camera in enumerate(spec.cameras):
        chosen = not config.cameras or camera.name.removeprefix(IMAGE_PREFIX) in config.cameras
        if config.changes_frames and chosen:
            own = chances[:, i * _PER_CAMERA : (i + 1) * _PER_CAMERA]
            changed[camera.name] = augment_frames(config, observations[camera.name], own)
    at = _PER_CAMERA * len(spec.cameras)
    past, proprio = chances[:, at : at + _PER_WINDOW].unbind(1)
    at += _PER_WINDOW
    if config.camera_dropout:
        cameras = len(spec.cameras)
        everything = torch.ones(len(chances), cameras, dtype=torch.bool, device=chances.device)
        own = chances[:, at : at + cameras]
        changed[AVAILABLE] = drop_cameras(everything, own, config.camera_dropout)
        at += cameras
    if config.word_dropout:
        changed[INSTRUCTION] = drop_words(
            observations[INSTRUCTION], chances[:, at:], config.word_dropout
        )
    if config.proprio_dropout:
        value = observations[PROPRIO]
        hidden = (proprio < config.proprio_dropout).view(-1, *(1,) * (value.ndim - 1))
        changed[PROPRIO] = torch.where(hidden, proprio_mean.to(value.dtype), value)
    seen = None
    if config.history_dropout:
        latest = torch.arange(spec.history, device=chances.device) == spec.history - 1
        seen = latest | (past >= config.history_dropout)[:, None]
    return Augmented(changed, seen)


def augment_frames(config: AugmentConfig, frames: Tensor, chances: Tensor) -> Tensor:
    """One camera's frames (B, S, S, 3) or (B, O, S, S, 3) uint8, chances (B, 7) -> the same shape.

    Beyond a frame's border its outermost pixels are repeated. Stays uint8 where frames only move.
    """
    shape = frames.shape
    signed = 2 * chances - 1  # (B, 7) in [-1, 1)
    windows = frames.reshape(len(frames), -1, *shape[-3:])  # (B, O, S, S, 3)
    steps = windows.shape[1]
    flat = windows.flatten(0, 1)
    colours = config.brightness or config.contrast or config.saturation or config.hue
    if config.crop:
        flat = _cropped(flat, config, signed.repeat_interleave(steps, 0))
    elif config.shift:
        flat = _shifted(flat, config.shift, signed[:, :2].repeat_interleave(steps, 0))
    if colours:
        flat = _recoloured(flat, steps, config, signed[:, 3:])
    # In memory as uint8 frames are: planar ones make a training step 5 % slower (CPU, 64, 128 px).
    return flat.contiguous().reshape(shape)


def _shifted(frames: Tensor, shift: float, signed: Tensor) -> Tensor:
    """(N, H, W, 3) moved by whole pixels, signed (N, 2)."""
    count, height, width, _ = frames.shape
    device = frames.device

    def places(size: int, by: Tensor) -> Tensor:
        """(N, size): which row or column comes to each place."""
        moved = torch.arange(size, device=device) + (by * shift * size).round().long()[:, None]
        return moved.clamp(0, size - 1)

    rows, columns = places(height, signed[:, 0]), places(width, signed[:, 1])
    first = height * width * torch.arange(count, device=device)[:, None, None]
    pixels = (first + width * rows[:, :, None] + columns[:, None, :]).flatten()
    # One index over all pixels: four times as fast as indexing by three axes (64 px, 1 thread).
    return frames.reshape(-1, 3).index_select(0, pixels).view_as(frames)


def _cropped(frames: Tensor, config: AugmentConfig, signed: Tensor) -> Tensor:
    """(N, H, W, 3) -> a random part of each, moved besides and enlarged; float32, bilinear."""
    scale = 1 - config.crop * (signed[:, 2] + 1) / 2
    reach = 1 - scale + 2 * config.shift  # in units of half a side
    still = torch.zeros_like(scale)
    across = torch.stack([scale, still, reach * signed[:, 1]], 1)
    down = torch.stack([still, scale, reach * signed[:, 0]], 1)
    planar = _planar(frames)
    size = list(planar.shape)
    grid = functional.affine_grid(torch.stack([across, down], 1), size, align_corners=False)
    found = functional.grid_sample(planar, grid, padding_mode="border", align_corners=False)
    return found.permute(0, 2, 3, 1)


def _recoloured(frames: Tensor, steps: int, config: AugmentConfig, signed: Tensor) -> Tensor:
    """(N, H, W, 3) with N = B * steps, signed (B, 4) -> float32 in [0, 255]."""
    planar = _planar(frames)
    luma = _LUMA.to(frames.device)
    mean = (planar.flatten(2).mean(-1) @ luma).view(-1, steps).mean(1)  # (B,): of the window
    brightness = 1 + config.brightness * signed[:, 0]
    contrast = 1 + config.contrast * signed[:, 1]
    saturation = (1 + config.saturation * signed[:, 2])[:, None, None]
    # Saturation and hue leave grey as it is, so the offset of the contrast passes through them.
    grey = luma.expand(3, 3)  # its rows: the luma, for each of r, g, b
    coloured = saturation * torch.eye(3, device=frames.device) + (1 - saturation) * grey
    mix = _hue_rotation(config.hue * signed[:, 3]) @ coloured
    mix = (brightness * contrast)[:, None, None] * mix  # (B, 3, 3)
    offset = ((1 - contrast) * brightness * mean)[:, None, None].expand(-1, 3, 1)
    pixels = torch.baddbmm(
        offset.repeat_interleave(steps, 0), mix.repeat_interleave(steps, 0), planar.flatten(2)
    )
    return pixels.clamp_(0, 255).view_as(planar).permute(0, 2, 3, 1)


def _hue_rotation(turns: Tensor) -> Tensor:
    """(B,) -> (B, 3, 3): a rotation of the two colour differences."""
    cosine, sine = (2 * math.pi * turns).cos(), (2 * math.pi * turns).sin()
    rotation = torch.eye(3, device=turns.device).repeat(len(turns), 1, 1)
    rotation[:, 1, 1] = rotation[:, 2, 2] = cosine
    rotation[:, 1, 2], rotation[:, 2, 1] = -sine, sine
    return _RGB.to(turns.device) @ rotation @ _YIQ.to(turns.device)


def _planar(frames: Tensor) -> Tensor:
    """(N, H, W, 3) -> (N, 3, H, W) float32, channel by channel in memory."""
    return frames.permute(0, 3, 1, 2).contiguous().float()
