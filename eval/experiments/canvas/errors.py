"""How wrong a canvas model is on given canvases: by region, in clean values, under fixed draws.

Shapes: B canvases. Every model of a layout is measured under the same noise and levels.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from loopdit.policy.canvas.canvas_model import CanvasDraws, CanvasModel

Canvas = Mapping[str, Tensor]

_ROWS = 64  # evaluated at once: the same number everywhere, so that results are the same to the bit
_DRAWS_SEED = 77


def rows_of(canvas: Canvas, rows: Tensor | slice) -> dict[str, Tensor]:
    """Those canvases of a batch."""
    return {name: values[rows] for name, values in canvas.items()}


def pieces(canvas: Canvas, rows: int = _ROWS) -> Iterator[dict[str, Tensor]]:
    """A batch in order, some canvases at a time."""
    count = len(next(iter(canvas.values())))
    for start in range(0, count, rows):
        yield rows_of(canvas, slice(start, start + rows))


@torch.no_grad()
def region_errors(
    model: CanvasModel, canvas: Canvas, loops: int | None = None, level: float | None = None
) -> dict[str, float]:
    """The mean squared error of the clean values of each output region, at levels drawn as in
    training, or at one level for all."""
    was_training = model.training
    model.eval()
    generator = torch.Generator().manual_seed(_DRAWS_SEED)
    total: dict[str, float] = dict.fromkeys(model.layout.outputs, 0.0)
    count = 0
    for piece in pieces(canvas):
        size = len(next(iter(piece.values())))
        errors = model.loss(piece, draws(model, piece, generator, level), loops).error
        for name, error in errors.items():
            total[name] += float(error) * size
        count += size
    model.train(was_training)
    return {name: value / count for name, value in total.items()}


@torch.no_grad()
def best_guess(model: CanvasModel, canvas: Canvas, region: str, loops: int | None = None) -> Tensor:
    """What the model says of a region from noise alone (level 0), in one pass: (B, n, size)."""
    was_training = model.training
    model.eval()
    generator = torch.Generator().manual_seed(_DRAWS_SEED)
    found: list[Tensor] = []
    for piece in pieces(canvas):
        drawn = draws(model, piece, generator, level=0.0)
        noisy = model.noised(piece, drawn.noise, drawn.level)
        output = model(noisy, drawn.level, loops).predicted[region]
        found.append(model.objective.chunk(noisy[region], output, drawn.level))
    model.train(was_training)
    return torch.cat(found)


def draws(
    model: CanvasModel, canvas: Canvas, generator: torch.Generator, level: float | None = None
) -> CanvasDraws:
    """Noise and levels for a batch, on its device, drawn on the generator's."""
    first = next(iter(canvas.values()))
    made = model.draw(len(first), generator)
    levels = made.level if level is None else torch.full_like(made.level, level)
    noise = {name: values.to(first.device) for name, values in made.noise.items()}
    return CanvasDraws(noise, levels.to(first.device))


def constant_errors(
    trained_on: Canvas, measured_on: Canvas, outputs: tuple[str, ...]
) -> dict[str, float]:
    """Of the predictor that always says the mean of the training canvases."""
    return {
        name: float((measured_on[name] - trained_on[name].mean(0)).square().mean())
        for name in outputs
    }
