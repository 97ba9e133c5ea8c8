"""Behaviour cloning of several bodies with one policy, and how far its actions are from theirs.

B windows a body and step. Errors are squared, in shares of the motors' reach, mean over motors: of
the chunk's first action, which is what is executed, and of the whole chunk. Beside them stands the
constant predictor's, the best single chunk for all observations of a body: what an error must be
below to say anything.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loopdit.command import option
from loopdit.errors import ConfigError
from loopdit.eval.morphology.demonstrations import Windows
from loopdit.policy.morphology.embodiment import Embodiment
from loopdit.policy.morphology.morphology_policy import MorphologyPolicy

_WARMUP_SHARE = 0.05
_LEAST_SHARE = 0.05  # of the learning rate, at the end
_GRADIENT_NORM = 1.0
_ROWS = 512  # predicted at once


@dataclass(frozen=True)
class CloningConfig:
    """How long, and in what steps, the policy learns."""

    steps: int = option(2000, "optimiser steps, each on windows of every body")
    batch: int = option(32, "windows of each body in a step")
    learning_rate: float = option(1e-3, "of AdamW, after warm-up; falls as a cosine")
    seed: int = option(0, "of the weights, of the windows and of the noise")

    def __post_init__(self) -> None:
        for name in ("steps", "batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"cloning.{name}={getattr(self, name)} must be at least 1.")
        if not 0 < self.learning_rate < 1:
            raise ConfigError(
                f"cloning.learning_rate={self.learning_rate} must be between 0 and 1."
            )


@dataclass(frozen=True)
class Demonstrated:
    """A body with its expert's windows: to learn from, and held-out episodes' to measure on."""

    body: Embodiment
    training: Windows
    held_out: Windows


@dataclass(frozen=True)
class CloningError:
    """Of one body's held-out windows; see above."""

    first: float
    chunk: float
    constant_first: float
    constant_chunk: float


def clone(
    policy: MorphologyPolicy,
    robots: Sequence[Demonstrated],
    config: CloningConfig,
    say: Callable[[int, float], object] = lambda step, loss: None,
) -> None:
    """Train the policy in place on all bodies at once; each counts alike."""
    generator = torch.Generator().manual_seed(config.seed)
    optimizer = torch.optim.AdamW(policy.parameters(), config.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share(step, config.steps))
    policy.train()
    for step in range(config.steps):
        losses: list[Tensor] = []
        for robot in robots:
            rows = torch.randint(
                len(robot.training.observations), (config.batch,), generator=generator
            )
            drawn = robot.training.at(rows)
            losses.append(
                policy.loss(robot.body, drawn.observations, drawn.chunks, drawn.valid, generator)
            )
        loss = torch.stack(losses).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), _GRADIENT_NORM)
        optimizer.step()
        schedule.step()
        say(step, loss.item())
    policy.eval()


def cloning_error(
    policy: MorphologyPolicy, robot: Demonstrated, sampling_steps: int = 1, loops: int | None = None
) -> CloningError:
    """On the held-out windows, from no noise: the policy's best guess, as it is executed."""
    held = robot.held_out
    predicted = torch.cat(
        [
            policy.act(
                robot.body, seen, _no_noise(policy, robot.body, len(seen)), sampling_steps, loops
            )
            for seen in held.observations.split(_ROWS)
        ]
    )
    weight = robot.training.valid[..., None]
    constant = (robot.training.chunks * weight).sum(0) / weight.sum(0)
    first, chunk = _errors(robot, predicted)
    constant_first, constant_chunk = _errors(robot, constant.expand_as(predicted))
    return CloningError(first, chunk, constant_first, constant_chunk)


def best_guess(
    policy: MorphologyPolicy, body: Embodiment, sampling_steps: int = 1, loops: int | None = None
) -> Callable[[Tensor], Tensor]:
    """Raw observations (B, P) -> chunks (B, H, A), from no noise."""

    def act(observation: Tensor) -> Tensor:
        noise = _no_noise(policy, body, len(observation))
        return policy.act(body, observation, noise, sampling_steps, loops)

    return act


def _errors(robot: Demonstrated, predicted: Tensor) -> tuple[float, float]:
    held = robot.held_out
    difference = ((predicted - held.chunks) / robot.body.reach).square().mean(-1)  # (M, H)
    chunk = (difference * held.valid).sum() / held.valid.sum()
    return float(difference[:, 0].mean()), float(chunk)


def _no_noise(policy: MorphologyPolicy, body: Embodiment, count: int) -> Tensor:
    return torch.zeros(count, policy.config.horizon, body.motors)


def _share(step: int, steps: int) -> float:
    """Of the learning rate: a line up, then a cosine down."""
    warmup = max(1, round(_WARMUP_SHARE * steps))
    if step < warmup:
        return (step + 1) / warmup
    turn = torch.tensor((step - warmup) / max(1, steps - warmup))
    return _LEAST_SHARE + (1 - _LEAST_SHARE) * (1 + float(torch.cos(torch.pi * turn))) / 2
