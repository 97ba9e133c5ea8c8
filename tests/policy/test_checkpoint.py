import hashlib
import json
import os
import pickletools
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.policy.policies import SMALL, small_spec

from loopdit.deploy.bundle.bundle import default_bundle
from loopdit.errors import CheckpointError
from loopdit.policy.checkpoint import (
    TrainingState,
    copy_policy,
    load_checkpoint,
    load_policy,
    load_training_state,
    save_checkpoint,
)
from loopdit.policy.looped_policy import LoopedPolicy


@pytest.fixture
def policy() -> LoopedPolicy:
    torch.manual_seed(0)
    return LoopedPolicy(small_spec(), SMALL).eval()


def filled(policy: LoopedPolicy, value: float) -> LoopedPolicy:
    """The same policy with every parameter at `value`: a step that can be told apart."""
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.fill_(value)
    return policy


def state(step: int) -> TrainingState:
    return TrainingState({"step": step}, {"weight": torch.full((50,), float(step))})


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


def test_a_training_state_comes_back_to_the_bit(tmp_path: Path, policy: LoopedPolicy):
    numbers = {"step": 7, "elapsed_s": 0.1 + 0.2, "sums": [1 / 3, 1e-300]}
    tensors = {"a/b": torch.randn(3, 4), "steps": torch.tensor(7.0)}
    save_checkpoint(tmp_path, policy, {}, TrainingState(numbers, tensors))
    found, weights = load_training_state(tmp_path)
    assert found.numbers == numbers
    assert all(torch.equal(tensors[name], found.tensors[name]) for name in tensors)
    assert all(torch.equal(value, weights[name]) for name, value in policy.state_dict().items())


def test_actions_stay_within_the_limits_of_the_spec(policy: LoopedPolicy):
    actions = policy.to_actions(torch.tensor([[[-50.0, -50.0], [50.0, 50.0]]]))
    assert actions.tolist() == [[[-1.0, 0.0], [1.0, 1.0]]]


def test_no_file_of_a_checkpoint_is_a_pickle(tmp_path: Path, policy: LoopedPolicy):
    save_checkpoint(tmp_path, policy, {}, state(1))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["checkpoint.json", "model.safetensors", "training_state.safetensors"]
    for path in tmp_path.iterdir():
        with pytest.raises(ValueError, match=r"pickle|opcode|STOP"):
            list(pickletools.genops(path.read_bytes()))


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"no checkpoint\.json"):
        load_policy(tmp_path)


def test_another_format_version_is_refused(tmp_path: Path, policy: LoopedPolicy):
    save_checkpoint(tmp_path, policy, {})
    manifest = tmp_path / "checkpoint.json"
    content = {**json.loads(manifest.read_text()), "format_version": 9}
    del content["sha256"]
    manifest.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="version 9; this loopdit reads"):
        load_policy(tmp_path)


def test_any_changed_word_of_the_manifest_is_noticed_and_its_spacing_is_free(
    tmp_path: Path, policy: LoopedPolicy
):
    state = TrainingState({"step": 1200, "of": (1, 2.5)}, {"a": torch.zeros(1)})
    save_checkpoint(tmp_path, policy, {"note": "mine", "loss": float("nan")}, state)
    manifest = tmp_path / "checkpoint.json"
    text = manifest.read_text()
    for before, after in (("1200", "1300"), ('"mine"', '"mind"'), ('"dtype"', '"dtypf"')):
        assert before in text
        manifest.write_text(text.replace(before, after, 1))
        with pytest.raises(CheckpointError, match=r"checkpoint\.json is damaged"):
            load_training_state(tmp_path)
    manifest.write_text(json.dumps(json.loads(text), indent=4))
    assert load_training_state(tmp_path)[0].numbers["step"] == 1200


def test_truncated_weights_are_refused(tmp_path: Path, policy: LoopedPolicy):
    save_checkpoint(tmp_path, policy, {})
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged: it has"):
        load_policy(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "training_state.safetensors"])
def test_a_single_changed_byte_is_noticed(tmp_path: Path, policy: LoopedPolicy, name: str):
    save_checkpoint(tmp_path, policy, {}, state(1))
    content = bytearray((tmp_path / name).read_bytes())
    content[-1] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name} is damaged: its sha256"):
        load_training_state(tmp_path)


def test_a_checkpoint_without_training_state_says_so(tmp_path: Path, policy: LoopedPolicy):
    save_checkpoint(tmp_path, policy, {})
    with pytest.raises(CheckpointError, match="training cannot go on"):
        load_training_state(tmp_path)


def version_1(folder: Path, policy: LoopedPolicy) -> None:
    """As loopdit 0.1 wrote it: no digests, a pickle for the training state."""
    save_checkpoint(folder, policy, {"seed": 1})
    manifest = json.loads((folder / "checkpoint.json").read_text())
    del manifest["files"], manifest["sha256"]
    (folder / "checkpoint.json").write_text(json.dumps({**manifest, "format_version": 1}))
    torch.save({"step": 3}, folder / "training_state.pt")


