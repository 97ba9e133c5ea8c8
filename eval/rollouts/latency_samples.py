"""Latencies that were measured elsewhere, out of the files that hold them.

A list           of seconds, as JSON
rollouts.jsonl   of an evaluation (or any JSON with `latencies_s`): of chunks as their rollouts
                 waited for them, wire included; those of controls (with a `subject`) are left out
bench.json       each row's min, p50, p99 and max, the quantiles between joined by straight lines

A number of `loops` beside or around a latency is the depth it was measured at.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from loopdit.errors import ConfigError

_BENCH = ("min_ms", "p50_ms", "p99_ms", "max_ms")
_BENCH_QUANTILES = (0.0, 0.5, 0.99, 1.0)
_BENCH_SAMPLES = 1000


def latency_samples(path: Path, loops: int = 0) -> tuple[float, ...]:
    """All latencies in `path`, seconds; with `loops` those at that depth alone.

    Raises ConfigError when the file cannot be read, has none, or has several depths (which mixed
    are nobody's latency) and `loops` is 0.
    """
    found = list(_latencies(_content(path), depth=0))
    depths = sorted({depth for depth, _ in found if depth})
    if loops:
        found = [(depth, latency) for depth, latency in found if depth == loops]
        if not found:
            known = f"It has K={','.join(map(str, depths))}" if depths else "It names no depth"
            raise ConfigError(f"{path} has no latency at K={loops}. {known}.")
    elif len(depths) > 1:
        raise ConfigError(
            f"{path} has latencies at K={','.join(map(str, depths))}: say which, such as "
            f"delay=recorded:{path}:{depths[0]}."
        )
    if not found:
        raise ConfigError(
            f"{path} has no latencies. Name a JSON list of seconds, a bench.json, or the "
            f"rollouts.jsonl beside an eval.json."
        )
    for _, latency in found:
        if not (math.isfinite(latency) and latency >= 0):
            raise ConfigError(f"{path} has a latency of {latency} s. Use seconds of 0 or more.")
    return tuple(latency for _, latency in found)


def _content(path: Path) -> Any:
    try:
        text = path.read_text()
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        return json.loads(text)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"delay=recorded:{path}: the file cannot be read ({error}). Name a JSON file with "
            f"latencies."
        ) from error


def _latencies(tree: Any, depth: int) -> Iterator[tuple[int, float]]:
    """(depth or 0, seconds) of everything in a file that is a latency."""
    if isinstance(tree, list):
        for entry in tree:
            if isinstance(entry, int | float) and not isinstance(entry, bool):
                yield depth, float(entry)
            elif isinstance(entry, dict):
                yield from _latencies(entry, depth)
    elif isinstance(tree, dict) and not tree.get("subject"):
        depth = _depth(tree) or depth
        if all(isinstance(tree.get(name), int | float) for name in _BENCH):
            quantiles = (np.arange(_BENCH_SAMPLES) + 0.5) / _BENCH_SAMPLES
            values = [tree[name] for name in _BENCH]
            for milliseconds in np.interp(quantiles, _BENCH_QUANTILES, values):
                yield depth, float(milliseconds) / 1e3
        for name, value in tree.items():
            if name == "latencies_s" or not _is_numbers(value):
                yield from _latencies(value, depth)


def _depth(tree: dict[str, Any]) -> int:
    condition = tree.get("condition")
    loops = tree.get("loops", condition.get("loops") if isinstance(condition, dict) else None)
    return loops if isinstance(loops, int) else 0


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(entry, int | float) for entry in value)
