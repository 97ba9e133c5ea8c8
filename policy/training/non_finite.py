"""What became infinite or not a number in a training step, in words: where it began.

Looked for only after a check of the losses and the gradient's norm has found that something did:
observations first, then actions, losses, gradients, because each of them spoils the next.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from loopdit.datasets.windows import Batch
from loopdit.policy.training.shares import own_share


def is_finite(losses: Tensor, gradient_norm: Tensor) -> bool:
    """Whether a step may be taken. The only wait for the device in it."""
    return bool(torch.isfinite(torch.cat([losses.flatten(), gradient_norm.view(1)])).all())


def spoilt_rows(batch: Batch) -> tuple[str, list[int]] | None:
    """The first tensor of the data with such numbers, and the windows of the batch they are in."""
    tensors = {**batch.observations, "action": batch.actions}
    if batch.executed is not None:
        tensors["executed_action"] = batch.executed
    for name, values in tensors.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            axes = tuple(range(1, values.ndim))
            return name, np.flatnonzero(~np.isfinite(values).all(axis=axes)).tolist()
    return None


def spoilt_loss(losses: Tensor, depths: Sequence[int]) -> str | None:
    """Of losses (exits run,), the first of `depths`: "the loss of K=3"."""
    each = zip(depths, losses.tolist(), strict=False)
    wrong = [k for k, loss in each if not np.isfinite(loss)]
    return f"the loss of K={','.join(map(str, wrong))}" if wrong else None


def spoilt_tensor(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first with such numbers; of one that is spread over processes, in this one's
    share."""
    return next((n for n, t in tensors.items() if not torch.isfinite(own_share(t)).all()), None)
