"""What is done to an episode's actions before anything is learned from them.

T control steps, A action dim, raw units. A filter sees one whole episode and never two at once;
the store is left as it is. A reader applies it to each episode's actions as it loads them, the
statistics that a normaliser is made of included:

    filter = action_filter(store.spec, config)  # None where nothing is to be done
    actions = filter(arrays["action"])  # (T, A) float32 -> (T, A) float32, a new array
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from loopdit.command import option
from loopdit.datasets.spec import PolicySpec
from loopdit.errors import ConfigError

ActionFilter = Callable[[np.ndarray], np.ndarray]

# Of the way from closed to open: where Bridge and Open X-Embodiment call a gripper settled.
_CLOSED, _OPEN = 0.05, 0.95
_REACH = 3  # spreads of a Gaussian after which its weight is nothing
# Without limits in the spec, settled values must be 0 and 1, give or take a sensor's error.
_SLACK = 0.1


@dataclass(frozen=True)
class ActionsConfig:
    """Changes to recorded actions, none by default."""

    smooth_s: float = option(0.0, "spread of the Gaussian that smooths actions, seconds; 0: none")
    smooth_skip: list[str] = option(
        ["gripper"], "actions whose label contains one of these words are not smoothed"
    )
    binarise: list[str] = option(
        [], "labels of actions that become fully open or fully closed, as [gripper]"
    )

    def __post_init__(self) -> None:
        if not 0 <= self.smooth_s < np.inf:
            raise ConfigError(f"actions.smooth_s={self.smooth_s} must be 0 or more seconds.")


def action_filter(spec: PolicySpec, config: ActionsConfig) -> ActionFilter | None:
    """The filter that `config` asks for on episodes of `spec`; it can be pickled.

    Raises ConfigError for a label that no action has.
    """
    labels = spec.action.labels
    for label in config.binarise:
        if label not in labels:
            raise ConfigError(
                f"actions.binarise has {label!r}, and no action is called so. "
                f"The actions are: {', '.join(labels) or 'without labels'}."
            )
    if config.smooth_s and not labels:
        raise ConfigError(
            f"actions.smooth_s={config.smooth_s} must not smooth a gripper, and the actions have "
            f"no labels to tell which one it is. Label them when the data is converted."
        )
    smoothed = [
        i
        for i, label in enumerate(labels)
        if config.smooth_s
        and label not in config.binarise
        and not any(word in label for word in config.smooth_skip)
    ]
    binarised = [labels.index(label) for label in config.binarise]
    if not smoothed and not binarised:
        return None
    return partial(_filtered, spec, config.smooth_s / spec.control_period_s, smoothed, binarised)


def smooth(values: np.ndarray, spread: float) -> np.ndarray:
    """Each column of (T, D) under a Gaussian of `spread` steps, without delay.

    An episode goes on beyond its ends turned around (odd reflection), so that its first and last
    values stay, and a straight line too.
    """
    reach = min(int(np.ceil(_REACH * spread)), len(values) - 1)
    if reach < 1:
        return values.copy()
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / spread) ** 2)
    weights /= weights.sum()
    padded = np.pad(
        values.astype(np.float64), ((reach, reach), (0, 0)), "reflect", reflect_type="odd"
    )
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=0)
    return (windows @ weights).astype(values.dtype)  # windows (T, D, 2 reach + 1)


def binarise(values: np.ndarray, closed: float, opened: float) -> np.ndarray:
    """(T,) -> (T,): each value `closed` or `opened`, the one that it is on its way to.

    Within 5 % of an end a value has settled. One in between becomes what is settled next; after
    the last settled one all are the episode's last value as it is (Bridge's and Octo's rule).
    """
    share = (values - closed) / (opened - closed)
    settled = (share > _OPEN) | (share < _CLOSED)
    ends = np.where(share > _OPEN, opened, closed)
    # Where the next settled step is: the smallest settled index at or after each step.
    steps = np.where(settled, np.arange(len(values)), len(values))
    following = np.minimum.accumulate(steps[::-1])[::-1]
    return np.append(ends, values[-1])[following].astype(values.dtype)


def _filtered(
    spec: PolicySpec,
    spread: float,
    smoothed: Sequence[int],
    binarised: Sequence[int],
    actions: np.ndarray,
) -> np.ndarray:
    """(T, A) -> (T, A)."""
    result = actions.copy()
    if smoothed:
        values = smooth(actions[:, smoothed], spread)
        if spec.action.low and spec.action.high:  # a turned-around end may reach beyond them
            low, high = np.array(spec.action.low), np.array(spec.action.high)
            values = np.clip(values, low[smoothed], high[smoothed])
        result[:, smoothed] = values
    for index in binarised:
        closed, opened = _ends(spec, index, actions[:, index])
        result[:, index] = binarise(actions[:, index], closed, opened)
    return result


def _ends(spec: PolicySpec, index: int, values: np.ndarray) -> tuple[float, float]:
    """What closed and opened are: the limits of the action, 0 and 1 where it has none."""
    if spec.action.low and spec.action.high:
        low, high = spec.action.low[index], spec.action.high[index]
        if np.isfinite([low, high]).all():
            return low, high
    if values.min() < -_SLACK or values.max() > 1 + _SLACK:
        raise ConfigError(
            f"actions.binarise: {spec.action.labels[index]} goes from {values.min():g} to "
            f"{values.max():g} where 0 is closed and 1 open, and the data's spec gives no limits. "
            f"Convert the data with the limits (low, high) of this action."
        )
    return 0.0, 1.0
