"""How fast experiments train beside a bare loop, and seeds one by one beside all together.

Interleaved in one process on one thread, a few steps of each in turn, so that other work on the
machine slows all alike; a ratio is of one repetition's blocks. Arms, all of the 1,491,409-parameter
v1 model on the same canvases in memory:

- study: what `policy-experiment` does in a step: rows, noise, losses, joint backward, clipping,
  the check for what is no number, AdamW.
- bare: a transformer of the same shapes in forty lines of torch (below), mean squared error,
  backward, AdamW. No loop gates or embeddings, no regions, no clipping.
- together: several seeds as one, by torch.func: stacked parameters, vmap of the gradient, AdamW.
  Beside it the same seeds one after another, in the same way of calling the model.

Writes OUT/bench_experiments.json. Held-out looks and data making are not steps, and not in it.

    python scripts/bench_experiments.py [--out FOLDER] [--task NAME] [--batch N] [--repetitions N]
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional

from loopdit.eval.experiments.canvas.errors import draws
from loopdit.eval.experiments.studies.canvas import Options, canvas_gradients
from loopdit.eval.experiments.tasks.canvas_task import TRAIN
from loopdit.eval.experiments.tasks.registry import task_named
from loopdit.eval.experiments.training import Fitting
from loopdit.machine import describe_machine, machine_and_versions
from loopdit.policy.canvas.canvas_model import CanvasModel
from loopdit.policy.canvas.config import CanvasModelConfig
from loopdit.policy.canvas.joint_losses import JointLoss
from loopdit.policy.canvas.layout import v1_layout
from loopdit.policy.fixed_point.jacobian import differentiable_attention
from loopdit.whole_file import whole_file

BLOCKS, LOOPS, WIDTH, HEADS, TOKENS = 3, 4, 128, 4, 120
SEEDS = 4


class BareBlock(nn.Module):
    """Attention and SwiGLU with adaptive layer norm: as AdaLNBlock, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        hidden = WIDTH * 8 // 3
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, WIDTH, bias=False)
        self.modulation = nn.Linear(2 * WIDTH, 6 * WIDTH)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, N, D), condition (B, 1, 2 D)."""
        a, b, c, d, e, f = self.modulation(condition).chunk(6, -1)
        y = functional.layer_norm(x, (WIDTH,)) * (1 + b) + a
        q, k, v = self.qkv(y).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(q, k, v)
        x = x + c * self.out(attended.transpose(1, 2).flatten(2))
        y = functional.layer_norm(x, (WIDTH,)) * (1 + e) + d
        gate, value = self.up(y).chunk(2, -1)
        return x + f * self.down(functional.silu(gate) * value)


class Bare(nn.Module):
    """Blocks looped one by one between two linear maps."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.into = nn.Linear(numbers, WIDTH)
        self.blocks = nn.ModuleList(BareBlock() for _ in range(BLOCKS))
        self.back = nn.Linear(WIDTH, numbers)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, N, numbers) -> the same shape."""
        x = self.into(x)
        for block in self.blocks:
            for _ in range(LOOPS):
                x = block(x, condition)
        return self.back(x)


def main() -> None:
    """Measure, write the record, show the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("outputs/bench-experiments"))
    parser.add_argument("--task", default="moving_shapes", help="of the arms that train seeds")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repetitions", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    facts = machine_and_versions()
    arms = {
        "study": study(given.batch),
        "bare": bare(given.batch),
        "together": together(given.task, given.batch),
        "one_by_one": one_by_one(given.task, given.batch),
    }
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for step in arms.values():
        step()
    for _ in range(given.repetitions):
        for name, step in arms.items():
            began = time.perf_counter()
            for _ in range(given.steps):
                step()
            seconds[name].append((time.perf_counter() - began) / given.steps)
    rows = {
        "study_speed_over_bare": _ratios(seconds["bare"], seconds["study"]),
        f"{SEEDS}_seeds_together_over_one_by_one": _ratios(
            seconds["one_by_one"], seconds["together"]
        ),
    }
    record = {"batch": given.batch, "seconds_a_step": seconds, "ratios": rows, **facts}
    with whole_file(given.out / "bench_experiments.json") as aside:
        aside.write_text(json.dumps(record, indent=1) + "\n")
    for name, row in rows.items():
        sys.stdout.write(
            f"{name}: {row['median']:.2f} (quartiles {row['low']:.2f} to {row['high']:.2f})\n"
        )
    sys.stdout.write(f"batch {given.batch}; {describe_machine(facts)}\n")


