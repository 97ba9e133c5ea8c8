"""What goes on between loops: do their states converge, and which loop joins the regions."""

from statistics import fmean

import torch
from torch import Tensor

from loopdit.eval.experiments.canvas.errors import pieces, region_errors
from loopdit.eval.experiments.canvas.measures.trained import Curve, Metrics, Trained
from loopdit.policy.attention import attend
from loopdit.policy.block import AdaLNBlock
from loopdit.policy.canvas.canvas_model import CanvasModel
from loopdit.policy.canvas.loop_map import canvas_loops
from loopdit.policy.canvas.topology import CanvasTopology
from loopdit.policy.fixed_point.diagnostics import LoopCurves, measure

_FIXED_POINT_SAMPLES = 4


def fixed_point(trained: Trained) -> Metrics:
    """Cosine, update and its ratio, and Lipschitz estimate of each loop, the mean over blocks, to
    twice the trained loops; the same of random weights, `null_...`."""
    own = _loop_numbers(trained, trained.model)
    null = _loop_numbers(trained, trained.fresh(0))
    loops = trained.model.config.loops.loops
    trained.curve = {
        "loop": [float(k) for k in range(1, len(own["cosine"]) + 1)],
        **own,
        **{f"null_{name}": values for name, values in null.items()},
    }
    metrics: Metrics = {}
    for prefix, numbers in (("", own), ("null_", null)):
        for k in range(loops):
            metrics[f"{prefix}cosine_{k + 1}"] = numbers["cosine"][k]
        metrics[f"{prefix}cosine_first"] = numbers["cosine"][0]
        metrics[f"{prefix}cosine_last"] = numbers["cosine"][loops - 1]
        metrics[f"{prefix}cosine_twice"] = numbers["cosine"][-1]
        metrics[f"{prefix}update_first"] = numbers["relative_update"][0]
        metrics[f"{prefix}update_last"] = numbers["relative_update"][loops - 1]
        metrics[f"{prefix}ratio_last"] = numbers["ratio"][-1]
        metrics[f"{prefix}lipschitz_last"] = numbers["lipschitz"][loops - 1]
    return metrics


def cross_modal(trained: Trained) -> Metrics:
    """The error where one loop's attention is kept within each region, over the error where none
    is: `degradation_loop_<k>`, and the last over the mean of the others (`last_loop_share`)."""
    model, main = trained.model, trained.task.main
    within = CanvasTopology.isolated(model.layout.names).mask(model.layout).to(trained.device)
    whole = region_errors(model, trained.held_out)[main]
    loops = model.config.loops.loops
    blocks = [module for module in model.modules() if isinstance(module, AdaLNBlock)]
    metrics: Metrics = {}
    for cut in range(loops):
        before = [block.attention for block in blocks]
        for block in blocks:
            block.attention = _CutInOneLoop(within, cut, loops)
        metrics[f"degradation_loop_{cut + 1}"] = (
            region_errors(model, trained.held_out)[main] / whole
        )
        for block, attention in zip(blocks, before, strict=True):
            block.attention = attention
    others = fmean(metrics[f"degradation_loop_{loop}"] for loop in range(1, loops))
    metrics["last_loop_share"] = metrics[f"degradation_loop_{loops}"] / others
    return metrics


class _CutInOneLoop:
    """Attention of a block that is called once a loop: in loop `cut`, counted from 0, within a
    mask (N, N)."""

    def __init__(self, within: Tensor, cut: int, loops: int) -> None:
        self._within, self._cut, self._loops = within, cut, loops
        self._calls = 0

    def __call__(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        bias: Tensor | None,
        sharpness: float | Tensor,
    ) -> Tensor:
        here = self._calls % self._loops == self._cut
        self._calls += 1
        return attend(queries, keys, values, self._within if here else bias, sharpness)


def _loop_numbers(trained: Trained, model: CanvasModel) -> Curve:
    """By kind of number the mean over the model's blocks of the median over canvases, a loop."""
    model = model.to(trained.device).eval()
    loops = model.config.loops.loops
    piece = next(pieces(trained.held_out, _FIXED_POINT_SAMPLES))
    count = len(next(iter(piece.values())))
    generator = torch.Generator().manual_seed(0)
    noise = {n: v.to(trained.device) for n, v in model.draw(count, generator).noise.items()}
    level = torch.full((count,), 0.5, device=trained.device)
    noisy = model.noised(piece, noise, level)
    curves: list[LoopCurves] = [
        measure(canvas_loops(model, noisy, level, unit), 2 * loops, iterations=trained.iterations)
        for unit in range(len(model.stack.units))
    ]
    names = ("cosine", "relative_update", "ratio", "lipschitz")
    columns = {
        name: [
            fmean(values)
            for values in zip(*(getattr(curve, name).median for curve in curves), strict=True)
        ]
        for name in names
    }
    columns["ratio"].insert(0, 1.0)  # the first loop has none before it
    return columns
