"""policy-info as it is installed; a store and --help need no torch."""

import json
import subprocess
import sys
from pathlib import Path

from tests.policy.policies import small_store


def test_the_command_prints_one_json_object_with_the_counts_of_a_preset():
    program = Path(sys.executable).with_name("policy-info")
    done = subprocess.run(
        [program, "preset=v1_3b4l", "json=true"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["parameters"] == found["trainable"] == 1_491_409
    assert {"position", "embedders", "level", "stack", "out_norm", "heads"} == set(found["parts"])


def test_a_store_is_described_without_torch(tmp_path: Path):
    small_store(tmp_path / "store")
    code = """
import sys
sys.modules["torch"] = None
from loopdit.deploy.info.command import main
sys.argv = ["policy-info", sys.argv[1]]
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "store"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "6 (6 successful)" in done.stdout
