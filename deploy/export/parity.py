"""How far a back end's actions are from the float32 reference: whole chunks, raw units.

Compared after the last denoising step and in what the robot would be sent, because an error that
is small in one step may grow over ten, and one in normalised units says nothing to its reader.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from loopdit.datasets.spec import TensorSpec
from loopdit.deploy.backends import Backend
from loopdit.deploy.bundle.probes import Probes
from loopdit.policy.any_checkpoint import AnyPolicy


@dataclass(frozen=True)
class ParityRow:
    """Errors over all actions of all probes at K = `loops`, in the action's raw units.

    `clipped` is the share of the reference's numbers that lie at a limit of the spec, where
    errors beyond the limit cannot be seen.
    """

    loops: int
    max_abs_error: float
    mean_abs_error: float
    clipped: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def reference_chunks(policy: AnyPolicy, probes: Probes, loops: int, steps: int) -> np.ndarray:
    """The reference's actions (N, H, A) for each probe, in raw units."""
    observation = {
        name: torch.from_numpy(np.array(value)) for name, value in probes.observations.items()
    }
    return policy.act(observation, torch.from_numpy(probes.noise), loops, steps).numpy()


def backend_chunks(
    backend: Backend, probes: Probes, loops: int, steps: int, batch: int = 1
) -> np.ndarray:
    """A back end's actions (N, H, A) for each probe, `batch` of them at a time."""
    chunks: list[np.ndarray] = []
    for index in range(-(-len(probes) // batch)):
        observation, noise = probes.batch(index, batch)
        chunks.append(backend.denoise(backend.encode(observation, loops), noise, steps))
    return np.concatenate(chunks)[: len(probes)]


def compare_chunks(
    found: np.ndarray, reference: np.ndarray, loops: int, action: TensorSpec
) -> ParityRow:
    """Errors of `found` (N, H, A) against `reference` (N, H, A); not a number is infinitely far."""
    low = np.array(action.low or -np.inf, np.float32)
    high = np.array(action.high or np.inf, np.float32)
    clipped = float(((reference <= low) | (reference >= high)).mean())
    error = np.abs(found.astype(np.float64) - reference.astype(np.float64))
    error = np.nan_to_num(error, nan=np.inf, posinf=np.inf)
    return ParityRow(loops, float(error.max()), float(error.mean()), clipped)
