"""Statistics of LeRobot's features: of an episode, and of many episodes together.

T steps, D elements. A number feature has D values of each statistic, a camera (3, 1, 1) of pixels
in [0, 1], taken from some frames of the episode as LeRobot takes them. Those of several episodes
are put together as LeRobot does it: quantiles are the episodes' own, weighted: an approximation.
"""

from collections.abc import Mapping, Sequence

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
Stats = dict[str, np.ndarray]


def number_stats(values: np.ndarray) -> Stats:
    """values (T, ...) -> (D,) of each statistic, D the last axis, one for (T,); count (1,)."""
    rows = values.reshape(-1, values.shape[-1] if values.ndim > 1 else 1)
    low, high = rows.min(axis=0), rows.max(axis=0)
    if values.dtype == np.bool_:
        low, high = low.astype(np.int64), high.astype(np.int64)
    return {"min": low, "max": high} | _moments(rows.astype(np.float64), len(values))


def camera_stats(frames: np.ndarray) -> Stats:
    """frames (T, H, W, 3) uint8 -> (3, 1, 1) of each statistic; count (1,) of frames taken."""
    chosen = frames[_sampled(len(frames))]
    if max(frames.shape[1:3]) >= 300:  # LeRobot's bounds: to about 150 pixels from 300 on
        step = max(frames.shape[1:3]) // 150
        chosen = chosen[:, ::step, ::step]
    channels = [_level_stats(chosen[..., c], len(chosen)) for c in range(chosen.shape[-1])]
    return {
        name: channels[0][name]
        if name == "count"
        else np.array([channel[name] for channel in channels]).reshape(-1, 1, 1) / 255.0
        for name in channels[0]
    }


def joined_stats(episodes: Sequence[Mapping[str, Stats]]) -> dict[str, Stats]:
    """The statistics by key of all episodes together, from each one's own."""
    return {key: _joined([stats[key] for stats in episodes]) for key in episodes[0]}


def _moments(rows: np.ndarray, count: int) -> Stats:
    quantiles = np.quantile(rows, list(QUANTILES.values()), axis=0)
    return {
        "mean": rows.mean(axis=0),
        "std": rows.std(axis=0),
        "count": np.array([count]),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }


def _level_stats(levels: np.ndarray, count: int) -> Stats:
    """Of uint8 levels, from how often each occurs: ten times quicker than sorting pixels."""
    values, times = np.arange(256.0), np.bincount(levels.reshape(-1), minlength=256)
    present, share = np.flatnonzero(times), times / times.sum()
    mean = (values * share).sum()
    reached = np.cumsum(share)
    return {
        "min": values[present[0]],
        "max": values[present[-1]],
        "mean": mean,
        "std": np.sqrt(((values - mean) ** 2 * share).sum()),
        "count": np.array([count]),
        **{name: values[np.searchsorted(reached, q - 1e-12)] for name, q in QUANTILES.items()},
    }


def _sampled(length: int) -> list[int]:
    """LeRobot's choice of frames: length^0.75 of them, between 100 and 10,000."""
    count = max(min(100, length), min(int(length**0.75), 10_000))
    return np.round(np.linspace(0, length - 1, count)).astype(int).tolist()


def _joined(parts: Sequence[Stats]) -> Stats:
    counts = np.array([part["count"][0] for part in parts], dtype=np.float64)
    weights = (counts / counts.sum()).reshape(-1, *[1] * parts[0]["mean"].ndim)

    def weighted(values: Sequence[np.ndarray]) -> np.ndarray:
        return (np.stack(values) * weights).sum(axis=0)

    mean = weighted([part["mean"] for part in parts])
    variance = weighted([part["std"] ** 2 + (part["mean"] - mean) ** 2 for part in parts])
    return {
        "min": np.min([part["min"] for part in parts], axis=0),
        "max": np.max([part["max"] for part in parts], axis=0),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": np.array([int(counts.sum())]),
        **{name: weighted([part[name] for part in parts]) for name in QUANTILES},
    }
