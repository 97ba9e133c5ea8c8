"""How good the model's word is: on held-out canvases, on other splits, at levels of noise."""

from collections.abc import Mapping
from statistics import fmean

from torch import Tensor

from loopdit.eval.experiments.canvas.errors import best_guess, region_errors
from loopdit.eval.experiments.canvas.measures.trained import Metrics, Trained
from loopdit.eval.experiments.tasks.canvas_task import HELD_OUT, TRAIN

_LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)


def guess(trained: Trained) -> Metrics:
    """The main region's error from noise alone, one pass: `guess_error`."""
    return {"guess_error": _guess_error(trained, trained.held_out)}


def accuracy(trained: Trained) -> Metrics:
    """How often the largest number of an output is the right one, from noise alone:
    `accuracy_<region>`."""
    metrics: Metrics = {}
    for name in trained.task.layout.outputs:
        said = best_guess(trained.model, trained.held_out, name)
        right = said.argmax(-1) == trained.held_out[name].argmax(-1)
        metrics[f"accuracy_{name}"] = float(right.float().mean())
    return metrics


def f1(trained: Trained) -> Metrics:
    """Of numbers that are 1 or -1, taken by their sign, from noise alone; 1 is what is looked for.

    `chance_f1` is that of who always says 1, the best that can be had without looking.
    """
    said = best_guess(trained.model, trained.held_out, trained.task.main) > 0
    truth = trained.held_out[trained.task.main] > 0
    hits = float((said & truth).sum())
    wrong = float((said != truth).sum())
    share = float(truth.float().mean())
    return {"f1": 2 * hits / max(1.0, 2 * hits + wrong), "chance_f1": 2 * share / (1 + share)}


def splits(trained: Trained) -> Metrics:
    """The main region's error on each split, `<split>_error`, and from noise alone,
    `<split>_guess_error`; the mean over those out of distribution (`ood_error`), and for levels
    that are numbered the last over the first (`last_first_ratio`)."""
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
    """The main region's error by noise level, `error_noise_0.1` to `0.9` (1 is noise alone)."""
    return {
        f"error_noise_{noise}": region_errors(trained.model, trained.held_out, level=1 - noise)[
            trained.task.main
        ]
        for noise in _LEVELS
    }


def _guess_error(trained: Trained, canvas: Mapping[str, Tensor]) -> float:
    main = trained.task.main
    return float((best_guess(trained.model, canvas, main) - canvas[main]).square().mean())
