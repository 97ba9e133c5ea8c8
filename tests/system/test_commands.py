"""What a user meets at the shell: the shipped policy, a full disk, Ctrl-C."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from loopdit.datasets.store import EpisodeStore
from loopdit.deploy.bundle.bundle import Bundle, default_bundle


def command(name: str, *options: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name(name)
    return subprocess.run(
        [program, *options], cwd=cwd, capture_output=True, text=True, timeout=240, check=False
    )


def test_the_shipped_policy_lifts_the_cube_at_every_depth(tmp_path: Path):
    options = [f"policy={default_bundle()}", "loops=[1,2,3,4]", "episodes=5", "out=out"]
    done = command("policy-eval", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "eval.json").read_text())["results"]
    assert [row["loops"] for row in results] == [1, 2, 3, 4]
    # 200 of 200 at each depth when it was made, and deterministic: what fails here has changed.
    assert [row["successes"] for row in results] == [5, 5, 5, 5]


def test_the_shipped_bundle_is_small_and_says_how_it_was_made():
    bundle = Bundle.open(default_bundle())
    assert bundle.bytes < 8_000_000
    assert 0 < bundle.provenance["step"] <= bundle.provenance["config"]["steps"]
    assert bundle.provenance["data_digest"]


def test_a_full_disk_while_collecting_keeps_the_episodes_before_it(tmp_path: Path):
    """A limit on file size stands in for the disk: short episodes fit, a longer one does not."""
    code = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (768 * 26, 768 * 26))
from loopdit.eval.collect import main
sys.argv = ["policy-collect", "episodes=60", "image_size=16", "workers=1", "out=store"]
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    said = done.stderr.strip().splitlines()
    assert len(said) == 1, done.stderr
    kept = EpisodeStore.open(tmp_path / "store")
    assert kept.episodes
    # Which path, how many are safe, what to do.
    assert said[0].startswith("policy-collect: error: ")
    assert "store" in said[0]
    safe = re.search(r"(\d+) episodes there are complete and readable. Free space", said[0])
    assert safe, said[0]
    # What was under way when the first one failed may have fitted.
    assert 0 < int(safe[1]) <= len(kept.episodes)
    for index, record in enumerate(kept.episodes):
        assert len(kept.arrays(index)["action"]) == record.length <= 26


def test_an_evaluation_that_is_stopped_keeps_the_rollouts_it_finished(tmp_path: Path):
    program = Path(sys.executable).with_name("policy-eval")
    with subprocess.Popen(
        [program, "policy=expert", "episodes=5000", "out=out"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # the first rollout is done
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    (row,) = json.loads((tmp_path / "out" / "eval.json").read_text())["results"]
    assert 0 < row["episodes"] == row["successes"] == len(row["rollouts"]) < 5000
    assert f"{row['episodes']} of 5000" in printed
