import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loopdit.deploy import bundle as bundle_module
from loopdit.deploy.bundle import Bundle, default_bundle
from loopdit.deploy.bundle_writer import staged_bundle
from loopdit.deploy.manifest import MANIFEST, Manifest
from loopdit.errors import BundleError
from loopdit.policy.looped_policy import LoopedPolicy


def _edit_manifest(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = folder / MANIFEST
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))


def test_bundle_says_what_the_policy_is(tiny_bundle: Bundle, tiny_policy: LoopedPolicy):
    assert tiny_bundle.spec == tiny_policy.spec
    assert tiny_bundle.horizon == 4
    assert tiny_bundle.loops == (1, 2)
    assert tiny_bundle.default_loops == 2
    assert tiny_bundle.steps == 3
    assert tiny_bundle.provenance == {"trained": "never", "seed": 0}
    assert tiny_bundle.manifest.normalisation["proprio_mean"] == pytest.approx([0.3, -0.7])


def test_manifest_reads_back_what_it_wrote(tiny_bundle: Bundle):
    written = tiny_bundle.manifest.to_dict()
    assert Manifest.from_dict(json.loads(json.dumps(written))) == tiny_bundle.manifest


def test_a_folder_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(BundleError, match=r"nowhere does not exist.*policy-export"):
        Bundle.open(tmp_path / "nowhere")


def test_a_folder_without_manifest_is_no_bundle(tmp_path: Path):
    with pytest.raises(BundleError, match=rf"no {MANIFEST}"):
        Bundle.open(tmp_path)


def test_a_checkpoint_named_as_bundle_gets_the_command_that_exports_it(tiny_checkpoint: Path):
    with pytest.raises(BundleError, match=r"checkpoint, not a bundle.*policy-export checkpoint="):
        Bundle.open(tiny_checkpoint)


@pytest.mark.parametrize("name", ["model.safetensors", "encode_k1.onnx", "checkpoint.json"])
def test_one_altered_byte_is_found_and_its_file_named(bundle_copy: Path, name: str):
    content = bytearray((bundle_copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle_copy / name).write_bytes(content)
    with pytest.raises(BundleError, match=rf"{name} was altered"):
        Bundle.open(bundle_copy)


def test_a_truncated_file_is_named_with_both_sizes(bundle_copy: Path):
    path = bundle_copy / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(
        BundleError, match=rf"model.safetensors is truncated.*{len(whole) - 10}.*{len(whole)}"
    ):
        Bundle.open(bundle_copy)


def test_a_missing_file_is_named(bundle_copy: Path):
    (bundle_copy / "denoise_k2.onnx").unlink()
    with pytest.raises(BundleError, match=r"denoise_k2.onnx is missing"):
        Bundle.open(bundle_copy)


def test_another_format_version_is_refused_with_the_command_that_makes_it_again(bundle_copy: Path):
    _edit_manifest(bundle_copy, lambda data: data.update(format_version=7))
    with pytest.raises(
        BundleError,
        match=r"version 7; this loopdit reads version 1.*policy-export checkpoint=.*out=",
    ):
        Bundle.open(bundle_copy)


def test_a_manifest_cut_short_is_refused(bundle_copy: Path):
    path = bundle_copy / MANIFEST
    path.write_text(path.read_text()[:-40])
    with pytest.raises(BundleError, match=rf"{MANIFEST} is truncated or altered"):
        Bundle.open(bundle_copy)


@pytest.mark.parametrize("key", ["spec", "loops", "files", "model_id", "steps"])
def test_a_manifest_without_a_field_is_refused_by_its_name(bundle_copy: Path, key: str):
    _edit_manifest(bundle_copy, lambda data: data.pop(key))
    with pytest.raises(BundleError, match=key):
        Bundle.open(bundle_copy)


def test_a_spec_edited_by_hand_no_longer_fits_its_weights(bundle_copy: Path):
    _edit_manifest(bundle_copy, lambda data: data["spec"]["action"].update(high=[500, 500]))
    with pytest.raises(BundleError, match=r"manifest.json was altered"):
        Bundle.open(bundle_copy)


def test_a_manifest_cannot_point_outside_its_folder(bundle_copy: Path):
    outside = {"../secret": {"bytes": 1, "sha256": "0"}}
    _edit_manifest(bundle_copy, lambda data: data["files"].update(outside))
    with pytest.raises(BundleError, match=r"'../secret', which is not a plain file name"):
        Bundle.open(bundle_copy)


def test_a_k_that_was_not_exported_is_refused_with_those_that_were(tiny_bundle: Bundle):
    with pytest.raises(BundleError, match=r"loops=3 is not in this bundle, which has 1, 2"):
        tiny_bundle.require_loops(3)


def test_without_a_shipped_bundle_the_error_says_how_to_make_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(bundle_module, "_SHIPPED", tmp_path / "lift")
    with pytest.raises(BundleError, match=r"policy-export checkpoint="):
        default_bundle()


def _stopped_half_way(out: Path, overwrite: bool) -> None:
    with staged_bundle(out, overwrite) as folder:
        (folder / "half").write_text("...")
        raise KeyboardInterrupt


def test_a_stopped_writing_leaves_nothing(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        _stopped_half_way(tmp_path / "new", overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_overwriting_keeps_the_old_bundle(bundle_copy: Path):
    with pytest.raises(KeyboardInterrupt):
        _stopped_half_way(bundle_copy, overwrite=True)
    assert Bundle.open(bundle_copy).loops == (1, 2)
    assert list(bundle_copy.parent.iterdir()) == [bundle_copy]


def test_what_a_killed_export_left_behind_is_removed_by_the_next(tmp_path: Path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead = tmp_path / f".bundle.exporting-{ended.pid}"
    dead.mkdir()
    live = tmp_path / f".bundle.exporting-{os.getppid()}"
    live.mkdir()
    with pytest.raises(KeyboardInterrupt), staged_bundle(tmp_path / "bundle", overwrite=False):
        raise KeyboardInterrupt
    assert live.exists()
    assert not dead.exists()


def test_a_bundle_is_overwritten_only_when_told(bundle_copy: Path):
    with (
        pytest.raises(BundleError, match=r"overwrite=true"),
        staged_bundle(bundle_copy, overwrite=False),
    ):
        pytest.fail("the work must not begin")
    with staged_bundle(bundle_copy, overwrite=True) as folder:
        (folder / "new").write_text("whole")
    assert [path.name for path in bundle_copy.iterdir()] == ["new"]
    assert list(bundle_copy.parent.iterdir()) == [bundle_copy]


def test_overwrite_never_deletes_a_folder_that_is_no_bundle(tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with (
        pytest.raises(BundleError, match="not a bundle"),
        staged_bundle(tmp_path, overwrite=True),
    ):
        pytest.fail("the work must not begin")
    assert (tmp_path / "thesis.tex").exists()
