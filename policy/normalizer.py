"""Raw units to the model's and back: an affine map for each element, and bounds where asked for.

Shapes: B batch, O observed steps (left out where it is one), H action horizon, A action dim.

    normalised = clip((raw - mean) / spread, -bound, bound)      raw = normalised * spread + mean

The numbers come from the training data (`training/normalization` chooses how) and live in the
policy's weights file as buffers, so that no other place ever multiplies by a standard deviation.
Bounds exist only where something is clipped: a policy without them has the same weights file and
the same exported graphs as one from before there were bounds.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from loopdit.datasets.spec import PROPRIO, PolicySpec
from loopdit.datasets.statistics import VectorStatistics

MEAN_STD, MIN_MAX, QUANTILE, NONE = "mean_std", "min_max", "quantile", "none"
MODES = (MEAN_STD, MIN_MAX, QUANTILE, NONE)
VECTORS = (PROPRIO, "action")

# An element that hardly moves in the data would have its jitter blown up to unit spread: spreads
# are floored at a share of the declared range, or of a natural unit where there is none.
_LIMITS_SHARE = 0.02
_PROPRIO_FLOOR = 2e-3


class Normalizer(nn.Module):
    """Affine maps of proprio and actions; images map to [-1, 1]."""

    proprio_mean: Tensor
    proprio_spread: Tensor
    proprio_bound: Tensor | None
    action_mean: Tensor
    action_spread: Tensor
    action_bound: Tensor | None
    action_low: Tensor
    action_high: Tensor

    def __init__(self, spec: PolicySpec) -> None:
        super().__init__()
        low = np.array(spec.action.low or [-np.inf] * spec.action.shape[-1], np.float32)
        high = np.array(spec.action.high or [np.inf] * spec.action.shape[-1], np.float32)
        for name, tensor in ((PROPRIO, spec.proprio), ("action", spec.action)):
            self.register_buffer(f"{name}_mean", torch.zeros(tensor.shape[-1]))
            self.register_buffer(f"{name}_spread", torch.ones(tensor.shape[-1]))
            self.register_buffer(f"{name}_bound", None)
        self.register_buffer("action_low", torch.from_numpy(low))
        self.register_buffer("action_high", torch.from_numpy(high))

    def fit(
        self,
        statistics: Mapping[str, VectorStatistics],
        modes: Mapping[str, str] | None = None,
        keep: Mapping[str, list[int]] | None = None,
    ) -> None:
        """Take the maps from a data set's statistics, in raw units.

        `modes` has one of MODES for "action" and "proprio" (mean_std where it has none): zero mean
        and unit spread; the extremes to [-1, 1]; the first and last percentile to [-1, 1], clipped
        there; nothing. `keep` has the elements that stay as they are whatever the mode.
        """
        reach = (self.action_high - self.action_low).nan_to_num(posinf=0.0)
        floors = {PROPRIO: torch.tensor(_PROPRIO_FLOOR), "action": _LIMITS_SHARE * reach + 1e-6}
        for name, floor in floors.items():
            mode = (modes or {}).get(name, MEAN_STD)
            mean, spread = _mean_and_spread(mode, statistics[name])
            spread = spread if mode == NONE else torch.maximum(spread, floor)
            kept = (keep or {}).get(name, [])
            mean[kept], spread[kept] = 0.0, 1.0
            self.get_buffer(f"{name}_mean").copy_(mean)
            self.get_buffer(f"{name}_spread").copy_(spread)
            bound = torch.full_like(mean, torch.inf)
            if mode == QUANTILE:
                bound[[i for i in range(len(bound)) if i not in kept]] = 1.0
            self._set_bound(name, bound)

    def adopt(self, other: "Normalizer", name: str, pairs: list[tuple[int, int]]) -> None:
        """Take over another's map of "action" or "proprio" for (element here, element there)."""
        for here, there in pairs:
            for kind in ("mean", "spread"):
                buffer = f"{name}_{kind}"
                self.get_buffer(buffer)[here] = other.get_buffer(buffer)[there]
        bound, adopted = self._bound(name), other._bound(name)
        for here, there in pairs:
            bound[here] = adopted[there]
        self._set_bound(name, bound)

    def proprio(self, raw: Tensor) -> Tensor:
        """(B, P) or (B, O, P) raw -> the same shape."""
        return _clipped((raw - self.proprio_mean) / self.proprio_spread, self.proprio_bound)

    def frame(self, raw: Tensor) -> Tensor:
        """(B, H, W, 3) uint8, or float of the same range -> (B, 3, H, W) float in [-1, 1]."""
        return raw.permute(0, 3, 1, 2).to(self.action_mean.dtype) / 127.5 - 1

    def chunk(self, raw: Tensor) -> Tensor:
        """(B, H, A) raw -> (B, H, A)."""
        return _clipped((raw - self.action_mean) / self.action_spread, self.action_bound)

    def raw_chunk(self, chunk: Tensor) -> Tensor:
        """(B, H, A) -> (B, H, A) raw, clipped to the action limits."""
        raw = chunk * self.action_spread + self.action_mean
        return torch.minimum(torch.maximum(raw, self.action_low), self.action_high)

    def _bound(self, name: str) -> Tensor:
        """(D,), infinite where nothing is clipped."""
        found: Tensor | None = getattr(self, f"{name}_bound")
        if found is not None:
            return found
        return torch.full_like(self.get_buffer(f"{name}_mean"), torch.inf)

    def _set_bound(self, name: str, bound: Tensor) -> None:
        self.register_buffer(f"{name}_bound", None if bound.isinf().all() else bound)

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *rest: Any, **named: Any
    ) -> None:
        """Weights decide whether there are bounds: those of one that clips nothing have none."""
        for name in VECTORS:
            found = state_dict.get(f"{prefix}{name}_bound")
            here = self.get_buffer(f"{name}_mean")
            self.register_buffer(f"{name}_bound", None if found is None else torch.ones_like(here))
        super()._load_from_state_dict(state_dict, prefix, *rest, **named)


def _mean_and_spread(mode: str, found: VectorStatistics) -> tuple[Tensor, Tensor]:
    """What a mode takes as 0, and how far from it 1 is, (D,) float32 each."""
    if mode == MEAN_STD:
        mean, spread = found.mean, found.std
    elif mode == NONE:
        mean, spread = (0.0,) * len(found.mean), (1.0,) * len(found.mean)
    else:
        low, high = (found.low, found.high) if mode == MIN_MAX else (found.q01, found.q99)
        mean = tuple((b + a) / 2 for a, b in zip(low, high, strict=True))
        spread = tuple((b - a) / 2 for a, b in zip(low, high, strict=True))
    return torch.tensor(mean, dtype=torch.float32), torch.tensor(spread, dtype=torch.float32)


def _clipped(values: Tensor, bound: Tensor | None) -> Tensor:
    return values if bound is None else torch.minimum(torch.maximum(values, -bound), bound)
