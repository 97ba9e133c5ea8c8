"""How well a graft policy does on episodes it is not trained on, at each K, beside a constant.

Chunks are sampled as they are served: features at the noise level that is served, with the noise
that is served, from no starting noise. The same windows each time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from loopdit.datasets.video.latent_windows import LatentSampler
from loopdit.policy.graft.decoders.action_errors import ActionErrors, ErrorSum
from loopdit.policy.graft.decoders.decoder import DEFAULT_STEPS
from loopdit.policy.graft.trainer import Average, LatentReader

_BATCH = 4  # clips at once: at true size each takes a GiB
_WINDOWS = 128


@dataclass(frozen=True)
class GraftValidationResult:
    """Errors of sampled actions by K, and of commanding the training data's mean action."""

    errors: Mapping[int, ActionErrors]
    constant: ActionErrors
    windows: int

    def to_dict(self) -> dict[str, Any]:
        """For metrics.jsonl."""
        return {
            "action_error": {str(k): e.normalised for k, e in self.errors.items()},
            "constant_error": self.constant.normalised,
            "actions": {str(k): e.to_dict() for k, e in self.errors.items()},
            "constant": self.constant.to_dict(),
            "windows": self.windows,
        }

    def sentence(self) -> str:
        """For the screen."""
        errors = " ".join(f"K{k}={error.normalised:.3f}" for k, error in self.errors.items())
        return f"held out: action error {errors}, a constant {self.constant.normalised:.3f}"


class GraftValidation:
    """The windows, read once and kept: at most 128 of them, none twice."""

    def __init__(self, sampler: LatentSampler, mean_action: Sequence[float]) -> None:
        self._batches = [sampler.batch(i) for i in range(self.batches(sampler.windows))]
        self._mean_action = mean_action
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
    def measure(self, average: Average, device: torch.device) -> GraftValidationResult:
        """Of the average's weights, on `device`. Draws nothing."""
        with average.in_place() as policy:
            gripper = policy.decoder.gripper
            sums = {
                loops: ErrorSum(policy.normalizer, self._mean_action, gripper)
                for loops in policy.depths
            }
            reader = LatentReader(policy, self._instructions)
            for batch in self._batches:
                found = reader.tensors(batch, 0, len(batch.actions))
                blank = torch.zeros_like(found.actions, device=device)
                for loops, errors in sums.items():
                    features = policy.features(found.latents, found.task, loops)
                    chunk = policy.sample(policy.read(features, loops), blank, DEFAULT_STEPS)
                    errors.add(chunk.float(), found.actions, found.valid)
        return GraftValidationResult(
            {loops: errors.predicted() for loops, errors in sums.items()},
            next(iter(sums.values())).constant(),
            sum(len(batch.actions) for batch in self._batches),
        )
