"""What a rollout's actions and outcome come to, beside success.

Shapes: T control steps, A action dim.
"""

from collections.abc import Sequence

import numpy as np

from loopdit.datasets.spec import TensorSpec


def action_jerk(actions: np.ndarray, spec: TensorSpec) -> float:
    """How much the executed actions (T, A) twitch; 0 for constant ones and straight ramps.

    For each element the root mean square of the second difference a[t+1] - 2 a[t] + a[t-1], as a
    share of the element's declared range (in raw units where none is declared), then the mean over
    the elements. An element that flips between its limits at every step has 2. Fewer than three
    steps have 0. Second differences of commands, not of the motion: for actions that are position
    deltas, the jerk of the commanded path up to a power of the control period.
    """
    if len(actions) < 3:
        return 0.0
    twitch = np.sqrt((np.diff(actions.astype(float), n=2, axis=0) ** 2).mean(axis=0))  # (A,)
    return float((twitch / _ranges(spec)).mean())


def border_jerk(actions: np.ndarray, spec: TensorSpec, borders: Sequence[int]) -> float:
    """As `action_jerk`, of the second differences that a chunk's taking over is in alone: those
    that end with its first and its second action.

    borders: the steps at which a chunk's first action was executed. 0 where there are none.
    """
    ends = sorted({end for border in borders for end in (border, border + 1)})
    ends = [end for end in ends if 2 <= end < len(actions)]
    if not ends:
        return 0.0
    seconds = np.diff(actions.astype(float), n=2, axis=0)[[end - 2 for end in ends]]
    return float((np.sqrt((seconds**2).mean(axis=0)) / _ranges(spec)).mean())


def stage_shares(reached: Sequence[str], stages: Sequence[str]) -> dict[str, float]:
    """For each of `stages`, in order, the share of rollouts that came at least that far.

    `reached` has one name for each rollout, its furthest stage; names that are not in `stages`
    (such as "start") came to none.
    """
    order = {stage: place for place, stage in enumerate(stages)}
    places = [order.get(stage, -1) for stage in reached]
    return {
        stage: sum(place >= wanted for place in places) / len(places) if places else 0.0
        for stage, wanted in order.items()
    }


def _ranges(spec: TensorSpec) -> np.ndarray:
    """(A,) high - low of each element, 1 where it is undeclared, infinite or nothing."""
    if not spec.low or not spec.high:
        return np.ones(spec.shape)
    ranges = np.array(spec.high) - np.array(spec.low)
    return np.where(np.isfinite(ranges) & (ranges > 0), ranges, 1.0)
