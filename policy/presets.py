"""Model systems by name: those of the paper, and the one we ship. Each is a configuration of parts.

A preset can be built on the `meta` device, where it has shapes and no memory: so it is counted and
described. `build` makes it on torch's default device, ready to be trained.

A new system is one more entry of PRESETS.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from torch import nn

from loopdit.datasets.spec import PROPRIO, PolicySpec, TensorSpec
from loopdit.errors import ConfigError
from loopdit.policy.canvas.canvas_model import CanvasModel
from loopdit.policy.canvas.systems import CANVAS_SYSTEMS
from loopdit.policy.looped_dit_config import LoopedDiTConfig
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.morphology.morphology_dit import MorphologyConfig, MorphologyDiT


@dataclass(frozen=True)
class Preset:
    """A model system by name. `build` makes it with fresh weights, on torch's default device."""

    name: str
    summary: str
    build: Callable[[], nn.Module]

    def on_meta(self) -> nn.Module:
        """The module without memory: shapes and names alone."""
        with torch.device("meta"):
            return self.build()


def preset(name: str) -> Preset:
    """The preset of that name. Raises ConfigError, which lists those that there are."""
    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, n=1)
        hint = f" Did you mean preset={near[0]}?" if near else ""
        raise ConfigError(f"preset={name} is unknown.{hint} The presets are: {', '.join(PRESETS)}.")
    return PRESETS[name]


# What a built-in arm task observes and commands, in shapes; its labels and limits come with data.
_ARM = PolicySpec(
    observations=(
        TensorSpec("images.front", (64, 64, 3), "uint8"),
        TensorSpec("images.wrist", (64, 64, 3), "uint8"),
        TensorSpec(PROPRIO, (13,), "float32"),
    ),
    action=TensorSpec("action", (7,), "float32"),
    action_frame="of the arm",
    control_period_s=0.1,
)


def _ship() -> nn.Module:
    return LoopedPolicy(_ARM, LoopedDiTConfig()).model


def _canvas(name: str, summary: str) -> Preset:
    return Preset(name, summary, lambda: CanvasModel(CANVAS_SYSTEMS[name]))


def _cogvideox() -> nn.Module:
    from loopdit.policy.graft.systems import graft_system  # late: diffusers takes seconds

    return graft_system(COGVIDEOX_2B)


COGVIDEOX_2B = "cogvideox_2b"

_PRESETS = (
    Preset("ship", "the one-way looped DiT that we ship, as a built-in arm task has it", _ship),
    _canvas("v1_3b4l", "the paper's canvas denoiser: 3 blocks, 4 loops of each, width 128"),
    _canvas("v1_12b1l_d68", "12 blocks once, narrowed to the parameters of v1_3b4l (experiment 6)"),
    _canvas("v1_6b2l_d95", "6 blocks, 2 loops, narrowed to the parameters of v1_3b4l"),
    _canvas("v1_12b1l_d128", "12 blocks once at the width of v1_3b4l: its depth, unshared"),
    _canvas("v2_3b4l", "v1_3b4l with sharpening, geometric positions and halting of each token"),
    Preset(
        "v3_mujoco",
        "a looped transformer over bodies, joints and motors of any MuJoCo robot",
        lambda: MorphologyDiT(MorphologyConfig()),
    ),
    Preset(
        COGVIDEOX_2B,
        "CogVideoX-2B with each of its blocks looped, and the paper's head; freeze= and loops= say "
        "which of its twelve cells",
        _cogvideox,
    ),
)
PRESETS: Mapping[str, Preset] = {entry.name: entry for entry in _PRESETS}
