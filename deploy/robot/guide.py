"""What a chunk that is asked for now should keep to: the actions that are planned already.

A policy that was not trained to be told what is in flight can still be pulled towards it while it
samples (real-time chunking, arXiv 2506.07339): it is given `guide` (H, A + 1) float32 beside the
observation: the actions planned from the observation's step on, in raw units, each followed by how
much the new chunk should keep to it: 1 for those that will be played before it can be there, then
less and less, 0 beyond the plan. Never padded with anything that pulls: zero is an action, too.

`policy/guidance.py` does the pulling. Numpy only.

Shapes: H action horizon, A action dim, n planned actions.
"""

import numpy as np

from loopdit.datasets.spec import Observation, PolicySpec
from loopdit.errors import ObservationError

GUIDE = "guide"
LINEAR, EXP, ONES, ZEROS = "linear", "exp", "ones", "zeros"


def prefix_weights(horizon: int, start: int, end: int, kind: str = EXP) -> np.ndarray:
    """How much each of `horizon` actions counts, (H,) in [0, 1].

    1 before `start`, the steps until the chunk is there; 0 from `end`, where nothing is planned any
    more; in between falling. `ones` falls at `end` alone, `zeros` at `start`.
    """
    start = min(start, end)
    index = np.arange(horizon)
    if kind == ONES:
        weights = np.ones(horizon)
    elif kind == ZEROS:
        weights = (index < start).astype(float)
    else:
        weights = np.clip((start - 1 - index) / (end - start + 1) + 1, 0.0, 1.0)
        if kind == EXP:
            weights = weights * np.expm1(weights) / np.expm1(1.0)
        elif kind != LINEAR:
            raise ValueError(f"kind={kind} is none of {LINEAR}, {EXP}, {ONES}, {ZEROS}.")
    return np.where(index >= end, 0.0, weights)


def check_with_guide(observation: Observation, spec: PolicySpec) -> None:
    """Raise ObservationError for what `spec` refuses, and for a guide beside it that is none."""
    plain = {name: value for name, value in observation.items() if name != GUIDE}
    spec.check_observation(plain)
    if GUIDE not in observation:
        return
    guide, width = observation[GUIDE], spec.action.shape[0] + 1
    form = f"send (n, {width}) float32: the planned actions, each followed by a weight of 0 to 1."
    if guide.ndim != 2 or guide.shape[1] != width or guide.dtype != np.float32:
        raise ObservationError(f"{GUIDE} is {guide.shape} {guide.dtype}; {form}")
    # What is not finite is no weight either: comparisons with it are false.
    if not ((guide[:, -1] >= 0) & (guide[:, -1] <= 1)).all() or not np.isfinite(guide).all():
        raise ObservationError(f"{GUIDE} has numbers that are none, or no weights; {form}")


def guide_for(planned: np.ndarray, delay: int) -> np.ndarray:
    """The planned actions (n, A), the next one first, with their weights: (n, A + 1) float32.

    `delay`: how many of them will be played before the chunk can be there.
    """
    weights = prefix_weights(len(planned), delay, len(planned))
    return np.concatenate([planned, weights[:, None]], axis=1).astype(np.float32)


def padded(guide: np.ndarray, horizon: int) -> np.ndarray:
    """A guide (n, A + 1) for chunks of `horizon` actions: (H, A + 1), zeros behind."""
    tensor = np.zeros((horizon, guide.shape[1]), np.float32)
    tensor[: len(guide)] = guide[:horizon]
    return tensor
