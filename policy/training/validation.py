"""How well a policy does on episodes it is not trained on: fixed windows, fixed noise.

Three numbers in the model's units, means over the actions inside their episodes:

    loss            each exit's error as in training, at all times between noise and chunk
    action_error    each exit's error when it starts from nothing, as the first step of serving
                    does; of whole sampled chunks where that is no guess yet (a diffusion's eps)
    constant_error  the error of commanding the training data's mean action whatever is seen

A policy whose action_error is not below constant_error has learned nothing from observations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loopdit.datasets.spec import COMMITTED
from loopdit.datasets.windows import Batch, WindowSampler
from loopdit.policy.looped_policy import DEFAULT_STEPS, Draws, LoopedPolicy
from loopdit.policy.prefix import is_committed
from loopdit.policy.training.window_tensors import WindowReader, WindowTensors

_BATCH = 64
_WINDOWS = 512
_SEED = 0


@dataclass(frozen=True)
class ValidationResult:
    """See above; of each of `depths`, in their order, and of a constant guess."""

    depths: Sequence[int]
    loss: list[float]
    action_error: list[float]
    constant_error: float
    windows: int

    def to_dict(self) -> dict[str, Any]:
        """For metrics.jsonl."""
        by_loops = {
            name: {str(k): v for k, v in zip(self.depths, getattr(self, name), strict=True)}
            for name in ("loss", "action_error")
        }
        return {**by_loops, "constant_error": self.constant_error, "windows": self.windows}

    def sentence(self) -> str:
        """For the screen."""
        each = zip(self.depths, self.action_error, strict=True)
        errors = " ".join(f"K{k}={error:.3f}" for k, error in each)
        return f"held out: action error {errors}, a constant {self.constant_error:.3f}"


class Validation:
    """The windows, read once and kept: at most 512 of them, none twice."""

    def __init__(self, sampler: WindowSampler, mean_action: Sequence[float]) -> None:
        self._batches = [sampler.batch(i) for i in range(self.batches(sampler.windows))]
        self._mean_action = torch.tensor(mean_action, dtype=torch.float32)
        self._instructions = sampler.instructions

    @staticmethod
    def batch_size(windows: int) -> int:
        """Of a sampler of so many windows: it then has a whole batch within its first epoch."""
        return min(_BATCH, windows)

    @classmethod
    def batches(cls, windows: int) -> int:
        """How many batches of a sampler of so many windows are looked at."""
        return min(_WINDOWS, windows) // cls.batch_size(windows)

    @torch.no_grad()
    def measure(self, policy: LoopedPolicy, device: torch.device) -> ValidationResult:
        """Of a policy on `device`, in eval mode. Draws nothing from global generators."""
        generator = torch.Generator(device).manual_seed(_SEED)
        reader = WindowReader(policy.config, self._instructions, device)
        constant = policy.normalizer.chunk(self._mean_action.to(device))
        sums: dict[str, Tensor] = {}
        actions = 0
        for batch in self._batches:
            drawn = policy.draw(len(batch.actions), generator)
            blank = drawn.blank()
            observation, chunk, valid = _measurable(policy, reader, batch, drawn)
            count = int(valid.sum())
            actions += count
            target = policy.normalizer.chunk(chunk)
            found = {
                "loss": policy.losses(observation, chunk, valid, drawn).error,
                "action_error": policy.losses(observation, chunk, valid, blank).error
                if policy.objective.direct
                else _sampled_error(policy, observation, target, valid, drawn.noise, generator),
                "constant_error": (target - constant).square().mean(-1)[valid].mean(),
            }
            for name, value in found.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value * count
        means = {name: total / actions for name, total in sums.items()}
        return ValidationResult(
            policy.depths,
            means["loss"].tolist(),
            means["action_error"].tolist(),
            float(means["constant_error"]),
            sum(len(batch.actions) for batch in self._batches),
        )


def _measurable(
    policy: LoopedPolicy, reader: WindowReader, batch: Batch, drawn: Draws
) -> WindowTensors:
    """Of the actions in flight a policy is told: there is nothing to be measured of those."""
    found = reader.tensors(batch, drawn, 0, len(batch.actions))
    if policy.config.prefix:
        committed = is_committed(found.observation[COMMITTED], policy.horizon)
        found = found._replace(valid=found.valid & ~committed)
    if drawn.committed is None or found.valid.any():
        return found
    # So few and short windows that nothing is left of them: then as if nothing were in flight.
    none = drawn._replace(committed=torch.zeros_like(drawn.committed))
    return reader.tensors(batch, none, 0, len(batch.actions))


def _sampled_error(
    policy: LoopedPolicy,
    observation: Mapping[str, Tensor],
    target: Tensor,
    valid: Tensor,
    noise: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """(of each depth,): of the chunks that it samples from `noise` (B, H, A)."""
    steps = min(DEFAULT_STEPS, policy.config.objective.train_timesteps)
    fresh = None
    if policy.objective.needs_fresh_noise:
        shape = (steps, *noise.shape)
        fresh = torch.randn(shape, generator=generator, device=noise.device)
    errors: list[Tensor] = []
    for loops in policy.depths:
        chunk = policy.sample(policy.encode(observation, loops), noise, steps, fresh)
        errors.append((chunk - target).square().mean(-1)[valid].mean())
    return torch.stack(errors)
