"""Weights spread over several processes by torch's FSDP2, and their way back to whole tensors.

Each process keeps its share of every weight of a graft policy, of its gradient, of AdamW's moments
and of the average. Blocks of the video transformer are the units: the weights of one are gathered
when it runs and let go of after all of its loops, in the forward pass and again in the backward
one, whose checkpoints of loops lie within a unit. Frozen weights are spread like trained ones, each
in its own dtype. The autoencoder, which does not train, is left whole.

On the outside nothing differs: a checkpoint has whole tensors, so any number of processes goes on
from it, one among them. Gathering is of all processes together, or they wait for each other.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from loopdit.errors import ConfigError
from loopdit.policy.checkpoint import CheckpointContent
from loopdit.policy.graft.graft_policy import GraftPolicy
from loopdit.policy.training.shares import whole


def require_several(accelerator: Accelerator) -> None:
    """Raise ConfigError where there is one process, and nothing to spread weights over."""
    if accelerator.num_processes == 1:
        raise ConfigError(
            "shard=true spreads weights over processes, and there is one. Start one for each GPU, "
            "as `accelerate launch --config_file configs/accelerate/ddp.yaml` does, or leave shard "
            "out."
        )


def spread(root: nn.Module, policy: GraftPolicy, accelerator: Accelerator) -> None:
    """Spread the weights of `policy`, all of which `root` has, in place: each of its parameters
    becomes another one, of the same name."""
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for block in policy.graft.transformer.transformer_blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(root, mesh=mesh, ignored_params=set(policy.encoder.parameters()))


@contextmanager
def gathered(root: nn.Module) -> Generator[None]:
    """What of a spread `root` is in no block is whole inside: for calls beside its forward."""
    if not isinstance(root, FSDPModule):
        yield
        return
    root.unshard()
    try:
        yield
    finally:
        root.reshard()


def whole_content(content: CheckpointContent, kept: bool) -> CheckpointContent:
    """`content` with whole tensors on the CPU, where they are to be `kept`; empty ones elsewhere,
    which gather all the same. One tensor after the other, so that one at a time is whole on the
    device."""
    training = content.training
    weights = _all_whole(content.weights, kept)
    if training is not None:
        training = replace(training, tensors=_all_whole(training.tensors, kept))
    return replace(content, weights=weights, training=training)


def _all_whole(tensors: Mapping[str, Tensor], kept: bool) -> dict[str, Tensor]:
    """By name, not as they come: after a resume they lie in another order in each process."""
    found: dict[str, Tensor] = {}
    for name in sorted(tensors):
        made = whole(tensors[name].detach())
        found[name] = made.cpu() if kept else torch.empty(0)
    return found
