"""One training signal from the losses of several modalities: three ways of joining them.

- "sum": their sum with fixed weights; 1 each is the paper's naive sum, which cost its actions 19 %
  (experiment 24) and is the baseline that the others are here to beat.
- "uncertainty": each loss L is scaled by a learned variance exp(s), as L / (2 exp(s)) + s / 2
  (Kendall et al., arXiv 1705.07115). Its minimum over s is at s = log L, so a loss is weighted by
  its own inverse and none rules by its units.
- "surgery": PCGrad (Yu et al., arXiv 2001.06782). Where two losses' gradients on the parameters
  they share point against each other, each loses its component along the other.

Fixed weights multiply the losses in all three. Knows nothing of models: losses come in by name.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from loopdit.command import option
from loopdit.errors import ConfigError

METHODS = ("sum", "uncertainty", "surgery")


@dataclass(frozen=True)
class JointLossConfig:
    """How the losses of the modalities become one."""

    method: str = option("sum", "sum, uncertainty (learned variances) or surgery (PCGrad)")
    weights: dict[str, float] = option({}, "factor on a modality's loss; 1 where none is given")

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(
                f"joint.method={self.method!r} is none of the methods: {', '.join(METHODS)}."
            )
        for name, weight in self.weights.items():
            if not weight >= 0:
                raise ConfigError(f"joint.weights.{name}={weight} must be 0 or more.")


class JointLoss(nn.Module):
    """Joins the losses of `names`. Its own parameters, if any, belong into the optimiser."""

    log_variances: nn.Parameter | None

    def __init__(self, names: Iterable[str], config: JointLossConfig | None = None) -> None:
        super().__init__()
        self.config = JointLossConfig() if config is None else config
        self.names = tuple(names)
        for name in self.config.weights:
            if name not in self.names:
                raise ConfigError(
                    f"joint.weights names {name!r}, which is not predicted. "
                    f"Predicted are: {', '.join(self.names)}."
                )
        learned = self.config.method == "uncertainty"
        self.log_variances = nn.Parameter(torch.zeros(len(self.names))) if learned else None

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The scalar that is minimised; surgery's is the sum, whose gradient it mends."""
        joined = torch.stack(self._weighted(losses))
        if self.log_variances is not None:
            joined = (joined * torch.exp(-self.log_variances) + self.log_variances) / 2
        return joined.sum()

    def backward(
        self,
        losses: Mapping[str, Tensor],
        parameters: Iterable[nn.Parameter],
        generator: torch.Generator | None = None,
        extra: Tensor | None = None,
    ) -> Tensor:
        """Add this step's gradients to the `.grad` of `parameters`; returns the joined loss.

        `extra` is a scalar that is minimised beside the modalities, such as a ponder cost.
        `generator` draws surgery's orders.
        """
        total = self(losses)
        whole = total if extra is None else total + extra
        if self.config.method == "surgery":
            each = self._weighted(losses)
            surgery_backward(each, list(parameters), generator, extra)
        else:
            whole.backward()
        return whole.detach()

    def _weighted(self, losses: Mapping[str, Tensor]) -> list[Tensor]:
        return [self.config.weights.get(name, 1.0) * losses[name] for name in self.names]


def surgery_backward(
    losses: list[Tensor],
    parameters: list[nn.Parameter],
    generator: torch.Generator | None = None,
    extra: Tensor | None = None,
) -> None:
    """PCGrad's gradients of the losses, added to `.grad`.

    Projected is what lies on parameters that more than one loss reaches; heads and embedders of
    one modality keep their own gradient, and `extra`'s is added unprojected. Costs one backward
    pass a loss.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    each = [_gradients(loss, trained) for loss in losses]
    columns = list(zip(*each, strict=True))
    shared = [i for i, column in enumerate(columns) if len(_present(column)) > 1]
    rows = [
        _flat([gradients[i] for i in shared], [trained[i] for i in shared]) for gradients in each
    ]
    if shared:
        joined = projected_sum(torch.stack(rows), generator)
        pieces = joined.split([trained[i].numel() for i in shared])
        for i, piece in zip(shared, pieces, strict=True):
            _add_gradient(trained[i], piece.view_as(trained[i]))
    for parameter, column in zip(trained, columns, strict=True):
        reaching = _present(column)
        if len(reaching) == 1:
            _add_gradient(parameter, reaching[0])
    if extra is not None and extra.requires_grad:  # a ponder cost may be a constant 0
        for parameter, gradient in zip(trained, _gradients(extra, trained), strict=True):
            if gradient is not None:
                _add_gradient(parameter, gradient)


def projected_sum(gradients: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Gradients (tasks, P) -> their sum (P,), each first freed of its conflicts with the others.

    In a random order of the others, as PCGrad's authors do, since projections do not commute.
    """
    tasks = len(gradients)
    squares = gradients.square().sum(1)
    total = torch.zeros_like(gradients[0])
    for task in range(tasks):
        mine = gradients[task].clone()
        for other in torch.randperm(tasks, generator=generator).tolist():
            if other == task or squares[other] == 0:
                continue
            along = torch.dot(mine, gradients[other])
            if along < 0:
                mine -= along / squares[other] * gradients[other]
        total += mine
    return total


def _gradients(loss: Tensor, parameters: list[nn.Parameter]) -> list[Tensor | None]:
    """None where the loss does not reach a parameter."""
    return list(torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True))


def _present(gradients: Iterable[Tensor | None]) -> list[Tensor]:
    return [gradient for gradient in gradients if gradient is not None]


def _flat(gradients: list[Tensor | None], like: list[nn.Parameter]) -> Tensor:
    """One vector; what a loss does not reach counts as zeros."""
    pairs = zip(gradients, like, strict=True)
    parts = [torch.zeros_like(p).flatten() if g is None else g.flatten() for g, p in pairs]
    return torch.cat(parts) if parts else torch.zeros(0)


def _add_gradient(parameter: nn.Parameter, gradient: Tensor) -> None:
    parameter.grad = gradient.clone() if parameter.grad is None else parameter.grad + gradient
