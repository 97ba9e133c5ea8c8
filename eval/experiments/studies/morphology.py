"""One policy cloned from the experts of several runners, told their bodies or not: experiment 22.

The error of a body is that of whole held-out chunks from no noise, squared, over the constant
predictor's, so that bodies whose experts use little of their motors count alike: `relative_error`
is the mean over bodies, `relative_error_<body>` of one. `action_mse` is the mean in shares of the
motors' reach, and `constant_mse` the constant predictor's.

In closed loop, where `episodes` are asked for: `success`, the share of episodes that run as far as
the suite's task asks, and `return_<body>`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from loopdit.command import option
from loopdit.envs.suites.locomotion import Locomotion
from loopdit.errors import ConfigError
from loopdit.eval.experiments.studies.study import NotFinite, Outcome
from loopdit.eval.experiments.tasks.locomotion import (
    RUNNERS,
    RecordingConfig,
    closed_loop,
    recorded,
    require_runners,
)
from loopdit.eval.morphology.cloning import (
    CloningConfig,
    Demonstrated,
    best_guess,
    clone,
    cloning_error,
)
from loopdit.eval.morphology.demonstrations import embodiment_of, windows_of
from loopdit.policy.fixed_point.adapters import seeded
from loopdit.policy.morphology.morphology_dit import MorphologyConfig
from loopdit.policy.morphology.morphology_policy import MorphologyPolicy
from loopdit.policy.objectives.objective import ObjectiveConfig

REVISION = 1


@dataclass(frozen=True)
class Options:
    """Who is cloned by what, and how long."""

    runners: list[str] = option(list(RUNNERS), "bodies, by their tasks")
    recording: RecordingConfig = field(default_factory=RecordingConfig)
    policy: MorphologyConfig = field(default_factory=MorphologyConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    steps: int = option(3000, "optimiser steps")
    batch: int = option(32, "windows of each body in a step")
    learning_rate: float = option(1e-3, "of AdamW; see eval/morphology/cloning")
    episodes: int = option(0, "closed-loop episodes of each body; 0: none")
    execute: int = option(4, "actions of a chunk that are played before the next one")

    def __post_init__(self) -> None:
        require_runners(self.runners)
        if not 1 <= self.execute <= self.policy.horizon:
            raise ConfigError(f"execute={self.execute} is not within a chunk.")


def run(options: Options, seed: int, device: torch.device) -> Outcome:
    """Record, clone, measure. On the CPU, whatever the device: tokens are few and bodies differ."""
    del device
    robots = [_demonstrated(task, i, options) for i, task in enumerate(options.runners)]
    policy = seeded(lambda: MorphologyPolicy(options.policy, options.objective), seed)
    curve: dict[str, list[float]] = {"step": [], "loss": []}
    often = max(1, options.steps // 20)

    def say(step: int, loss: float) -> None:
        if not math.isfinite(loss):
            raise NotFinite(f"the loss of step {step + 1} is {loss}.")
        if (step + 1) % often == 0:
            curve["step"].append(float(step + 1))
            curve["loss"].append(loss)

    cloning = CloningConfig(options.steps, options.batch, options.learning_rate, seed)
    clone(policy, robots, cloning, say)
    metrics = _errors(policy, robots)
    if options.episodes:
        metrics |= _closed_loops(policy, robots, options)
    parameters = sum(parameter.numel() for parameter in policy.parameters())
    return Outcome(metrics, curve, parameters)


def _demonstrated(task: str, index: int, options: Options) -> Demonstrated:
    runs = recorded(task, options.recording)
    horizon = options.policy.horizon
    training, held_out = windows_of(runs.training, horizon), windows_of(runs.held_out, horizon)
    robot = Locomotion(task)
    body = embodiment_of(robot, task, index, training)
    robot.close()
    return Demonstrated(body, training, held_out)


def _errors(policy: MorphologyPolicy, robots: list[Demonstrated]) -> dict[str, float]:
    errors = {robot.body.name: cloning_error(policy, robot) for robot in robots}
    relative = {name: error.chunk / error.constant_chunk for name, error in errors.items()}
    return {
        "relative_error": fmean(relative.values()),
        "action_mse": fmean(error.chunk for error in errors.values()),
        "constant_mse": fmean(error.constant_chunk for error in errors.values()),
        "constant_relative_error": 1.0,
        **{f"relative_error_{name}": value for name, value in relative.items()},
    }


def _closed_loops(
    policy: MorphologyPolicy, robots: list[Demonstrated], options: Options
) -> dict[str, float]:
    metrics: dict[str, float] = {}
    successes: list[float] = []
    for robot in robots:
        name = robot.body.name
        act = partial(_act, best_guess(policy, robot.body))
        found = closed_loop(
            name, act, options.episodes, options.execute, options.recording.episode_steps
        )
        metrics[f"return_{name}"] = float(found.returns.mean())
        metrics[f"success_{name}"] = float(found.successes.mean())
        successes.append(metrics[f"success_{name}"])
    return {"success": fmean(successes), **metrics}


def _act(guess: Callable[[Tensor], Tensor], seen: np.ndarray) -> np.ndarray:
    return guess(torch.from_numpy(seen)).numpy()