def study(batch: int) -> Callable[[], object]:
    """A step as `policy-experiment` takes it."""
    options = Options(batch=batch, examples=64, learning_rate=1e-4)
    model, joint = _model(0), JointLoss(v1_layout().outputs)
    gradients = canvas_gradients(options, model, joint, _canvases(64), seed=0)
    return Fitting(model.parameters(), options, gradients).step


def bare(batch: int) -> Callable[[], object]:
    """A step of the bare loop. Of its tokens two thirds are patches of 192 numbers in our model;
    here all are of 8 numbers: it embeds and predicts less than ours does."""
    torch.manual_seed(0)
    model = Bare(numbers=8)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)
    x, condition = torch.randn(batch, TOKENS, 8), torch.randn(batch, 1, 2 * WIDTH)

    def step() -> None:
        optimizer.zero_grad()
        (model(x, condition) - x).square().mean().backward()
        optimizer.step()

    return step


def together(task: str, batch: int) -> Callable[[], object]:
    """A step of several seeds as one; the time is of all of them."""
    models = [_model(seed, task) for seed in range(SEEDS)]
    template = models[0]
    parameters, buffers = stack_module_state(models)
    optimizer = torch.optim.AdamW(list(parameters.values()), 1e-4, fused=True)
    step_of_one = grad(_functional_loss(template))
    step_of_all = vmap(step_of_one, in_dims=(0, 0, 0, 0, 0))
    batches = _stacked([_batch(template, task, batch, seed) for seed in range(SEEDS)])

    def step() -> None:
        with differentiable_attention():  # the fused kernel has no rule for many at once
            found = step_of_all(dict(parameters), dict(buffers), *batches)
        for name, value in parameters.items():
            value.grad = found[name]
        optimizer.step()

    return step


def one_by_one(task: str, batch: int) -> Callable[[], object]:
    """The same seeds in turn; the time is of all of them."""
    models = [_model(seed, task) for seed in range(SEEDS)]
    batches = [_batch(models[0], task, batch, seed) for seed in range(SEEDS)]
    optimizers = [torch.optim.AdamW(model.parameters(), 1e-4, fused=True) for model in models]

    def step() -> None:
        for model, optimizer, (noisy, clean, level) in zip(
            models, optimizers, batches, strict=True
        ):
            optimizer.zero_grad()
            _loss(model(noisy, level).predicted, clean).backward()
            optimizer.step()

    return step


def _functional_loss(model: CanvasModel) -> Callable[..., Tensor]:
    def loss(
        parameters: dict[str, Tensor],
        buffers: dict[str, Tensor],
        noisy: dict[str, Tensor],
        clean: dict[str, Tensor],
        level: Tensor,
    ) -> Tensor:
        out: Any = functional_call(model, (parameters, buffers), (noisy, level))
        return _loss(out.predicted, clean)

    return loss


def _loss(predicted: dict[str, Tensor], clean: dict[str, Tensor]) -> Tensor:
    errors = [(value - clean[name]).square().mean() for name, value in predicted.items()]
    return torch.stack(errors).sum()


def _batch(model: CanvasModel, task: str, batch: int, seed: int) -> tuple[Any, Any, Tensor]:
    """A noised batch, the clean one, the levels."""
    canvas = task_named(task).canvases(batch, seed, TRAIN)
    drawn = draws(model, canvas, torch.Generator().manual_seed(seed))
    return model.noised(canvas, drawn.noise, drawn.level), canvas, drawn.level


def _stacked(batches: list[tuple[Any, Any, Tensor]]) -> tuple[Any, Any, Tensor]:
    noisy, clean, levels = zip(*batches, strict=True)
    return _joined(noisy), _joined(clean), torch.stack(levels)


def _joined(canvases: tuple[dict[str, Tensor], ...]) -> dict[str, Tensor]:
    return {name: torch.stack([canvas[name] for canvas in canvases]) for name in canvases[0]}


def _model(seed: int, task: str = "moving_shapes") -> CanvasModel:
    torch.manual_seed(seed)
    chosen = task_named(task)
    config = CanvasModelConfig(modalities=chosen.modalities)
    return CanvasModel(config, chosen.layout).train()


def _canvases(count: int) -> dict[str, Tensor]:
    return task_named("moving_shapes").canvases(count, 0, TRAIN)


def _ratios(above: list[float], below: list[float]) -> dict[str, float]:
    """Of each repetition: median and quartiles."""
    each = [a / b for a, b in zip(above, below, strict=True)]
    low, median, high = statistics.quantiles(each, n=4)
    return {"median": median, "low": low, "high": high}


if __name__ == "__main__":
    main()
