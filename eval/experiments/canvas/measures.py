"""What is asked of a trained canvas model besides its errors, by name.

- guess: the main region's error from noise alone, one pass (`guess_error`), beside the constant's.
- accuracy: how often the largest number of an output is the right one, from noise alone, by region
  (`accuracy_<region>`).
- f1: of numbers that are 1 or -1, taken by their sign, from noise alone; 1 is what is looked for.
  `chance_f1` is that of who always says 1, the best that can be had without looking.
- splits: the main region's error on each split, `<split>_error` (from noise alone
  `<split>_guess_error`), the mean over those out of distribution (`ood_error`), and for levels that
  are numbered the last over the first (`last_first_ratio`).
- levels: the main region's error by noise level, `error_noise_0.1` to `0.9` (1 is noise alone).
- depths: `total_loss` by loops that are run, `total_loss_k1` and so on.
- stopping: each canvas stops at the first loop that changes the main region's best guess by less
  than a threshold, in mean squares (RD-VLA's rule, arXiv 2602.07845): `stop_loops_<threshold>`, the
  mean over canvases, and `stop_error_<threshold>`.
- loop_gates: the mean gate of a loop at output tokens over that at given ones, `gate_ratio`, and of
  each loop `gate_<k>`.
- exits: the mean loops that exit gates or halting use (`loops_used`); at output tokens less at
  given ones (`loops_gap_tokens`); on the split `many` less on the held-out one, where there is one
  (`loops_gap_scenes`); and their correlation with a canvas's own error (`loops_error_spearman`).
- fixed_point: cosine, update and its ratio, and Lipschitz estimate of each loop, the mean over
  blocks, to twice the trained loops; the same of random weights, `null_...`.
- cross_modal: the error where one loop's attention is kept within each region, over the error where
  none is: `degradation_loop_<k>`, and the last over the mean of the others (`last_loop_share`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean
from typing import cast

import torch
from torch import Tensor, nn

from loopdit.eval.experiments.canvas.errors import best_guess, pieces, region_errors
from loopdit.eval.experiments.tasks.canvas_task import HELD_OUT, TRAIN, CanvasTask
from loopdit.policy.attention import attend
from loopdit.policy.block import AdaLNBlock
from loopdit.policy.canvas.canvas_model import CanvasModel
from loopdit.policy.canvas.loop_map import canvas_loops
from loopdit.policy.canvas.topology import CanvasTopology
from loopdit.policy.fixed_point.diagnostics import LoopCurves, measure
from loopdit.policy.loops.looped_block import LoopedBlock

Metrics = dict[str, float]
Curve = dict[str, list[float]]

_SPLIT_SEED = 1_000_033
_LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
_THRESHOLDS = (0.1, 0.01, 0.001, 0.0001)
_FIXED_POINT_SAMPLES = 4


@dataclass
class Trained:
    """A model at the end of its training, with what it is measured on. `fresh` makes the same
    architecture with weights of a seed; `iterations`
    are the most of a Lipschitz estimate; `curve` is of the training, until a measure has another.
    """

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


def guess(trained: Trained) -> Metrics:
    """See the module."""
    return {"guess_error": _guess_error(trained, trained.held_out)}


def accuracy(trained: Trained) -> Metrics:
    """See the module."""
    metrics: Metrics = {}
    for name in trained.task.layout.outputs:
        said = best_guess(trained.model, trained.held_out, name)
        right = said.argmax(-1) == trained.held_out[name].argmax(-1)
        metrics[f"accuracy_{name}"] = float(right.float().mean())
    return metrics


def f1(trained: Trained) -> Metrics:
    """See the module."""
    said = best_guess(trained.model, trained.held_out, trained.task.main) > 0
    truth = trained.held_out[trained.task.main] > 0
    hits = float((said & truth).sum())
    wrong = float((said != truth).sum())
    share = float(truth.float().mean())
    return {"f1": 2 * hits / max(1.0, 2 * hits + wrong), "chance_f1": 2 * share / (1 + share)}


def splits(trained: Trained) -> Metrics:
    """See the module."""
    main, metrics = trained.task.main, Metrics()
    beyond = [name for name in trained.task.splits if name not in (TRAIN, HELD_OUT)]
    for name in beyond:
        canvas = trained.of_split(name)
        metrics[f"{name}_error"] = region_errors(trained.model, canvas)[main]
        metrics[f"{name}_guess_error"] = _guess_error(trained, canvas)
    metrics["ood_error"] = fmean(metrics[f"{name}_error"] for name in beyond)
    levels = [f"{name}_guess_error" for name in beyond if name.startswith("level_")]
    if levels:
        metrics["last_first_ratio"] = metrics[levels[-1]] / metrics[levels[0]]
    return metrics


def levels(trained: Trained) -> Metrics:
    """See the module."""
    return {
        f"error_noise_{noise}": region_errors(trained.model, trained.held_out, level=1 - noise)[
            trained.task.main
        ]
        for noise in _LEVELS
    }


def depths(trained: Trained) -> Metrics:
    """See the module."""
    return {
        f"total_loss_k{loops}": sum(region_errors(trained.model, trained.held_out, loops).values())
        for loops in range(1, trained.model.config.loops.loops + 1)
    }


def stopping(trained: Trained) -> Metrics:
    """See the module."""
    main, most = trained.task.main, trained.model.config.loops.loops
    said = [
        best_guess(trained.model, trained.held_out, main, loops) for loops in range(1, most + 1)
    ]
    errors = torch.stack([_of_canvases(each - trained.held_out[main]) for each in said])  # (K, B)
    changes = torch.stack([_of_canvases(b - a) for a, b in pairwise(said)]) if most > 1 else None
    metrics: Metrics = {}
    for threshold in _THRESHOLDS:
        stop = torch.full_like(errors[0], most - 1, dtype=torch.long)
        if changes is not None:
            small = changes < threshold
            first = small.byte().argmax(0) + 1
            stop = torch.where(small.any(0), first, stop)
        metrics[f"stop_loops_{threshold}"] = float(stop.float().mean()) + 1
        metrics[f"stop_error_{threshold}"] = float(errors.gather(0, stop[None]).mean())
    return metrics


@torch.no_grad()
def loop_gates(trained: Trained) -> Metrics:
    """See the module."""
    found: dict[int, list[Tensor]] = {}

    def note(module: nn.Module, inputs: tuple[object, ...], _: object) -> None:
        loop = cast(int, inputs[2])
        gate = cast(LoopedBlock, module).gate(cast(Tensor, inputs[0]), loop)
        found.setdefault(loop, []).append(gate.mean(0).squeeze(-1))  # (N,)

    handles = [
        module.register_forward_hook(note)
        for module in trained.model.modules()
        if isinstance(module, LoopedBlock)
    ]
    region_errors(trained.model, trained.held_out)
    for handle in handles:
        handle.remove()
    means = torch.stack([torch.stack(gates).mean(0) for _, gates in sorted(found.items())])
    given = trained.model.given.squeeze(-1)
    metrics = {f"gate_{k}": float(row.mean()) for k, row in enumerate(means, 1)}
    metrics["gate_ratio"] = float(means[:, ~given].mean() / means[:, given].mean())
    return metrics


@torch.no_grad()
def exits(trained: Trained) -> Metrics:
    """See the module. In evaluation, so that what halts is computed no further."""
    used, errors = _loops_and_errors(trained, trained.held_out)  # (B, N), (B,)
    given = trained.model.given.squeeze(-1)
    per_canvas = used.mean(1)
    metrics = {
        "loops_used": float(used.mean()),
        "loops_gap_tokens": float(used[:, ~given].mean() - used[:, given].mean()),
        "loops_error_spearman": _spearman(per_canvas, errors),
    }
    if "many" in trained.task.splits:
        many, _ = _loops_and_errors(trained, trained.of_split("many"))
        metrics["loops_gap_scenes"] = float(many.mean() - used.mean())
    return metrics


def fixed_point(trained: Trained) -> Metrics:
    """See the module."""
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
    """See the module."""
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


def _loops_and_errors(trained: Trained, canvas: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """From noise alone: the loops of each token (B, N), and each canvas's error (B,)."""
    model, main = trained.model.eval(), trained.task.main
    generator = torch.Generator().manual_seed(0)
    used: list[Tensor] = []
    errors: list[Tensor] = []
    for piece in pieces(canvas):
        count = len(piece[main])
        drawn = model.draw(count, generator)
        noise = {name: values.to(trained.device) for name, values in drawn.noise.items()}
        level = torch.zeros(count, device=trained.device)
        noisy = model.noised(piece, noise, level)
        out = model(noisy, level)
        clean = model.objective.chunk(noisy[main], out.predicted[main], level)
        used.append(out.loops_used)
        errors.append((clean - piece[main]).square().flatten(1).mean(1))
    return torch.cat(used), torch.cat(errors)


def _of_canvases(difference: Tensor) -> Tensor:
    """(B, n, size) -> mean squares (B,)."""
    return difference.square().flatten(1).mean(1)


def _guess_error(trained: Trained, canvas: Mapping[str, Tensor]) -> float:
    main = trained.task.main
    return float((best_guess(trained.model, canvas, main) - canvas[main]).square().mean())


def _spearman(a: Tensor, b: Tensor) -> float:
    """0 where one of them does not vary."""
    from scipy.stats import rankdata

    ranks = [torch.from_numpy(rankdata(values.cpu().numpy())) for values in (a, b)]
    centred = [values - values.mean() for values in ranks]
    size = float(centred[0].norm() * centred[1].norm())
    return float(centred[0] @ centred[1]) / size if size else 0.0


MEASURES: Mapping[str, Callable[[Trained], Metrics]] = {
    "guess": guess,
    "accuracy": accuracy,
    "f1": f1,
    "splits": splits,
    "levels": levels,
    "depths": depths,
    "stopping": stopping,
    "loop_gates": loop_gates,
    "exits": exits,
    "fixed_point": fixed_point,
    "cross_modal": cross_modal,
}
