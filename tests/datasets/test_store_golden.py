"""The format of episodes on disk, held still by a small store that is committed."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np

from loopdit.datasets.store import EpisodeStore

GOLDENS = Path(__file__).parents[1] / "goldens"
GOLDEN = GOLDENS / "episode_store_v1"
made: dict[str, Any] = runpy.run_path(str(GOLDENS / "make_episode_store.py"))


def contents(path: Path) -> dict[str, bytes]:
    return {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def test_stores_of_format_version_1_are_read():
    store, episode = EpisodeStore.open(GOLDEN), made["golden_episode"]()
    assert store.spec == made["golden_spec"]()
    assert store.provenance == {"made_by": "tests/goldens", "seeds": [7]}
    (record,) = store.episodes
    assert (record.id, record.length, record.seed) == ("episode_000000", 3, 7)
    assert (record.instruction, record.success) == ("lift the cube — slowly", True)
    arrays = store.arrays(0)
    np.testing.assert_array_equal(arrays.pop("action"), episode.actions)
    assert set(arrays) == set(episode.observations)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, episode.observations[name])


def test_writing_the_golden_store_again_gives_the_same_bytes(tmp_path: Path):
    made["write_golden"](tmp_path / "again")
    assert contents(tmp_path / "again") == contents(GOLDEN)
