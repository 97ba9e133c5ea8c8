"""The steps of a small training: AdamW, a short warm-up, a clipped gradient, a look now and then.

Knows neither models nor data: a step's gradients are made by what is given. What is no number is an
error that names the step; looked for every _CHECK steps, as looking makes a GPU wait.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from loopdit.command import option
from loopdit.errors import ConfigError
from loopdit.eval.experiments.studies.study import NotFinite

_WARMUP_SHARE = 0.05
_GRADIENT_NORM = 1.0
_CHECK = 20


@dataclass(frozen=True)
class StepsConfig:
    """How long, and in what steps, a model of a study learns."""

    steps: int = option(3000, "optimiser steps")
    batch: int = option(32, "examples in a step")
    learning_rate: float = option(1e-4, "of AdamW, after a warm-up of a twentieth of the steps")
    looks: int = option(15, "how often the held-out error is taken on the way")

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "looks"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1.")
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(f"learning_rate={self.learning_rate} must be above 0, and finite.")

    @property
    def looked_at(self) -> Sequence[int]:
        """The numbers of steps after which the error is taken: evenly, the last one always."""
        parts = min(self.looks, self.steps)
        return sorted({round(self.steps * part / parts) for part in range(1, parts + 1)})


class Fitting:
    """A training under way, one step at a time."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        config: StepsConfig,
        gradients: Callable[[int], Tensor],
    ) -> None:
        self._trained = [parameter for parameter in parameters if parameter.requires_grad]
        self._config = config
        self._gradients = gradients
        self._optimizer = torch.optim.AdamW(self._trained, config.learning_rate, fused=True)
        self._warm = max(1, round(_WARMUP_SHARE * config.steps))
        self.done = 0

    def step(self) -> None:
        """One more. Raises NotFinite."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._config.learning_rate * min(1.0, (self.done + 1) / self._warm)
        self._optimizer.zero_grad()
        loss = self._gradients(self.done)
        norm = nn.utils.clip_grad_norm_(self._trained, _GRADIENT_NORM)
        if self.done % _CHECK == 0 or self.done + 1 == self._config.steps:
            for what, value in (("loss", loss), ("gradient", norm)):
                if not bool(value.isfinite()):
                    raise NotFinite(f"the {what} of step {self.done + 1} is {float(value)}.")
        self._optimizer.step()
        self.done += 1


def fit(
    parameters: Iterable[nn.Parameter],
    config: StepsConfig,
    gradients: Callable[[int], Tensor],
    look: Callable[[int], object] = lambda steps: None,
) -> None:
    """Train `parameters`. `gradients` adds those of a step, counted from 0, and returns its loss;
    `look` is called with the steps done at each of `config.looked_at`.

    Raises NotFinite.
    """
    fitting, looked_at = Fitting(parameters, config, gradients), set(config.looked_at)
    while fitting.done < config.steps:
        fitting.step()
        if fitting.done in looked_at:
            look(fitting.done)