def test_version_1_is_read_and_not_trained_further(tmp_path: Path, policy: LoopedPolicy):
    version_1(tmp_path, policy)
    loaded = load_checkpoint(tmp_path)
    assert loaded.provenance == {"seed": 1}
    for name, value in policy.state_dict().items():
        assert torch.equal(value, loaded.policy.state_dict()[name])
    with pytest.raises(CheckpointError, match=r"earlier loopdit.*init="):
        load_training_state(tmp_path)


def test_the_shipped_bundle_is_read_as_the_checkpoint_it_was_made_of():
    folder = default_bundle()
    loaded = load_checkpoint(folder)
    assert loaded.policy.max_loops == 4
    assert loaded.provenance["step"] > 0
    content = (folder / "model.safetensors").read_bytes()
    assert loaded.weights_sha256 == hashlib.sha256(content).hexdigest()


def test_a_new_checkpoint_in_place_of_version_1_leaves_no_pickle(
    tmp_path: Path, policy: LoopedPolicy
):
    version_1(tmp_path, policy)
    save_checkpoint(tmp_path, policy, {}, state(5))
    assert not (tmp_path / "training_state.pt").exists()
    assert load_training_state(tmp_path)[0].numbers == {"step": 5}


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path: Path, policy: LoopedPolicy):
    """A limit on file size stands in for the disk: the kernel refuses the write in the same way."""
    save_checkpoint(tmp_path, policy, {"step": 1})
    code = f"""
import resource, signal
from pathlib import Path
from loopdit.deploy.bundle.bundle import default_bundle
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
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint.json",
        "model.safetensors",
    ]


_CALLS = ("replace", "fsync")


# Python 3.12 and later warn of a fork with threads; this child only writes files and exits.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("killed_at", range(12))
def test_a_writer_that_is_killed_leaves_one_whole_checkpoint(
    tmp_path: Path, policy: LoopedPolicy, killed_at: int
):
    """The process ends, without any cleaning up, at each system call that changes the folder."""
    save_checkpoint(tmp_path, filled(policy, 1.0), {"step": 1}, state(1))
    child = os.fork()
    if child == 0:
        die_at_call(killed_at)
        save_checkpoint(tmp_path, filled(policy, 2.0), {"step": 2}, state(2))
        os._exit(0)
    _, status = os.waitpid(child, 0)

    found, weights = load_training_state(tmp_path)
    step = found.numbers["step"]
    assert step == (2 if os.waitstatus_to_exitcode(status) == 0 else step)
    assert found.tensors["weight"].unique().tolist() == [step]
    assert weights["model.action_out.bias"].unique().tolist() == [step]
    assert load_checkpoint(tmp_path).provenance == {"step": step}

    save_checkpoint(tmp_path, filled(policy, 3.0), {"step": 3}, state(3))
    assert load_training_state(tmp_path)[0].numbers == {"step": 3}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint.json",
        "model.safetensors",
        "training_state.safetensors",
    ]
    assert load_file(tmp_path / "model.safetensors")["model.action_out.bias"][0] == 3.0


def die_at_call(number: int) -> None:
    """End this process after `number` of the calls by which a checkpoint is written."""
    left = iter(range(number))

    def counted(call: Any) -> Any:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            if next(left, None) is None:
                os._exit(9)
            return call(*arguments, **options)

        return wrapped

    for name in _CALLS:
        setattr(os, name, counted(getattr(os, name)))
    Path.replace = counted(Path.replace)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_reader_meets_whole_checkpoints_while_they_are_replaced(
    tmp_path: Path, policy: LoopedPolicy
):
    save_checkpoint(tmp_path, filled(policy, 1.0), {"step": 1}, state(1))
    child = os.fork()
    if child == 0:
        for step in range(2, 60):
            save_checkpoint(tmp_path, filled(policy, float(step)), {"step": step}, state(step))
        os._exit(0)
    seen: set[int] = set()
    while not os.waitpid(child, os.WNOHANG)[0]:
        found, weights = load_training_state(tmp_path)
        step = found.numbers["step"]
        assert found.tensors["weight"].unique().tolist() == [step]
        assert weights["model.action_out.bias"].unique().tolist() == [step]
        seen.add(step)
    assert len(seen) > 1


def test_a_copy_is_the_policy_byte_for_byte_without_its_training(
    tmp_path: Path, policy: LoopedPolicy
):
    source, target = tmp_path / "source", tmp_path / "target"
    save_checkpoint(source, policy, {"step": 4}, state(4))
    copy_policy(source, target)
    name = "model.safetensors"
    assert (source / name).read_bytes() == (target / name).read_bytes()
    assert load_checkpoint(target).provenance == {"step": 4}
    assert sorted(path.name for path in target.iterdir()) == ["checkpoint.json", name]


def test_weights_that_were_committed_and_not_yet_renamed_are_found(
    tmp_path: Path, policy: LoopedPolicy
):
    """What a copy of the folder may catch: the manifest is new, a file has its interim name."""
    save_checkpoint(tmp_path, filled(policy, 2.0), {"step": 2})
    entry = json.loads((tmp_path / "checkpoint.json").read_text())["files"]["model.safetensors"]
    interim = tmp_path / f"model-{entry['sha256'][:16]}.safetensors"
    shutil.move(tmp_path / "model.safetensors", interim)
    save_file({"old": torch.zeros(1)}, tmp_path / "model.safetensors")
    assert load_policy(tmp_path).state_dict()["model.action_out.bias"][0] == 2.0
