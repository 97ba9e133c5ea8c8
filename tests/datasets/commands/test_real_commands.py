"""policy-data in processes of its own: exit statuses, kill -9, Ctrl-C, a full disk."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store import Episode, EpisodeStore, EpisodeWriter

pytestmark = pytest.mark.system

MakeEpisode = Callable[[int, int], Episode]
PROGRAM = Path(sys.executable).with_name("policy-data")
EPISODES = 40


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=240, check=False
    )


@pytest.fixture
def two(tmp_path: Path, spec: PolicySpec, episode: MakeEpisode) -> list[Path]:
    """Two stores, large enough that merging them can be interrupted."""
    for first, name in ((0, "a.zarr"), (EPISODES, "b.zarr")):
        writer = EpisodeWriter.create(tmp_path / name, spec, {})
        for seed in range(first, first + EPISODES):
            writer.append(episode(seed, 3))
    return [tmp_path / "a.zarr", tmp_path / "b.zarr"]


def interrupted(two: list[Path], out: Path, how: signal.Signals) -> int:
    """Stop a merge when some episodes are copied; its exit status."""
    merging = subprocess.Popen(
        [PROGRAM, "merge", *two, f"out={out}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        while merging.poll() is None:
            lists = list(out.parent.glob(f".{out.name}.*/{out.name}/episodes.jsonl"))
            if lists and lists[0].read_bytes().count(b"\n") >= 3:
                break
            time.sleep(0.002)
        assert merging.poll() is None, merging.communicate()
        merging.send_signal(how)
    finally:
        merging.communicate(timeout=60)
    return merging.returncode


def beside(out: Path) -> list[str]:
    return [path.name for path in out.parent.iterdir() if out.name in path.name]


def test_a_merge_that_is_killed_leaves_nothing_that_looks_like_a_store(
    two: list[Path], tmp_path: Path
):
    out = tmp_path / "both.zarr"
    assert interrupted(two, out, signal.SIGKILL) == -signal.SIGKILL
    assert not out.exists()
    assert command("info", out).returncode == 1
    assert len(beside(out)) == 1  # hidden
    done = command("merge", *two, f"out={out}")
    assert done.returncode == 0, done.stderr
    assert beside(out) == ["both.zarr"]
    assert command("verify", out).returncode == 0
    assert len(EpisodeStore.open(out).episodes) == 2 * EPISODES


def test_a_merge_that_is_stopped_with_ctrl_c_leaves_nothing(two: list[Path], tmp_path: Path):
    out = tmp_path / "both.zarr"
    assert interrupted(two, out, signal.SIGINT) == 130
    assert beside(out) == []


def test_two_merges_into_one_path_do_not_disturb_each_other(two: list[Path], tmp_path: Path):
    out = tmp_path / "both.zarr"
    merges = [
        subprocess.Popen(
            [PROGRAM, "merge", *two, f"out={out}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    said = [merge.communicate(timeout=120) for merge in merges]
    assert sorted(merge.returncode for merge in merges) == [0, 1], said
    assert command("verify", out).returncode == 0
    assert beside(out) == ["both.zarr"]


def test_a_disk_that_takes_no_more_leaves_nothing_and_says_so(two: list[Path], tmp_path: Path):
    code = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))
from loopdit.datasets.commands.data import main
sys.argv = ["policy-data", "merge", *sys.argv[1:]]
main()
"""
    out = tmp_path / "both.zarr"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, two), f"out={out}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert f"cannot write {out}: File too large. Nothing was left there" in done.stderr
    assert beside(out) == []


def test_a_store_whose_writer_was_killed_is_whole_and_can_be_repaired(
    two: list[Path], tmp_path: Path
):
    child = Path(__file__).parents[1] / "append_episodes.py"
    target = tmp_path / "target"
    writing = subprocess.Popen(
        [sys.executable, child, two[0], target, "0", "1000"], stdout=subprocess.PIPE, text=True
    )
    assert writing.stdout is not None
    for _ in range(5):
        writing.stdout.readline()
    writing.kill()
    acknowledged = 5 + len(writing.communicate()[0].split())
    assert command("verify", target).returncode == 0
    told = json.loads(command("info", target, "json=true").stdout)
    assert told["episodes"] >= acknowledged
    assert command("repair", target).returncode == 0
    assert json.loads(command("verify", target, "json=true").stdout)["leftovers"] == []


def test_the_whole_path_from_damage_to_a_store_to_train_on(two: list[Path]):
    store = two[0]
    os.truncate(store / "episodes/episode_000007/images.front/c.0.0.0.0", 10)
    found = command("verify", store)
    assert found.returncode == 1
    assert "episode 7 (episode_000007): images.front: " in found.stdout
    assert command("repair", store).returncode == 0
    assert command("verify", store).returncode == 0
    told = json.loads(command("info", store, "json=true").stdout)
    assert (told["episodes"], told["steps"]) == (EPISODES - 1, 3 * (EPISODES - 1))
    assert command("stats", store).returncode == 0
