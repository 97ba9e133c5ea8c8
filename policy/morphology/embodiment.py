"""One body that the policy moves: its graph, and which numbers of its observation are about what.

N bodies with F features, J joints, A motors, P observed numbers, each of which is in one of S slots
of one joint. Holds the units of both ends: observations and actions are standardised by the mean
and spread of the demonstrations, and actions cut to `reach` (A,), the greatest one of their motor.
Standardised and not divided by their reach: an expert that uses a tenth of its motors would count a
hundredth in losses that several bodies share.
Knows nothing of simulators: all of it arrives as arrays.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loopdit.errors import ConfigError

# A number that hardly varied in the demonstrations is not blown up in normalising it, and one that
# is far outside of what they had is cut to so many spreads.
_LEAST_SPREAD = 1e-2
_FARTHEST = 10.0


@dataclass(frozen=True)
class Embodiment:
    """Names of others than `name`: features (N, F) and distances (N, N) between the bodies;
    joint_body (J,), motor_joint and motor_body (A,), observed_joint and observed_slot (P,) as
    indices; mean and spread (P,), action_mean, action_spread and reach (A,) in raw units. `index`
    tells bodies of one policy apart."""

    name: str
    index: int
    features: Tensor
    distances: Tensor
    joint_body: Tensor
    motor_joint: Tensor
    motor_body: Tensor
    observed_joint: Tensor
    observed_slot: Tensor
    mean: Tensor
    spread: Tensor
    action_mean: Tensor
    action_spread: Tensor
    reach: Tensor

    def __post_init__(self) -> None:
        bodies, joints = len(self.features), len(self.joint_body)
        within = (
            ("distances", self.distances.shape == (bodies, bodies)),
            ("joint_body", _indexes(self.joint_body, bodies)),
            ("motor_body", _indexes(self.motor_body, bodies)),
            ("motor_joint", _indexes(self.motor_joint, joints)),
            ("observed_joint", _indexes(self.observed_joint, joints)),
            ("observed_slot", self.observed_slot.shape == self.observed_joint.shape),
            ("mean", self.mean.shape == self.observed_joint.shape),
            ("spread", self.spread.shape == self.observed_joint.shape),
            ("action_mean", self.action_mean.shape == self.motor_joint.shape),
            ("action_spread", self.action_spread.shape == self.motor_joint.shape),
            ("reach", self.reach.shape == self.motor_joint.shape),
        )
        for name, fits in within:
            if not fits:
                raise ConfigError(
                    f"the body {self.name!r} has {bodies} bodies, {joints} joints, "
                    f"{len(self.motor_joint)} motors and {len(self.observed_joint)} observed "
                    f"numbers: {name} of shape {tuple(getattr(self, name).shape)} does not fit."
                )

    @property
    def motors(self) -> int:
        """A."""
        return len(self.motor_joint)

    def observation(self, raw: Tensor) -> Tensor:
        """Raw (B, P) -> standardised (B, P)."""
        standard = (raw - self.mean) / self.spread.clamp_min(_LEAST_SPREAD)
        return standard.clamp(-_FARTHEST, _FARTHEST)

    def chunk(self, actions: Tensor) -> Tensor:
        """Raw actions (B, H, A) -> standardised."""
        return (actions - self.action_mean) / self.action_spread.clamp_min(_LEAST_SPREAD)

    def actions(self, chunk: Tensor) -> Tensor:
        """A chunk (B, H, A) -> raw actions, cut to what the motors can do."""
        raw = chunk * self.action_spread.clamp_min(_LEAST_SPREAD) + self.action_mean
        return raw.clamp(-self.reach, self.reach)

    def tokens(self, with_bodies: bool) -> int:
        """How many tokens this body makes."""
        return len(self.joint_body) + self.motors + with_bodies * len(self.features)

    def bodies_permuted(self, order: Sequence[int]) -> "Embodiment":
        """The same body, its graph's bodies listed in another order."""
        given = torch.tensor(order)
        place = given.argsort()
        return replace(
            self,
            features=self.features[given],
            distances=self.distances[given][:, given],
            joint_body=place[self.joint_body],
            motor_body=place[self.motor_body],
        )

    def to(self, device: torch.device | str) -> "Embodiment":
        """A copy on a device."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {
            k: v.to(device) for k, v in values.items() if isinstance(v, Tensor)
        }
        return replace(self, **moved)


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Indices as int64, the rest as float32."""
    return {
        name: torch.as_tensor(
            array, dtype=torch.int64 if array.dtype.kind == "i" else torch.float32
        )
        for name, array in arrays.items()
    }


def _indexes(indices: Tensor, count: int) -> bool:
    return not len(indices) or (int(indices.min()) >= 0 and int(indices.max()) < count)
