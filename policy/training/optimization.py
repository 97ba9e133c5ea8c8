"""AdamW on what a training changes: one step of it, and what a resumed run needs.

Knows neither losses nor whose the weights are.
"""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from loopdit.datasets.windows import Batch
from loopdit.policy.training import non_finite
from loopdit.policy.training.shares import share_of, whole
from loopdit.policy.training.steps import NotFinite, scheduled_rate


class OptimizerOptions(Protocol):
    """The options that an optimizer goes by."""

    @property
    def learning_rate(self) -> float:
        """The schedule's peak."""
        ...

    @property
    def warmup_steps(self) -> int:
        """Steps until the peak."""
        ...

    @property
    def weight_decay(self) -> float:
        """AdamW's."""
        ...

    @property
    def clip_norm(self) -> float:
        """The largest norm of a gradient, 0 for any."""
        ...


class Optimization:
    """The weights by their names, which stay their owner's, and the optimizer on them. They may be
    spread over processes, and the moments are as they are."""

    def __init__(self, weights: Mapping[str, nn.Parameter], config: OptimizerOptions) -> None:
        self.weights = dict(weights)
        self._config = config
        self.optimizer = torch.optim.AdamW(
            self.weights.values(),
            config.learning_rate,
            betas=(0.9, 0.95),
            weight_decay=config.weight_decay,
            fused=True,
        )

    def begin(self, step: int, progress: float) -> None:
        """Set the rate of the step to come, and forget the last one's gradients."""
        config = self._config
        rate = scheduled_rate(config.learning_rate, step, config.warmup_steps, progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()

    def gradients(self) -> dict[str, Tensor]:
        """Those that there are."""
        return {name: w.grad for name, w in self.weights.items() if w.grad is not None}

    def norm(self) -> Tensor:
        """Of all gradients together."""
        return whole(nn.utils.get_total_norm(list(self.gradients().values())))

    def take(self, norm: Tensor) -> None:
        """Change the weights by gradients of this norm, clipped where that is asked for."""
        if self._config.clip_norm:
            nn.utils.clip_grads_with_norm_(self.weights.values(), self._config.clip_norm, norm)
        self.optimizer.step()

    def not_finite(self, batch: Batch, spoilt_loss: str | None) -> NotFinite:
        """What to raise of a step that must not be taken: where it began. `spoilt_loss` says which
        loss is no number, where that is known."""
        found = non_finite.spoilt_rows(batch)
        if found is not None:
            return NotFinite(*found)
        weight = non_finite.spoilt_tensor(self.weights)
        if weight is not None:
            return NotFinite(f"the weight {weight}", [])
        if spoilt_loss is not None:
            return NotFinite(spoilt_loss, [])
        gradient = non_finite.spoilt_tensor(self.gradients())
        return NotFinite(f"the gradient of {gradient}" if gradient else "the loss", [])

    def require_finite_weights(self) -> None:
        """Raise NotFinite where the last step has spoilt the weights: they must not be saved."""
        spoilt = non_finite.spoilt_tensor(self.weights)
        if spoilt is not None:
            raise NotFinite(f"the weight {spoilt}", [])

    def tensors(self) -> dict[str, Tensor]:
        """The weights and the optimizer's moments, for `load`; shared with both."""
        tensors: dict[str, Tensor] = {f"policy/{n}": w for n, w in self.weights.items()}
        for name, weight in self.weights.items():
            for key, value in self.optimizer.state[weight].items():
                tensors[f"optimizer/{key}/{name}"] = value
        return tensors

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `tensors` returned, made whole."""
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(share_of(tensors[f"policy/{name}"], weight))
        places = {name: index for index, name in enumerate(self.weights)}
        moments: dict[int, dict[str, Tensor]] = {}
        for path, value in tensors.items():
            whose, _, rest = path.partition("/")
            if whose == "optimizer":
                key, _, name = rest.partition("/")
                weight = self.weights[name]
                of_weight = value.shape == weight.shape  # the count of steps is one number
                moment = share_of(value, weight) if of_weight else value
                moments.setdefault(places[name], {})[key] = moment
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
