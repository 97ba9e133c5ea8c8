"""A canvas model at the end of its training: what measures are given."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from loopdit.eval.experiments.tasks.canvas_task import CanvasTask
from loopdit.policy.canvas.canvas_model import CanvasModel

Metrics = dict[str, float]
Curve = dict[str, list[float]]

_SPLIT_SEED = 1_000_033


@dataclass
class Trained:
    """The model, and what it is measured on. `fresh` makes the same architecture with weights of a
    seed; `iterations` are the most of a Lipschitz estimate; `curve` is of the training, until a
    measure has another."""

    model: CanvasModel
    task: CanvasTask
    held_out: Mapping[str, Tensor]
    fresh: Callable[[int], CanvasModel]
    iterations: int = 30
    curve: Curve = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """The model's."""
        return self.model.position.device

    def of_split(self, split: str) -> dict[str, Tensor]:
        """As many canvases of a split as are held out."""
        count = len(next(iter(self.held_out.values())))
        made = self.task.canvases(count, _SPLIT_SEED, split)
        return {name: values.to(self.device) for name, values in made.items()}
