"""What an episode store holds, as plain JSON: counts, cameras, rate, size, where it came from.

Reads the list and the root, no array, so that it answers at once for any number of episodes.
"""

import os
from collections import Counter
from contextlib import suppress
from typing import Any

import numpy as np

from loopdit.datasets.remote_store import is_address
from loopdit.datasets.store import EpisodeStore


def summary(store: EpisodeStore) -> dict[str, Any]:
    """Everything `policy-data info` says. `bytes` is what the store takes where it lies."""
    records = store.episodes
    steps = sum(record.length for record in records)
    period_s = store.spec.control_period_s
    told = Counter(record.success for record in records)
    instructions = Counter(record.instruction for record in records)
    return {
        "path": str(store.path),
        "episodes": len(records),
        "steps": steps,
        "duration_s": round(steps * period_s, 3),
        "rate_hz": round(1 / period_s, 6),
        "lengths": _lengths([record.length for record in records]),
        "cameras": {camera.name: list(camera.shape) for camera in store.spec.cameras},
        "frames": store.frames,
        "bytes": stored_bytes(str(store.path)),
        "successes": told[True],
        "failures": told[False],
        "outcome_unknown": told[None],
        "instructions": dict(instructions.most_common()),
        "digest": store.digest(),
        "spec_digest": store.spec.digest(),
        "spec": store.spec.to_dict(),
        "provenance": store.provenance,
    }


def stored_bytes(path: str) -> int:
    """The bytes of all files of a store, on the local disk or behind a URL."""
    if not is_address(path):
        return _bytes_below(path)
    from fsspec.core import url_to_fs

    files, folder = url_to_fs(path)
    return int(files.du(folder))


def _bytes_below(folder: str) -> int:
    """Of all files; what writers remove meanwhile (`.tmp-*`) is passed over, and no link followed.

    By `os.scandir`: a store has a dozen files an episode, and `Path.rglob` takes three times as
    long.
    """
    total = 0
    try:
        with os.scandir(folder) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    total += _bytes_below(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    with suppress(OSError):
                        total += entry.stat(follow_symlinks=False).st_size
    except OSError:
        pass
    return total


def _lengths(lengths: list[int]) -> dict[str, float] | None:
    """Control steps of the shortest, the middle and the longest episode."""
    if not lengths:
        return None
    middle = float(np.median(lengths))
    return {"min": min(lengths), "median": middle, "max": max(lengths)}
