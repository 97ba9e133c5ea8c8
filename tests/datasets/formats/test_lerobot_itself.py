"""Our files under LeRobot's own reader, and its files under ours: sh scripts/lerobot_env.sh"""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.datasets.formats.lerobot_sample import FRONT, LENGTHS, WRIST, sample_export
from tests.datasets.formats.lerobot_v21_files import legacy_episode, write_v21

import loopdit
from loopdit.datasets.formats import lerobot

pytestmark = pytest.mark.adapters

ROOT = Path(loopdit.__file__).parents[2]
RunLeRobot = Callable[..., str]


@pytest.fixture(scope="module")
def run() -> RunLeRobot:
    """run(script, *arguments): LeRobot's side; skips where its environment is absent."""
    suites = Path(os.environ.get("LOOPDIT_SUITES") or ROOT / ".suites")
    python = suites / "lerobot/bin/python"
    if not python.exists():
        pytest.skip("LeRobot is absent: sh scripts/lerobot_env.sh")

    def run_script(script: Path, *arguments: str | Path) -> str:
        done = subprocess.run(
            [python, script, *map(str, arguments)], capture_output=True, text=True, timeout=280
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run_script


ITSELF = Path(__file__).with_name("lerobot_itself.py")


@pytest.mark.parametrize("codec", ["av1", "h264", "png"])
def test_lerobot_reads_what_we_write_as_we_do(tmp_path: Path, run: RunLeRobot, codec: str):
    lerobot.write(tmp_path / "set", sample_export(), codec=codec)
    run(ITSELF, "read", tmp_path / "set", tmp_path / "theirs.npz")
    theirs = np.load(tmp_path / "theirs.npz")
    data = lerobot.open(tmp_path / "set")
    ours = [data.episode(number) for number in range(len(data))]
    assert theirs["lengths"].tolist() == list(LENGTHS)
    for key in ours[0].steps:
        values = np.concatenate([episode.steps[key] for episode in ours])
        if key in (FRONT, WRIST):
            # Floats in [0, 1], channels first; their FFmpeg is another one than ours.
            frames = np.round(theirs[key].transpose(0, 2, 3, 1) * 255).astype(int)
            assert np.abs(frames - values).max() <= (0 if codec == "png" else 2), key
        else:
            single = values.astype(np.float32) if values.dtype == np.float64 else values
            assert np.array_equal(theirs[key], single), key  # torch.tensor makes floats of doubles
    tasks = [t for e in ours for t in np.resize(e.texts["task"], len(e.steps["action"]))]
    assert theirs["task"].tolist() == tasks
    for key in ("action", FRONT):  # putting episodes together is done as LeRobot does it
        for name in ("mean", "std", "min", "max", "q01", "q50", "q99", "count"):
            told, aggregated = theirs[f"stats/{key}/{name}"], theirs[f"aggregated/{key}/{name}"]
            np.testing.assert_allclose(told, aggregated, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["video", "image"])
def test_we_read_what_lerobot_writes(tmp_path: Path, run: RunLeRobot, kind: str):
    run(ITSELF, "write", tmp_path / "set", kind)
    data = lerobot.open(tmp_path / "set")
    assert len(data) == 2
    for number, length in enumerate((12, 20)):
        episode = data.episode(number)
        values = np.arange(6, dtype=np.float32) + 10 * number + np.arange(length)[:, None]
        assert np.array_equal(episode.steps["observation.state"], values[:, :3])
        assert np.array_equal(episode.steps["action"], values[:, :2] / 8)
        assert np.array_equal(episode.steps["contact"], values.reshape(length, 2, 3))
        assert episode.texts == {"task": (f"task {number}",)}
        frames = episode.steps["observation.images.front"]
        grey = (number * 100 + 7 * np.arange(length)) % 250
        np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), grey, atol=3)
    mapping = data.suggested_mapping()
    assert mapping.action[0].labels == ("left.pos", "right.pos")
    assert mapping.convention == "absolute"


def test_a_v21_set_is_the_same_before_and_after_lerobots_converter(tmp_path: Path, run: RunLeRobot):
    episodes = [legacy_episode(number, length) for number, length in enumerate((9, 15, 4))]
    write_v21(tmp_path / "a/set", episodes, ("open", "close"))
    write_v21(tmp_path / "b/set", episodes, ("open", "close"))
    run(ITSELF, "convert", tmp_path / "b", "set")
    old, new = lerobot.open(tmp_path / "a/set"), lerobot.open(tmp_path / "b/set")
    assert new.facts["codebase_version"] == "v3.0"
    for number in range(3):
        before, after = old.episode(number), new.episode(number)
        assert before.texts == after.texts
        assert set(before.steps) == set(after.steps)
        for key in before.steps:
            assert np.array_equal(before.steps[key], after.steps[key]), key


def test_windows_of_lerobot_can_be_timed(tmp_path: Path, run: RunLeRobot):
    lerobot.write(tmp_path / "set", sample_export((30, 30)))
    script = ROOT / "scripts/lerobot_windows.py"
    found = json.loads(run(script, tmp_path / "set", "--batch", "4", "--seconds", "0.1"))
    assert found["windows_per_s"] > 0
    assert found["shapes"][FRONT] == [4, 2, 3, 64, 80]
    assert found["shapes"]["action"] == [4, 16, 2]
