"""LeRobot's own DiffusionPolicy, sized for a comparison, between our observations and raw actions.

Runs in the environment of scripts/lerobot_env.sh. The model, its loss, its noise schedulers and its
normalisation are LeRobot's classes and defaults; what is chosen here is its size alone (SIZES). Its
smallest encoder is a ResNet-18 of 11 million parameters, so "matched" gives it, by the name its
configuration asks torchvision for, a ResNet with a block a stage at a quarter of the width.

Shapes: B batch, O observed steps, H horizon, A action dim, C cameras. Raw units at both ends.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.filterwarnings("ignore", message="Failed to load image Python extension")
warnings.filterwarnings("ignore", message=".*video decoding and encoding capabilities")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from loopdit.datasets.spec import PROPRIO, PolicySpec  # noqa: E402
from loopdit.datasets.statistics import VectorStatistics  # noqa: E402
from loopdit.whole_file import whole_file  # noqa: E402

# torchvision's compiled operators do not load beside this torch; importing it needs this one.
_operators = torch.library.Library("torchvision", "DEF")
_operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

Settings = dict[str, Any]

_NARROW = "resnet10_quarter"
# At 16 and 32 channels it would be as small as ours, and hardly learns: of `lift`, told the proprio
# alone, its own loss after 1,000 steps at a learning rate of 1e-3 was .27; at 32 and 64, .10.
_SMALL_UNET: Settings = {
    "down_dims": [32, 64],
    "kernel_size": 3,
    "diffusion_step_embed_dim": 32,
    "spatial_softmax_num_keypoints": 16,
}
SIZES: dict[str, Settings] = {
    "matched": {**_SMALL_UNET, "vision_backbone": _NARROW},
    # As many parameters as the shipped policy, 1,033,820, to 2 %.
    "tabletop": {
        **_SMALL_UNET,
        "down_dims": [64, 96],
        "diffusion_step_embed_dim": 64,
        "vision_backbone": _NARROW,
    },
    "resnet18": _SMALL_UNET,
}
_WIDTH, _FULL_WIDTH = 16, 64  # channels of the first stage; below 16 its group norm has no group

# LeRobot's data set gives frames these statistics unless it is told otherwise.
_IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
# An element that moves by less is constant: scaling its rounding errors (1e-15 rad) to [-1, 1]
# would have the model learn noise.
_CONSTANT = 1e-6

WEIGHTS, RECORD = "model.safetensors", "peer.json"


@dataclass(frozen=True)
class Peer:
    """LeRobot's policy with its processors, and what it was made from (plain JSON)."""

    policy: Any
    normalize: Any
    raw_actions: Any
    spec: PolicySpec
    settings: Settings
    statistics: Mapping[str, Any]

    @property
    def parameters(self) -> dict[str, int]:
        """In all, and of the encoder and the U-Net."""
        model = self.policy.diffusion
        parts = {"all": self.policy, "encoder": model.rgb_encoder, "unet": model.unet}
        return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}

    def inputs(self, observations: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
        """Raw observations of the spec, batched (B, O, ...), by LeRobot's names, not normalised."""
        return inputs_of(self.spec, observations)

    @torch.no_grad()
    def chunk(self, observations: Mapping[str, np.ndarray], steps: int) -> np.ndarray:
        """Raw actions (B, n_action_steps, A), the first for the latest observation.

        With as many `steps` as it was trained for it samples by its DDPM scheduler, with fewer by
        its DDIM scheduler. The noise is that of torch's global generator.
        """
        self._sample_in(steps)
        batch = self.normalize(self.inputs(observations))
        frames = [batch[key] for key in self.policy.config.image_features]
        state = batch["observation.state"]
        given = {"observation.state": state, "observation.images": torch.stack(frames, dim=-4)}
        actions: Tensor = self.raw_actions(self.policy.diffusion.generate_actions(given))
        return actions.numpy()

    def _sample_in(self, steps: int) -> None:
        from lerobot.policies.diffusion import (  # pyright: ignore[reportMissingImports]
            modeling_diffusion,
        )

        model, config = self.policy.diffusion, self.policy.config
        if model.num_inference_steps == steps:
            return
        kind = "DDPM" if steps == config.num_train_timesteps else "DDIM"
        make = modeling_diffusion._make_noise_scheduler  # as its constructor does
        model.noise_scheduler = make(
            kind,
            num_train_timesteps=config.num_train_timesteps,
            beta_start=config.beta_start,
            beta_end=config.beta_end,
            beta_schedule=config.beta_schedule,
            clip_sample=config.clip_sample,
            clip_sample_range=config.clip_sample_range,
            prediction_type=config.prediction_type,
        )
        model.num_inference_steps = steps


def make_peer(spec: PolicySpec, settings: Settings, statistics: Mapping[str, Any]) -> Peer:
    """With fresh weights, for what `spec` records. `settings` are fields of its DiffusionConfig."""
    import torchvision.models  # pyright: ignore[reportMissingImports]
    from lerobot.configs.types import (  # pyright: ignore[reportMissingImports]
        FeatureType,
        PolicyFeature,
    )
    from lerobot.policies.diffusion.configuration_diffusion import (  # pyright: ignore
        DiffusionConfig,
    )
    from lerobot.policies.diffusion.modeling_diffusion import (  # pyright: ignore
        DiffusionPolicy,
    )
    from lerobot.policies.diffusion.processor_diffusion import (  # pyright: ignore
        make_diffusion_pre_post_processors,
    )

    setattr(torchvision.models, _NARROW, _narrow_resnet)
    spec = spec.recorded
    frames = {
        _key(camera.name): PolicyFeature(FeatureType.VISUAL, (3, *camera.shape[:2]))
        for camera in spec.cameras
    }
    state = PolicyFeature(FeatureType.STATE, spec.proprio.shape)
    config: Any = DiffusionConfig(
        input_features={**frames, _key(PROPRIO): state},
        output_features={"action": PolicyFeature(FeatureType.ACTION, spec.action.shape)},
        device="cpu",
        **{name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()},
    )
    tensors = {
        key: {name: torch.tensor(values, dtype=torch.float32) for name, values in of.items()}
        for key, of in statistics.items()
    }
    normalize, raw_actions = make_diffusion_pre_post_processors(config, tensors)
    policy: Any = DiffusionPolicy(config)
    return Peer(
        policy, normalize, raw_actions, spec.with_history(config.n_obs_steps), settings, statistics
    )


def statistics_of(spec: PolicySpec, found: Mapping[str, VectorStatistics]) -> dict[str, Any]:
    """A data set's statistics by LeRobot's names, plain JSON."""
    pixels = {name: np.reshape(v, (3, 1, 1)).tolist() for name, v in _IMAGENET.items()}
    statistics: dict[str, Any] = {_key(camera.name): pixels for camera in spec.cameras}
    for key, name in ((_key(PROPRIO), PROPRIO), ("action", "action")):
        of = found[name]
        low, high = np.array(of.low), np.array(of.high)
        still = high - low < _CONSTANT
        low, high = np.where(still, of.mean, low), np.where(still, of.mean, high)
        statistics[key] = {
            "min": low.tolist(),
            "max": high.tolist(),
            "mean": list(of.mean),
            "std": list(of.std),
        }
    return statistics


def inputs_of(spec: PolicySpec, observations: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """See `Peer.inputs`: frames (B, O, H, W, 3) uint8 become (B, O, 3, H, W) in [0, 1]."""
    found: dict[str, Tensor] = {}
    for tensor in spec.observations:
        # A copy: what a server has received is read-only.
        values = torch.from_numpy(np.array(observations[tensor.name]))
        if tensor.is_image:
            values = values.permute(0, 1, 4, 2, 3).contiguous().float() / 255
        found[_key(tensor.name)] = values
    return found


def save_peer(folder: Path, peer: Peer, facts: Mapping[str, Any]) -> None:
    """The weights, then the record that makes them count, with `facts` in it."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / WEIGHTS) as aside:
        save_file(peer.policy.state_dict(), aside)
    names = ("lerobot", "diffusers", "torch", "torchvision", "numpy")
    record = {
        **facts,
        "parameters": peer.parameters,
        "settings": peer.settings,
        "statistics": peer.statistics,
        "spec": peer.spec.recorded.to_dict(),
        "versions": {name: version(name) for name in names},
    }
    with whole_file(folder / RECORD) as aside:
        aside.write_text(json.dumps(record, indent=1) + "\n")


def load_peer(folder: Path) -> tuple[Peer, dict[str, Any]]:
    """What `save_peer` wrote, ready to act, and its record."""
    from safetensors.torch import load_file

    record: dict[str, Any] = json.loads((folder / RECORD).read_text())
    spec = PolicySpec.from_dict(record["spec"])
    peer = make_peer(spec, record["settings"], record["statistics"])
    peer.policy.load_state_dict(load_file(folder / WEIGHTS))
    peer.policy.eval()
    return peer, record


def weights_id(folder: Path) -> str:
    """16 hex digits that are equal only for equal weights."""
    return hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()[:16]


def _key(name: str) -> str:
    return "observation.state" if name == PROPRIO else f"observation.{name}"


def _narrow_resnet(weights: None = None) -> nn.Module:
    """torchvision's ResNet of basic blocks, one a stage, at a quarter of its width."""
    from torchvision.models.resnet import (  # pyright: ignore[reportMissingImports]
        BasicBlock,
        ResNet,
    )

    class Narrow(ResNet):  # pyright: ignore[reportUntypedBaseClass] - it is in that environment
        def _make_layer(self, block: Any, planes: int, *rest: Any, **named: Any) -> nn.Sequential:
            if planes == _FULL_WIDTH:
                self.inplanes = _WIDTH
            return super()._make_layer(block, planes * _WIDTH // _FULL_WIDTH, *rest, **named)

    found: Any = Narrow(BasicBlock, [1, 1, 1, 1])
    found.conv1 = nn.Conv2d(3, _WIDTH, 7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(found.conv1.weight, mode="fan_out", nonlinearity="relu")
    found.bn1 = nn.BatchNorm2d(_WIDTH)
    return found
