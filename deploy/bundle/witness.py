"""A chunk that the trained module computed at export, for every back end to repeat when it loads.

Hashes say that the files are those that were exported. This says that what runs them here computes
what was trained: another release of a runtime may not, nor may a later version of the model's own
code, which loads weights of the same shapes without complaint.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from loopdit.datasets.spec import COMMITTED, PolicySpec
from loopdit.policy.encoders.absent_cameras import AVAILABLE
from loopdit.policy.encoders.vocabulary import INSTRUCTION


@dataclass(frozen=True)
class Witness:
    """The reference's actions, H rows of A numbers in raw units, for `witness_inputs`.

    loops, steps: what they were computed with. tolerance: how far a back end may be from them.
    """

    loops: int
    steps: int
    tolerance: float
    actions: tuple[tuple[float, ...], ...]

    def error(self, actions: np.ndarray) -> float:
        """Largest difference of `actions` (H, A) from the reference's; not a number is infinite."""
        difference = np.abs(actions.astype(np.float64) - np.array(self.actions))
        return float(np.nan_to_num(difference, nan=np.inf).max())

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Witness":
        """Read what `to_dict` wrote. Raises KeyError, TypeError or ValueError."""
        return cls(
            loops=int(data["loops"]),
            steps=int(data["steps"]),
            tolerance=float(data["tolerance"]),
            actions=tuple(tuple(float(value) for value in row) for row in data["actions"]),
        )


def witness_inputs(
    spec: PolicySpec, horizon: int, told: np.ndarray | None = None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """One observation, each tensor (1, ...), and one noise (1, H, A) float32.

    By formula, because numpy promises no random stream from one release to the next. `told` is what
    the policy is given for an instruction, where it is told its task.
    """
    observation: dict[str, np.ndarray] = {}
    for tensor in spec.observations:
        index = np.arange(np.prod(tensor.shape, dtype=int), dtype=np.int64).reshape(tensor.shape)
        scaled = index * 37 % 256 if tensor.is_image else np.sin(index + 1.0)
        if tensor.name == COMMITTED:  # the older half of those that there may be
            scaled[:, -1] = np.arange(len(scaled)) < (len(scaled) + 1) // 2
            scaled = scaled * scaled[:, -1:]
        observation[tensor.name] = scaled.astype(tensor.dtype)[None]
    if spec.optional:  # all but the last of several cameras
        cameras = np.arange(len(spec.cameras))
        observation[AVAILABLE] = (cameras < max(1, len(cameras) - 1))[None]
    if told is not None:
        observation[INSTRUCTION] = told[None]
    size = spec.action.shape[0]
    wave = np.sqrt(2) * np.sin(np.arange(1, horizon * size + 1) ** 2)
    return observation, wave.astype(np.float32).reshape(1, horizon, size)
