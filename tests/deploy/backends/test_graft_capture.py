"""What a CUDA graph of a graft would capture, run where there is no GPU: on torch's meta device, a
second device that has shapes and no values. A tensor of the host in it is a copy that capturing
refuses, and a value that is looked at raises."""

from typing import Any

import pytest
import torch
from tests.policy.graft.graft_policies import policy_of
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from loopdit.datasets.video.clips import ClipConfig
from loopdit.policy.graft.graft_policy import GraftPolicy


class _HostTensors(TorchDispatchMode):
    """The operations on tensors of the host, and between it and the device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, made)):
            if isinstance(leaf, Tensor) and leaf.device.type == "cpu":
                self.found.add(str(func))
        return made


def _chunk(policy: GraftPolicy, loops: int) -> Tensor:
    """As `CapturedGraftBackend` computes it from latents."""
    device = policy.served_noise.device
    latents = torch.empty(1, *policy.latent_shape, device=device)
    task = torch.empty(1, dtype=torch.int64, device=device)
    noise = torch.empty(1, policy.horizon, 4, device=device)
    read = policy.read(policy.features(latents, task, loops), loops)
    return policy.to_actions(policy.sample(read, noise, 3))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"graft_geometric": True, "graft_sharpest": 2.0, "graft_injection": True},
        {"graft_robots": 2, "video": ClipConfig(height=32, width=64)},
        {"graft_looped": "expert"},
        {"decoder_kind": "direct", "decoder_blocks": 2},
        {"decoder_kind": "paper", "decoder_width": 256, "decoder_blocks": 2, "action_horizon": 1},
        {"decoder_objective": "ddpm_v"},
        {"video": ClipConfig(frames=1, height=32, width=48)},
    ],
)
def test_once_warm_a_chunk_asks_nothing_of_the_host(options: dict[str, object]):
    policy = policy_of(**options).eval().requires_grad_(False).to("meta")
    _chunk(policy, 2)  # the warm-up, before a graph is captured
    with _HostTensors() as host:
        actions = _chunk(policy, 2)
    assert actions.shape == (1, policy.horizon, 4)
    assert host.found == set()


def test_tokens_that_halt_are_looked_at_and_cannot_be_captured():
    policy = policy_of(graft_halting="token").eval().requires_grad_(False).to("meta")
    with pytest.raises(RuntimeError, match="cannot be called on meta tensors"):
        _chunk(policy, 2)
