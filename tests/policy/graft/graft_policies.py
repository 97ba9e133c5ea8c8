"""Small graft policies, and batches of latents for them."""

import torch
from torch import Tensor

from loopdit.datasets.spec import PROPRIO, PolicySpec, TensorSpec
from loopdit.datasets.video.clips import ClipConfig
from loopdit.policy.graft.config import GraftConfig
from loopdit.policy.graft.decoders.config import DecoderConfig
from loopdit.policy.graft.graft_policy import GraftPolicy
from loopdit.policy.graft.policy_config import GraftPolicyConfig

HORIZON = 4
CAMERA = "images.front"
SPEC = PolicySpec(
    observations=(
        TensorSpec(CAMERA, (32, 48, 3), "uint8"),
        TensorSpec(PROPRIO, (3,), "float32"),
    ),
    action=TensorSpec(
        "action", (4,), "float32", labels=("dx", "dy", "dz", "gripper"), low=(-1, -1, -1, 0),
        high=(1, 1, 1, 1),
    ),
    action_frame="of the base",
    control_period_s=0.2,
)  # fmt: skip


def config_of(**options: object) -> GraftPolicyConfig:
    """A tiny model on 32 x 48 pixels; `graft_NAME`, `decoder_NAME` and `loops` are of the parts."""

    def of(part: str) -> dict[str, object]:
        prefix = f"{part}_"
        return {k.removeprefix(prefix): v for k, v in options.items() if k.startswith(prefix)}

    parts = ("graft_", "decoder_", "loops")
    rest = {k: v for k, v in options.items() if not k.startswith(parts)}
    given: dict[str, object] = {
        "model": "tiny",
        "graft": GraftConfig(loops=options.get("loops", 2), **of("graft")),  # pyright: ignore[reportArgumentType] - the options' own types
        "video": ClipConfig(height=32, width=48),
        "decoder": DecoderConfig(**({"width": 32, "blocks": 1} | of("decoder"))),  # pyright: ignore[reportArgumentType]
        "action_horizon": HORIZON,
        "noise_level": 100,
        "text": "learned",
        "instructions": ["close it", "open it"],
    }
    return GraftPolicyConfig(**(given | rest))  # pyright: ignore[reportArgumentType]


def policy_of(**options: object) -> GraftPolicy:
    """Always the same weights."""
    torch.manual_seed(0)
    return GraftPolicy(SPEC, config_of(**options))


def small_policy(loops: int = 2) -> GraftPolicy:
    """The paper's kind of graft with a small rich decoder."""
    return policy_of(loops=loops)


def batch(policy: GraftPolicy, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Latents, tasks, raw actions and which of them count, of two windows."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(2, *policy.latent_shape, generator=generator)
    actions = torch.rand(2, HORIZON, 4, generator=generator)
    return latents, torch.tensor([0, 1]), actions, torch.ones(2, HORIZON, dtype=torch.bool)
