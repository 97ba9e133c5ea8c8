"""`make demo` from end to end, by its real commands, as small as it can be."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(900)
def test_demo_runs_every_stage_and_leaves_its_table_report_and_results(tmp_path: Path):
    command = [sys.executable, "-m", "loopdit.eval.demo", f"out={tmp_path}", "episodes=2"]
    command += ['collect=["episodes=4"]', 'train=["steps=5","policy.width=32"]']
    command += ["loops=[1,2]", "repetitions=3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "eval.json").read_text())["results"]
    found = {(row["kind"], row["loops"]): row["successes"] for row in results}
    assert {("served", 1), ("served", 2), ("untrained", 2), ("replay", None)} <= found.keys()
    assert found["expert", None] == 2
    assert json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert "<video" in (tmp_path / "report.html").read_text()
    for stage in range(1, 7):
        assert f"[{stage}/" in done.stdout
    for path in ("report.html", "eval.json", "bench.json"):
        assert str(tmp_path / path) in done.stdout


def test_demo_ends_with_the_error_of_the_stage_that_failed(tmp_path: Path):
    command = [sys.executable, "-m", "loopdit.eval.demo", f"out={tmp_path}"]
    command += ['collect=["env=juggle"]']
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    first, last = done.stderr.strip().splitlines()
    assert first.startswith(
        "policy-collect: error: env=juggle is unknown. The environments are: reach, lift, "
    )
    assert "the demo ends here: policy-collect failed with status 1" in last
