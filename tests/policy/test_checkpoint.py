import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.policy.policies import SMALL, small_spec

from loopdit.errors import CheckpointError
from loopdit.policy.checkpoint import load_checkpoint, load_policy, save_checkpoint
from loopdit.policy.looped_policy import LoopedPolicy


@pytest.fixture
def policy() -> LoopedPolicy:
    torch.manual_seed(0)
    return LoopedPolicy(small_spec(), SMALL).eval()


def test_a_loaded_policy_acts_as_the_saved_one(tmp_path: Path, policy: LoopedPolicy):
    save_checkpoint(tmp_path, policy, {"seed": 3})
    loaded = load_checkpoint(tmp_path)
    observation = {
        "images.camera0": torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8),
        "proprio": torch.randn(2, 3),
    }
    noise = torch.randn(2, 4, 2)
    for loops in (1, 2):
        assert torch.equal(
            policy.act(observation, noise, loops), loaded.policy.act(observation, noise, loops)
        )
    assert loaded.provenance == {"seed": 3}
    assert loaded.policy.spec == policy.spec


def test_actions_stay_within_the_limits_of_the_spec(policy: LoopedPolicy):
    actions = policy.to_actions(torch.tensor([[[-50.0, -50.0], [50.0, 50.0]]]))
    assert actions.tolist() == [[[-1.0, 0.0], [1.0, 1.0]]]


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"no checkpoint\.json"):
        load_policy(tmp_path)


def test_another_format_version_is_refused(tmp_path: Path, policy: LoopedPolicy):
    save_checkpoint(tmp_path, policy, {})
    manifest = tmp_path / "checkpoint.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format_version": 9}))
    with pytest.raises(CheckpointError, match="version 9; this loopdit reads"):
        load_policy(tmp_path)


def test_truncated_weights_are_refused(tmp_path: Path, policy: LoopedPolicy):
    save_checkpoint(tmp_path, policy, {})
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        load_policy(tmp_path)


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path: Path, policy: LoopedPolicy):
    """A limit on file size stands in for the disk: the kernel refuses the write in the same way."""
    save_checkpoint(tmp_path, policy, {"step": 1})
    code = f"""
import resource, signal
from pathlib import Path
from loopdit.errors import CheckpointError
from loopdit.policy.checkpoint import load_policy, save_checkpoint
policy = load_policy({str(tmp_path)!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    save_checkpoint(Path({str(tmp_path)!r}), policy, {{"step": 2}})
except CheckpointError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "cannot write the checkpoint" in said.stdout, said
    assert load_checkpoint(tmp_path).provenance == {"step": 1}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
