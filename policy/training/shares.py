"""Tensors that may be spread over processes, as FSDP2 spreads weights (torch's DTensor), and whole.

Whoever computes with weights and moments one by one needs none of this: a spread tensor is computed
with as a whole one is, by each process on its share.
"""

from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(tensor: Tensor) -> Tensor:
    """As all processes together have it: they all must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own_share(tensor: Tensor) -> Tensor:
    """What of it this process has: all, where it is not spread."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def share_of(tensor: Tensor, own: Tensor) -> Tensor:
    """A whole tensor of the shape of `own`, spread as that is. Each process has all of it already:
    nothing is sent."""
    if not isinstance(own, DTensor):
        return tensor
    here = tensor.to(own.device)
    return distribute_tensor(here, own.device_mesh, own.placements, src_data_rank=None)
