"""Actions on a small canvas, alone or beside observations to come: experiments 24 and 25.

For one runner at a time the canvas is a row: what is observed now (one token), the 32 actions that
the expert takes from here on `action_tokens` tokens, and `observation_queries` tokens, each one
observation to come, evenly spaced over the same 32 steps. Both are noised and predicted. So the
number of tokens changes how much room the same actions have, and nothing else.

A model is trained for each runner; numbers are means over runners, with `_<runner>` of one.
`action_mse` is of held-out actions from noise alone, one pass, in units of the training actions'
spread; `constant_action_mse` the constant predictor's there. `observation_mse` likewise.

`linked`: dense, all attend to all; one_way, actions attend to what is observed and to one another
alone, and queries of observations to everything: what is predicted besides cannot disturb them in
the pass, only in the weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean

import torch
from torch import Tensor

from loopdit.command import option, require_choice
from loopdit.errors import ConfigError
from loopdit.eval.experiments.canvas.errors import best_guess, draws, rows_of
from loopdit.eval.experiments.studies.study import Outcome
from loopdit.eval.experiments.tasks.locomotion import (
    RUNNERS,
    RecordingConfig,
    joined,
    recorded,
    require_runners,
)
from loopdit.eval.experiments.training import StepsConfig, fit
from loopdit.eval.morphology.running import Run
from loopdit.policy.canvas.canvas_model import CanvasModel
from loopdit.policy.canvas.config import CanvasModelConfig
from loopdit.policy.canvas.joint_losses import JointLoss, JointLossConfig
from loopdit.policy.canvas.layout import CanvasLayout, Region
from loopdit.policy.canvas.modalities import ModalityConfig
from loopdit.policy.canvas.topology import CanvasTopology, Connection
from loopdit.policy.fixed_point.adapters import seeded

REVISION = 1

HORIZON = 32
NOW, ACTIONS, OBSERVATIONS = "now", "actions", "observations"
DENSE, ONE_WAY = "dense", "one_way"
# A number that hardly varied in the demonstrations is not blown up in normalising it.
_LEAST_SPREAD = 1e-2
_FARTHEST = 10.0


@dataclass(frozen=True)
class Options(StepsConfig):
    """What is predicted of which runners, by what."""

    runners: list[str] = option(list(RUNNERS), "bodies, by their tasks; a model for each")
    recording: RecordingConfig = field(default_factory=RecordingConfig)
    action_tokens: int = option(8, "tokens of the 32 actions, a divisor")
    observation_queries: int = option(0, "observations to come that are predicted as well")
    linked: str = option(DENSE, f"{DENSE} or {ONE_WAY}")
    held_out_windows: int = option(1024, "at most so many held-out steps of a runner are measured")
    model: CanvasModelConfig = option(CanvasModelConfig(), "")
    joint: JointLossConfig = option(JointLossConfig(), "")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_runners(self.runners)
        require_choice("linked", self.linked, (DENSE, ONE_WAY))
        if self.action_tokens < 1 or HORIZON % self.action_tokens:
            raise ConfigError(f"action_tokens={self.action_tokens} does not divide {HORIZON}.")
        if not 0 <= self.observation_queries <= HORIZON:
            raise ConfigError(
                f"observation_queries={self.observation_queries} must be from 0 to {HORIZON}."
            )


@dataclass(frozen=True)
class Scaler:
    """Numbers to units of their spread in the training data and back, (size,) each."""

    mean: Tensor
    spread: Tensor

    @classmethod
    def of(cls, values: Tensor) -> "Scaler":
        """values (M, ..., size)."""
        flat = values.flatten(0, -2)
        return cls(flat.mean(0), flat.std(0).clamp_min(_LEAST_SPREAD))

    def scaled(self, values: Tensor) -> Tensor:
        """In units of the spread, cut far outside."""
        return ((values - self.mean) / self.spread).clamp(-_FARTHEST, _FARTHEST)


def run(options: Options, seed: int, device: torch.device) -> Outcome:
    """Train a model for each runner, and measure."""
    metrics: dict[str, list[float]] = {}
    parameters = 0
    for task in options.runners:
        found, size = _one(options, task, seed, device)
        parameters += size
        for name, value in found.items():
            metrics.setdefault(name, []).append(value)
    means = {name: fmean(values) for name, values in metrics.items()}
    each = {
        f"{name}_{task}": value
        for name, values in metrics.items()
        for task, value in zip(options.runners, values, strict=True)
    }
    return Outcome(means | each, None, parameters)


def _one(
    options: Options, task: str, seed: int, device: torch.device
) -> tuple[dict[str, float], int]:
    runs = recorded(task, options.recording)
    training, scalers = canvases(options, runs.training)
    held_out, _ = canvases(options, runs.held_out, scalers)
    every = max(1, len(held_out[NOW]) // options.held_out_windows)
    held_out = {name: values[::every].to(device) for name, values in held_out.items()}
    model = model_of(options, training, seed).to(device)
    joint = JointLoss(model.layout.outputs, options.joint).to(device)
    generator = torch.Generator().manual_seed(seed)

    def gradients(step: int) -> Tensor:
        del step
        rows = torch.randint(len(training[NOW]), (options.batch,), generator=generator)
        batch = {name: values.to(device) for name, values in rows_of(training, rows).items()}
        losses = model.loss(batch, draws(model, batch, generator))
        return joint.backward(losses.objective, model.parameters(), generator, losses.ponder)

    fit([*model.parameters(), *joint.parameters()], options, gradients)
    metrics: dict[str, float] = {}
    for name, region in (("action", ACTIONS), ("observation", OBSERVATIONS)):
        if region not in model.layout.outputs:
            continue
        error = best_guess(model, held_out, region) - held_out[region]
        constant = held_out[region] - training[region].mean(0).to(device)
        metrics[f"{name}_mse"] = float(error.square().mean())
        metrics[f"constant_{name}_mse"] = float(constant.square().mean())
    return metrics, sum(parameter.numel() for parameter in model.parameters())


def canvases(
    options: Options, runs: tuple[Run, ...], scalers: Mapping[str, Scaler] | None = None
) -> tuple[dict[str, Tensor], Mapping[str, Scaler]]:
    """Every step of the runs as a canvas, in the units of `scalers` (their own, where none are
    given): NOW (M, 1, P), ACTIONS (M, n, 32 / n * A), OBSERVATIONS (M, m, P)."""
    _, actions = joined(runs, range(HORIZON))
    count = options.observation_queries
    ahead = [0, *(round(HORIZON * (i + 1) / count) for i in range(count))]
    observations, _ = joined(runs, ahead)
    values = {"observed": torch.from_numpy(observations), "acted": torch.from_numpy(actions)}
    values = {name: tensor.float() for name, tensor in values.items()}
    if scalers is None:
        scalers = {
            "observed": Scaler.of(values["observed"][:, :1]),
            "acted": Scaler.of(values["acted"][:, :1]),
        }
    scaled = {name: scalers[name].scaled(tensor) for name, tensor in values.items()}
    chunk = scaled["acted"].unflatten(1, (options.action_tokens, -1)).flatten(2)
    canvas = {NOW: scaled["observed"][:, :1], ACTIONS: chunk}
    if count:
        canvas[OBSERVATIONS] = scaled["observed"][:, 1:]
    return canvas, scalers


def model_of(options: Options, canvas: Mapping[str, Tensor], seed: int) -> CanvasModel:
    """A fresh model for canvases such as this."""
    sizes = {name: values.shape[-1] for name, values in canvas.items()}
    layout = _layout(options)
    modalities = ModalityConfig(
        proprio=sizes[NOW],
        action=sizes[ACTIONS],
        visual=sizes.get(OBSERVATIONS, 1),
        vocabulary=1,
    )
    config = replace(options.model, modalities=modalities)
    topology = _one_way(layout) if options.linked == ONE_WAY else None
    return seeded(lambda: CanvasModel(config, layout, topology), seed)


def _layout(options: Options) -> CanvasLayout:
    row, actions, count = range(1), options.action_tokens, options.observation_queries
    end = 1 + actions + count
    regions = [
        Region(NOW, "proprio", row, row, range(1)),
        Region(ACTIONS, "action", row, row, range(1, 1 + actions)),
    ]
    if count:
        regions.append(Region(OBSERVATIONS, "visual", row, row, range(1 + actions, end)))
    outputs = tuple(region.name for region in regions[1:])
    return CanvasLayout((1, 1, end), tuple(regions), outputs)


def _one_way(layout: CanvasLayout) -> CanvasTopology:
    seen = {NOW: (NOW,), ACTIONS: (NOW, ACTIONS), OBSERVATIONS: (NOW, ACTIONS, OBSERVATIONS)}
    return CanvasTopology(
        tuple(Connection(source, target) for source in layout.names for target in seen[source])
    )
