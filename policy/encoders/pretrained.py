"""A camera frame through a pretrained backbone, its feature map averaged to a handful of tokens.

    backbone = PretrainedEncoder("facebook/dinov2-small", width=128, image_size=64)

Weights are taken from a folder or from the Hugging Face cache of this machine, never from the
network. Whatever `transformers.AutoModel` reads and that gives a feature map or patch tokens will
do: DINOv2, ViT, ResNet, ConvNeXt, Swin, or the vision half of CLIP and SigLIP. (Not AutoBackbone:
its `from_pretrained` asks the hub whether a name exists, also for files that are here.)

A frame is enlarged to whole patches, and moved from [-1, 1] to the mean and spread that the
backbone was trained with; both numbers are part of the state. A robot that has a checkpoint but not
the backbone's files makes it from `configuration` and then loads the state.

The backbone stays in evaluation mode while the rest trains: dropout would draw numbers that no seed
of ours decides, and running statistics are no weights, so an average of weights would miss them.
"""

import inspect
import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from loopdit.errors import ConfigError


class PretrainedEncoder(nn.Module):
    """One camera: (B, 3, S, S) in [-1, 1] -> (B, tokens, width), row by row of a grid.

    `name` is a folder or a model of the hub. `grid` squared tokens at most; no more than the
    backbone has places. `frozen`: the backbone's weights stay as they are.
    """

    scale: Tensor
    offset: Tensor

    def __init__(
        self,
        name: str,
        width: int,
        image_size: int,
        grid: int = 2,
        frozen: bool = True,
        configuration: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if configuration is None:
            self.backbone, mean, spread = _from_files(name)
        else:
            self.backbone, mean, spread = _from_configuration(name, configuration), 0.5, 0.5
        # ((frame + 1) / 2 - mean) / spread, as one product and one sum.
        mean, spread = (torch.tensor(v).expand(3).clone() for v in (mean, spread))
        self.register_buffer("scale", 0.5 / spread)
        self.register_buffer("offset", (0.5 - mean) / spread)
        self.backbone.requires_grad_(not frozen).eval()
        patch = _patch_size(self.backbone.config)
        self.side = math.ceil(image_size / patch) * patch
        with torch.no_grad():
            channels, *cells = self._feature_map(torch.zeros(1, 3, self.side, self.side)).shape[1:]
        grid = min(grid, *cells)
        self.tokens = grid * grid
        self.pool = nn.AdaptiveAvgPool2d(grid)
        self.norm = nn.LayerNorm(channels)
        self.project = nn.Linear(channels, width)
        self.position = nn.Parameter(0.02 * torch.randn(self.tokens, width))

    @property
    def configuration(self) -> dict[str, Any]:
        """What the backbone is, in plain JSON types: makes it again without its files."""
        return self.backbone.config.to_diff_dict()

    def forward(self, frame: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, tokens, width)."""
        if frame.shape[-1] != self.side:
            size = (self.side, self.side)
            frame = functional.interpolate(frame, size, mode="bilinear", align_corners=False)
        frame = frame * self.scale[:, None, None] + self.offset[:, None, None]
        pooled = self.pool(self._feature_map(frame)).flatten(2)  # (B, C, tokens)
        return self.project(self.norm(pooled.mT)) + self.position

    def train(self, mode: bool = True) -> "PretrainedEncoder":
        """Training mode for all but the backbone."""
        super().train(mode)
        self.backbone.eval()
        return self

    def _feature_map(self, frame: Tensor) -> Tensor:
        """(B, 3, side, side) -> (B, C, h, w)."""
        takes = inspect.signature(self.backbone.forward).parameters
        wanted = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in takes else {}
        found: Tensor = self.backbone(frame, **wanted).last_hidden_state
        if found.ndim == 4:
            return found
        # Tokens (B, extra + h * w, C): the class and register tokens come first.
        cells = self.side // _patch_size(self.backbone.config)
        if cells * cells > found.shape[1]:  # patches were merged on the way
            cells = math.isqrt(found.shape[1])
        return found[:, found.shape[1] - cells * cells :].mT.unflatten(2, (cells, cells))


def _from_files(name: str) -> tuple[Any, Any, Any]:
    """The backbone, and the mean and spread of a channel in [0, 1] that it was trained with."""
    transformers = _transformers(name)
    from huggingface_hub.constants import HF_HUB_CACHE
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        with _quiet():
            model, report = transformers.AutoModel.from_pretrained(
                name, local_files_only=True, output_loading_info=True
            )
            processor, _ = ImageProcessingMixin.get_image_processor_dict(
                name, local_files_only=True
            )
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"policy.encoder=pretrained:{name}: no folder {name} and nothing of that name in "
            f"{HF_HUB_CACHE} has config.json, preprocessor_config.json and weights that can be "
            f"read ({str(error).splitlines()[0]:.120}). Where there is a network: "
            f"hf download {name} --local-dir FOLDER, then policy.encoder=pretrained:FOLDER."
        ) from error
    # Never used: the tokens are read before it.
    missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)
    if missing:
        raise ConfigError(
            f"policy.encoder=pretrained:{name}: its files lack {len(missing)} weights of "
            f"{type(model).__name__}, as {missing[0]}. Download it again."
        )
    if not processor.get("do_normalize", True):
        return _vision(model), 0.0, 1.0
    return _vision(model), processor.get("image_mean", 0.5), processor.get("image_std", 0.5)


def _from_configuration(name: str, configuration: Mapping[str, Any]) -> Any:
    """Fresh weights, to be overwritten by a state that is loaded."""
    transformers = _transformers(name)
    config = transformers.AutoConfig.for_model(**configuration)
    return _vision(transformers.AutoModel.from_config(config))


def _transformers(name: str) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ConfigError(
            f"policy.encoder=pretrained:{name} needs transformers, which is not installed here. "
            f"Install it with: pip install transformers"
        ) from error
    return transformers


@contextmanager
def _quiet() -> Generator[None]:
    """Without a progress bar for reading a file, and reports of weights that are not used."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _vision(model: Any) -> Any:
    """The half that sees, of a model of pictures and text."""
    return getattr(model, "vision_model", model)


def _patch_size(config: Any) -> int:
    """1 for backbones that take frames of any size."""
    size = getattr(config, "patch_size", None) or 1
    return size if isinstance(size, int) else int(size[0])
