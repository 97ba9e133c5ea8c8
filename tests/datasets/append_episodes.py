"""A real collecting process for the tests to kill, stop and starve of disk.

python append_episodes.py SOURCE STORE FIRST COUNT [LARGEST_FILE]: append the first episode of
SOURCE to STORE, a path (made if missing) or an address, COUNT times, with the seeds FIRST,
FIRST+1, ..., and print each seed once its append returned. LARGEST_FILE bytes is where the kernel
refuses to let a file grow.
On a StoreError it prints {"error", "readable"} and exits with status 1.
"""

import json
import resource
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from loopdit.datasets.episode_check import check_episode
from loopdit.datasets.store import EpisodeStore, EpisodeWriter
from loopdit.errors import StoreError


def main(source: str, path: str, first: int, count: int, largest_file: int | None) -> int:
    taken = EpisodeStore.open(source)
    episode = taken.episode(0)
    if "://" in path or (Path(path).exists() and any(Path(path).iterdir())):
        writer = EpisodeWriter.resume(path, taken.spec)
    else:
        writer = EpisodeWriter.create(path, taken.spec, {}, taken.frames)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    appended = 0
    try:
        for seed in range(first, first + count):
            writer.append(replace(episode, seed=seed))
            sys.stdout.write(f"{seed}\n")
            sys.stdout.flush()
            appended += 1
    except StoreError as error:
        store = EpisodeStore.open(path)
        assert all(check_episode(store, i) == [] for i in range(len(store.episodes)))
        equal = [
            np.array_equal(store.arrays(i)["action"], episode.actions) for i in range(appended)
        ]
        report = {"error": str(error), "readable": sum(equal), "listed": len(store.episodes)}
        sys.stdout.write(json.dumps(report) + "\n")
        return 1
    return 0


if __name__ == "__main__":
    limit = int(sys.argv[5]) if len(sys.argv) > 5 else None
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), limit))
