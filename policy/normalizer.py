"""Raw units to the model's and back: zero mean and unit spread, limits respected.

The statistics come from the training data and live in the policy's weights file as buffers, so
that no other place ever multiplies by a standard deviation.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from loopdit.datasets.spec import PROPRIO, PolicySpec
from loopdit.datasets.statistics import VectorStatistics

# An element that hardly moves in the data would have its jitter blown up to unit spread: spreads
# are floored at a share of the declared range, or of a natural unit where there is none.
_LIMITS_SHARE = 0.02
_PROPRIO_FLOOR = 2e-3


class Normalizer(nn.Module):
    """Affine maps of proprio and actions; images map to [-1, 1]."""

    proprio_mean: Tensor
    proprio_spread: Tensor
    action_mean: Tensor
    action_spread: Tensor
    action_low: Tensor
    action_high: Tensor

    def __init__(self, spec: PolicySpec) -> None:
        super().__init__()
        low = np.array(spec.action.low or [-np.inf] * spec.action.shape[0], np.float32)
        high = np.array(spec.action.high or [np.inf] * spec.action.shape[0], np.float32)
        for name, size in ((PROPRIO, spec.proprio.shape[0]), ("action", spec.action.shape[0])):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_spread", torch.ones(size))
        self.register_buffer("action_low", torch.from_numpy(low))
        self.register_buffer("action_high", torch.from_numpy(high))

    def fit(self, statistics: Mapping[str, VectorStatistics]) -> None:
        """Take means and spreads from a data set's statistics, in raw units."""
        reach = (self.action_high - self.action_low).nan_to_num(posinf=0.0)
        floors = {PROPRIO: torch.tensor(_PROPRIO_FLOOR), "action": _LIMITS_SHARE * reach + 1e-6}
        for name, floor in floors.items():
            found = statistics[name]
            spread = torch.maximum(torch.tensor(found.std, dtype=torch.float32), floor)
            self.get_buffer(f"{name}_mean").copy_(torch.tensor(found.mean))
            self.get_buffer(f"{name}_spread").copy_(spread)

    def proprio(self, raw: Tensor) -> Tensor:
        """(B, P) raw -> (B, P)."""
        return (raw - self.proprio_mean) / self.proprio_spread

    def frame(self, raw: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 -> (B, 3, H, W) float in [-1, 1]."""
        return raw.permute(0, 3, 1, 2).to(self.action_mean.dtype) / 127.5 - 1

    def chunk(self, raw: Tensor) -> Tensor:
        """(B, H, A) raw -> (B, H, A)."""
        return (raw - self.action_mean) / self.action_spread

    def raw_chunk(self, chunk: Tensor) -> Tensor:
        """(B, H, A) -> (B, H, A) raw, clipped to the action limits."""
        raw = chunk * self.action_spread + self.action_mean
        return torch.minimum(torch.maximum(raw, self.action_low), self.action_high)
