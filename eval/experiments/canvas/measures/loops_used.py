"""What each loop adds, and how many are used where the model or a rule stops by itself."""

from collections.abc import Mapping
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from loopdit.eval.experiments.canvas.errors import best_guess, pieces, region_errors
from loopdit.eval.experiments.canvas.measures.trained import Metrics, Trained
from loopdit.policy.loops.looped_block import LoopedBlock

_THRESHOLDS = (0.1, 0.01, 0.001, 0.0001)


def depths(trained: Trained) -> Metrics:
    """`total_loss` by loops that are run: `total_loss_k1` and so on."""
    return {
        f"total_loss_k{loops}": sum(region_errors(trained.model, trained.held_out, loops).values())
        for loops in range(1, trained.model.config.loops.loops + 1)
    }


def stopping(trained: Trained) -> Metrics:
    """Each canvas stops at the first loop that changes the main region's best guess by less than a
    threshold, in mean squares (RD-VLA's rule, arXiv 2602.07845): `stop_loops_<threshold>`, the mean
    over canvases, and `stop_error_<threshold>`."""
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
    """The mean gate of a loop at output tokens over that at given ones, `gate_ratio`, and of each
    loop `gate_<k>`."""
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
    """The mean loops that exit gates or halting use (`loops_used`); at output tokens less at given
    ones (`loops_gap_tokens`); on the split `many` less on the held-out one, where there is one
    (`loops_gap_scenes`); and their correlation with a canvas's own error (`loops_error_spearman`).

    In evaluation, so that what halts is computed no further.
    """
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


def _spearman(a: Tensor, b: Tensor) -> float:
    """0 where one of them does not vary."""
    from scipy.stats import rankdata

    ranks = [torch.from_numpy(rankdata(values.cpu().numpy())) for values in (a, b)]
    centred = [values - values.mean() for values in ranks]
    size = float(centred[0].norm() * centred[1].norm())
    return float(centred[0] @ centred[1]) / size if size else 0.0
