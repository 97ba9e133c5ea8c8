"""A canvas model trained on one of the tasks, and what is asked of it then: experiments 1 to 21.

The held-out errors are of the clean values that are predicted, at levels drawn as in training (or
all at noise alone, `from_noise`), under draws that are the same for every model: by output region
`<region>_loss`, their sum `total_loss`, and `main_loss` of the region that the task is about. The
constant predictor's, which says the mean of the training canvases, are `constant_<region>_loss`,
`constant_loss` (the sum) and `constant_main_loss`. The curve has all looks, and `total_loss_early`
is at the first of them: after a fifteenth of the steps where there are 15.

Training canvases are a fixed number, drawn from the seed, as a data set would be; held-out ones are
the same for all seeds.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from loopdit.command import option, require_choice
from loopdit.errors import ConfigError
from loopdit.eval.experiments.canvas.contraction import contraction_penalty
from loopdit.eval.experiments.canvas.depth import DepthOptions, depth_losses, loops_of
from loopdit.eval.experiments.canvas.errors import (
    constant_errors,
    draws,
    region_errors,
    rows_of,
)
from loopdit.eval.experiments.canvas.measures.registry import MEASURES
from loopdit.eval.experiments.canvas.measures.trained import Trained
from loopdit.eval.experiments.canvas.stacks import STACKS, put_stack
from loopdit.eval.experiments.studies.study import Outcome
from loopdit.eval.experiments.tasks.canvas_task import HELD_OUT, TRAIN
from loopdit.eval.experiments.tasks.registry import task_named
from loopdit.eval.experiments.training import StepsConfig, fit
from loopdit.policy.canvas.canvas_model import CanvasModel
from loopdit.policy.canvas.config import CanvasModelConfig
from loopdit.policy.canvas.joint_losses import JointLoss, JointLossConfig
from loopdit.policy.fixed_point.adapters import seeded

REVISION = 2

_HELD_OUT_SEED = 1_000_003  # of no training


@dataclass(frozen=True)
class Options(StepsConfig):
    """What is trained on what, and measured."""

    task: str = option("moving_shapes", "a task by name")
    examples: int = option(2048, "training canvases")
    held_out: int = option(512, "canvases to measure on")
    model: CanvasModelConfig = option(CanvasModelConfig(), "")
    stack: str = option("looped", f"what is looped, and how: {', '.join(STACKS)}")
    joint: JointLossConfig = option(JointLossConfig(), "")
    depth: DepthOptions = option(DepthOptions(), "")
    from_noise: bool = option(
        False, "train and measure at noise alone (level 0), where nothing of the answer shows"
    )
    contract: float = option(
        0.0, "weight of a penalty on what the last loop amplifies, with loops.injection; 0 = none"
    )
    lipschitz_iterations: int = option(30, "of measures=[fixed_point], at most")
    measures: list[str] = option([], f"besides the errors: {', '.join(MEASURES)}")

    def __post_init__(self) -> None:
        super().__post_init__()
        task_named(self.task)
        require_choice("stack", self.stack, tuple(STACKS))
        for name in self.measures:
            require_choice("measures", name, tuple(MEASURES))
        for name in ("examples", "held_out", "lipschitz_iterations"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1.")
        if self.contract < 0 or (self.contract and not self.model.loops.injection):
            raise ConfigError(
                f"contract={self.contract} must be 0 or more, and needs model.loops.injection=true."
            )


def run(options: Options, seed: int, device: torch.device) -> Outcome:
    """Train and measure."""
    task = task_named(options.task)
    model = _fresh(options, seed).to(device)
    training = canvases(options.task, options.examples, seed, TRAIN)
    held_out = _on(canvases(options.task, options.held_out, _HELD_OUT_SEED, HELD_OUT), device)
    joint = JointLoss(task.layout.outputs, options.joint).to(device)
    level = 0.0 if options.from_noise else None
    curve: dict[str, list[float]] = {"step": [], "total_loss": [], "main_loss": []}

    def look(steps: int) -> None:
        errors = region_errors(model, held_out, level=level)
        row = {"step": float(steps), "total_loss": sum(errors.values())}
        for name, value in (row | {"main_loss": errors[task.main]}).items():
            curve[name].append(value)

    gradients = canvas_gradients(options, model.train(), joint, training, seed)
    fit([*model.parameters(), *joint.parameters()], options, gradients, look)
    trained = Trained(
        model.eval(),
        task,
        held_out,
        lambda seed: _fresh(options, seed),
        options.lipschitz_iterations,
        curve,
    )
    errors = region_errors(model, held_out, level=level)
    constant = constant_errors(training, _on(held_out, torch.device("cpu")), task.layout.outputs)
    metrics = {
        "total_loss": sum(errors.values()),
        "main_loss": errors[task.main],
        **{f"{name}_loss": value for name, value in errors.items()},
        "total_loss_early": curve["total_loss"][0],
        **{f"constant_{name}_loss": value for name, value in constant.items()},
        "constant_loss": sum(constant.values()),
        "constant_main_loss": constant[task.main],
    }
    for name in options.measures:
        metrics |= MEASURES[name](trained)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Outcome(metrics, trained.curve, parameters)


@lru_cache(maxsize=4)
def canvases(task: str, count: int, seed: int, split: str) -> dict[str, Tensor]:
    """Of a task; kept, since the cells of a seed share them."""
    return task_named(task).canvases(count, seed, split)


def _fresh(options: Options, seed: int) -> CanvasModel:
    task = task_named(options.task)
    config = replace(options.model, modalities=task.modalities)

    def make() -> CanvasModel:
        model = CanvasModel(config, task.layout)
        put_stack(model, options.stack)
        return model

    return seeded(make, seed)


def canvas_gradients(
    options: Options,
    model: CanvasModel,
    joint: JointLoss,
    training: Mapping[str, Tensor],
    seed: int,
) -> Callable[[int], Tensor]:
    """What a training step does: adds the gradients of step number so and so, returns its loss."""
    generator = torch.Generator().manual_seed(seed)
    device, most = model.position.device, options.model.loops.loops

    def gradients(step: int) -> Tensor:
        rows = torch.randint(options.examples, (options.batch,), generator=generator)
        batch = _on(rows_of(training, rows), device)
        loops = loops_of(options.depth, most, step, options.steps, generator)
        drawn = draws(model, batch, generator, 0.0 if options.from_noise else None)
        losses, ponder = depth_losses(model, batch, drawn, loops, options.depth)
        if options.contract:
            noisy = model.noised(batch, drawn.noise, drawn.level)
            penalty = contraction_penalty(model, noisy, drawn.level, generator)
            ponder = ponder + options.contract * penalty
        return joint.backward(losses, model.parameters(), generator, ponder)

    return gradients


def _on(canvas: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: values.to(device) for name, values in canvas.items()}
