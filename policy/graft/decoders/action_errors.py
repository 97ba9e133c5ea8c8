"""How far predicted actions are from demonstrated ones, beside the best that needs no observation.

Shapes: B windows, H action horizon, A action dim. Mean squared errors over the actions inside their
episodes, of the arm's and the gripper's elements together and apart: on Bridge the gripper is 97 %
of the raw error of a constant, and hides what the arm does. A constant command of the training
data's mean action reaches 0.035 raw there, and 0.133 in the normalised units (first and last
percentile to -1 and 1, the gripper as it is). So no error is reported without the constant's.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from loopdit.policy.normalizer import Normalizer

_OPEN = 0.5  # of the way from closed to open


@dataclass(frozen=True)
class ActionErrors:
    """Mean squared errors, and the share of actions whose gripper is on the wrong side; NaN where
    no element is known for a gripper."""

    raw: float
    normalised: float
    arm_raw: float
    arm_normalised: float
    gripper_wrong: float

    def to_dict(self, prefix: str = "") -> dict[str, float]:
        """By name, for a file of results: those that there are, as JSON has no NaN."""
        found = {f"{prefix}{name}": value for name, value in asdict(self).items()}
        return {name: value for name, value in found.items() if not math.isnan(value)}


class ErrorSum:
    """Gathers batches. `constant` (A,) raw is the mean action that is trained on, `gripper` (A,)
    bool which elements are grippers, between 0 and 1 raw."""

    def __init__(
        self, normalizer: Normalizer, constant: Sequence[float], gripper: Tensor | None
    ) -> None:
        self._normalizer = normalizer
        device = normalizer.action_mean.device
        self._constant = torch.tensor(constant, dtype=torch.float32, device=device)
        none = torch.zeros(len(self._constant), dtype=torch.bool, device=device)
        self._gripper = none if gripper is None else gripper.to(device)
        self._predicted: list[Tensor] = []
        self._actions: list[Tensor] = []

    @torch.no_grad()
    def add(self, predicted: Tensor, actions: Tensor, valid: Tensor) -> None:
        """Chunks (B, H, A) in normalised units beside the raw actions (B, H, A) that `valid`
        (B, H) says are there."""
        self._predicted.append(predicted[valid])
        self._actions.append(actions[valid])

    @property
    def count(self) -> int:
        """Actions so far."""
        return sum(len(actions) for actions in self._actions)

    def predicted(self) -> ActionErrors:
        """Of what was predicted."""
        chunk = torch.cat(self._predicted)
        return self._errors(chunk, self._normalizer.raw_chunk(chunk))

    def constant(self) -> ActionErrors:
        """Of commanding the mean action whatever is seen."""
        raw = self._constant.expand(self.count, -1)
        return self._errors(self._normalizer.chunk(raw), raw)

    def _errors(self, chunk: Tensor, raw: Tensor) -> ActionErrors:
        actions = torch.cat(self._actions)
        raw_error = (raw - actions).square()
        error = (chunk - self._normalizer.chunk(actions)).square()
        arm = ~self._gripper
        wrong = (raw > _OPEN) != (actions > _OPEN)
        return ActionErrors(
            raw=float(raw_error.mean()),
            normalised=float(error.mean()),
            arm_raw=float(raw_error[:, arm].mean()),
            arm_normalised=float(error[:, arm].mean()),
            gripper_wrong=float(wrong[:, self._gripper].float().mean()),
        )
