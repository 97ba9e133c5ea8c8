import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.eval.tally_env import spec

from loopdit.datasets.store import Episode, EpisodeWriter
from loopdit.errors import StoreError
from loopdit.eval.seed_claims import CLAIMS, SeedClaims

_CLAIM_AND_WAIT = """
import sys
from pathlib import Path
from loopdit.eval.seed_claims import SeedClaims
with SeedClaims.hold(Path(sys.argv[1])) as claims:
    print(claims.take(0, 3), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    EpisodeWriter.create(tmp_path / "store", spec(0), {})
    return tmp_path / "store"


def record(store: Path, seed: int) -> None:
    proprio, actions = np.zeros((1, 2), np.float32), np.zeros((1, 2), np.float32)
    EpisodeWriter.resume(store, spec(0)).append(
        Episode({"proprio": proprio}, actions, "", True, seed)
    )


def test_the_lowest_seeds_without_an_episode_are_taken_once(store: Path):
    for seed in (1, 5, 1000):
        record(store, seed)
    with SeedClaims.hold(store) as claims:
        assert claims.take(0, 3) == [0, 2, 3]
        assert claims.take(0, 3) == [4, 6, 7]
        assert claims.take(1000, 1) == [1001]
        assert claims.mine == [0, 2, 3, 4, 6, 7, 1001]


def test_what_a_living_collection_claims_is_left_to_it_and_a_killed_ones_claims_are_free(
    store: Path,
):
    def claimed(other: subprocess.Popen[str]) -> str:
        assert other.stdout
        return other.stdout.readline().strip()

    command = [sys.executable, "-c", _CLAIM_AND_WAIT, str(store)]
    pipe = subprocess.PIPE
    other = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    with other, SeedClaims.hold(store) as mine:
        assert claimed(other) == "[0, 1, 2]"
        assert mine.take(0, 2) == [3, 4]
        other.kill()
        other.wait()
        assert mine.take(0, 4) == [0, 1, 2, 5]
        assert len(list((store / CLAIMS).iterdir())) == 1
    assert not list((store / CLAIMS).iterdir())


def test_claims_that_cannot_be_written_are_told_in_one_sentence(store: Path):
    (store / CLAIMS).write_text("no folder")
    with (
        pytest.raises(StoreError, match=r"cannot claim seeds in .*claims: File exists.*complete"),
        SeedClaims.hold(store),
    ):
        pass
