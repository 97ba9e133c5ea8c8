"""Experts for Gymnasium's runners that fit into a small file: a linear map, or a gait with a clock.

Observation (P,) float64 as the suite gives it, action (A,) float32 within -1..1. An expert is a
function of the observation and of how many steps the episode is old; only the gait uses the latter.
Its phase can be read off the joints, which it makes follow its targets, so it can be cloned from
observations. `experts.py` searches their numbers; the found ones lie in `expert_files/`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from loopdit.errors import ConfigError

FOLDER = Path(__file__).parent / "expert_files"
_DIGITS = 6  # significant, of every number in a file


class Expert(Protocol):
    """A policy without memory."""

    def action(self, observation: np.ndarray, step: int) -> np.ndarray:
        """The action (A,) float32 for the observation (P,) at `step` of an episode."""
        ...


@dataclass(frozen=True)
class LinearExpert:
    """weights (A, R) times the first R observed numbers, less their mean (R,), over `spread` (R,).

    Saturated at the limits of the motors. Static linear policies run (Mania et al. 2018).
    """

    weights: np.ndarray
    mean: np.ndarray
    spread: np.ndarray

    def action(self, observation: np.ndarray, step: int) -> np.ndarray:
        """See `Expert`."""
        del step
        seen = (observation[: len(self.mean)] - self.mean) / self.spread
        return np.clip(self.weights @ seen, -1, 1).astype(np.float32)


@dataclass(frozen=True)
class GaitExpert:
    """Every motor's joint follows offset + swing * sin(2 pi steps / period + phase), all (A,) rad.

    By a spring and a damper; `angles` and `rates` (A,) say where the observation has the joints.
    """

    offset: np.ndarray
    swing: np.ndarray
    phase: np.ndarray
    period_steps: float
    stiffness: float
    damping: float
    angles: np.ndarray
    rates: np.ndarray

    def action(self, observation: np.ndarray, step: int) -> np.ndarray:
        """See `Expert`."""
        turn = 2 * np.pi * step / self.period_steps
        target = self.offset + self.swing * np.sin(turn + self.phase)
        force = self.stiffness * (target - observation[self.angles])
        return np.clip(force - self.damping * observation[self.rates], -1, 1).astype(np.float32)


_KINDS: dict[str, type[LinearExpert] | type[GaitExpert]] = {
    "linear": LinearExpert,
    "gait": GaitExpert,
}


def save_expert(
    expert: LinearExpert | GaitExpert, path: Path, about: Mapping[str, object]
) -> LinearExpert | GaitExpert:
    """Write it with how it was found (`about`); returns it as the file has it, rounded."""
    kind = next(name for name, made in _KINDS.items() if isinstance(expert, made))
    numbers = {name: _rounded(value) for name, value in asdict(expert).items()}
    path.write_text(json.dumps({"kind": kind, "about": about, "numbers": numbers}, indent=1) + "\n")
    return load_expert(path)


def load_expert(path: Path) -> LinearExpert | GaitExpert:
    """The expert of a file that `save_expert` wrote. Raises ConfigError where there is none."""
    return _read(path)[0]


def about_expert(path: Path) -> dict[str, Any]:
    """How the expert of this file was found, and how well it runs."""
    return _read(path)[1]


def expert_file(task: str) -> Path:
    """Where the expert for Gymnasium's `task` lies."""
    return FOLDER / f"{task}.json"


def _read(path: Path) -> tuple[LinearExpert | GaitExpert, dict[str, Any]]:
    if not path.is_file():
        raise ConfigError(
            f"there is no expert at {path}. Make one with: "
            f"python -m loopdit.eval.morphology.experts env=gymnasium/{path.stem}"
        )
    content = json.loads(path.read_text())
    numbers: dict[str, Any] = {
        name: np.array(value) if isinstance(value, list) else value
        for name, value in content["numbers"].items()
    }
    return _KINDS[content["kind"]](**numbers), content["about"]


def _rounded(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return float(f"{value:.{_DIGITS}g}")
    if value.dtype.kind == "i":
        return value.tolist()
    flat = [float(f"{number:.{_DIGITS}g}") for number in value.ravel().tolist()]
    return np.array(flat).reshape(value.shape).tolist()
