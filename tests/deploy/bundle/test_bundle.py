import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loopdit.deploy.backends import load_backend
from loopdit.deploy.bundle import bundle as bundle_module
from loopdit.deploy.bundle.bundle import Bundle, default_bundle
from loopdit.deploy.bundle.manifest import MANIFEST, Manifest
from loopdit.deploy.bundle.manifest_migration import migrated
from loopdit.deploy.bundle.writer import staged_bundle, with_latency
from loopdit.errors import BundleError, ConfigError
from loopdit.policy.looped_policy import LoopedPolicy

# Written by policy-export when version 1 was the newest, of a tiny policy with random weights.
VERSION_1 = Path(__file__).parents[2] / "goldens" / "bundle_v1"


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
    assert tiny_bundle.manifest.adaptive is not None
    assert tiny_bundle.manifest.adaptive["threshold"] == 0.25  # as its checkpoint was calibrated
    assert "adaptive_depth.json" not in tiny_bundle.files


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


def test_a_later_format_version_is_refused_with_what_to_do(bundle_copy: Path):
    _edit_manifest(bundle_copy, lambda data: data.update(format_version=7))
    with pytest.raises(
        BundleError,
        match=r"version 7; this loopdit reads versions 1 and 2. Install the loopdit that wrote it"
        r".*policy-export checkpoint=.*out=",
    ):
        Bundle.open(bundle_copy)


def _as_version_1(folder: Path) -> None:
    """The manifest as the first loopdit wrote it, before precisions and graphs with K as input."""

    def older(data: dict[str, Any]) -> None:
        for name in ("max_steps", "precisions", "loop_graphs", "adaptive"):
            del data[name]
        data["format_version"] = 1
        proof = data["parity"].pop("proofs")[0]
        data["parity"] |= {name: proof[name] for name in ("precision", "tolerance", "rows")}

    _edit_manifest(folder, older)


def test_a_bundle_of_version_1_is_read_as_one_of_this_version(bundle_copy: Path):
    before = Bundle.open(bundle_copy)
    _as_version_1(bundle_copy)
    opened = Bundle.open(bundle_copy)
    assert (opened.loops, opened.precisions) == ((1, 2), ("fp32",))
    assert opened.manifest.max_steps is None  # it is a flow's
    (proof,) = opened.manifest.parity["proofs"]
    assert proof["rows"] == before.manifest.parity["proofs"][0]["rows"]
    assert opened.graph("denoise", 2) == before.graph("denoise", 2)
    with pytest.raises(BundleError, match=r"no graphs with K as an input.*loop_graphs=true"):
        opened.graph("denoise", None)


def test_a_diffusion_of_version_1_has_as_many_steps_as_it_was_trained_with():
    ddpm = {"policy": {"objective": {"kind": "ddpm_x0", "train_timesteps": 50}}}
    assert migrated(json.loads((VERSION_1 / MANIFEST).read_text()), ddpm)["max_steps"] == 50


@pytest.mark.parametrize("name", ["onnxruntime", "torch"])
def test_a_bundle_that_was_written_as_version_1_opens_and_acts_as_it_did(name: str):
    assert json.loads((VERSION_1 / MANIFEST).read_text())["format_version"] == 1
    bundle = Bundle.open(VERSION_1)
    assert bundle.loops == (1, 2)
    load_backend(bundle, name)  # raises where it computes another chunk than its export did


def test_steps_that_the_sampler_has_not_are_refused(tiny_bundle: Bundle):
    tiny_bundle.require_steps(5000)
    few = Bundle(tiny_bundle.path, replace(tiny_bundle.manifest, max_steps=50))
    few.require_steps(50)
    for steps in (0, 51):
        with pytest.raises(ConfigError, match=rf"steps={steps} must be from 1 to 50"):
            few.require_steps(steps)


def test_a_precision_that_was_not_exported_is_refused_with_those_that_were(tiny_bundle: Bundle):
    with pytest.raises(BundleError, match=r"precision=int4 .*which has fp32.*precision=\[int4\]"):
        tiny_bundle.graph("encode", 1, "int4")


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


def test_a_table_of_latency_takes_the_place_of_the_one_of_its_machine(bundle_copy: Path):
    (first,) = Bundle.open(bundle_copy).manifest.latency
    elsewhere: dict[str, Any] = {"rows": [], "machine": {"cpu": "A", "cores": 8}}
    again: dict[str, Any] = {"rows": [{"loops": 1}], "machine": first["machine"]}
    assert with_latency(bundle_copy, elsewhere).latency == (first, elsewhere)
    with_latency(bundle_copy, again)
    opened = Bundle.open(bundle_copy)
    assert opened.manifest.latency == (elsewhere, again)
    assert [path.name for path in bundle_copy.iterdir() if path.name.startswith(".")] == []


def test_a_bundle_of_version_1_becomes_one_of_this_version_when_a_table_is_added(
    bundle_copy: Path,
):
    _as_version_1(bundle_copy)
    with_latency(bundle_copy, {"rows": [], "machine": {"cpu": "A", "cores": 8}})
    assert json.loads((bundle_copy / MANIFEST).read_text())["format_version"] == 2
    assert Bundle.open(bundle_copy).loops == (1, 2)


def test_what_k_1_to_4_of_the_shipped_policy_weighs_is_bounded():
    bundle = Bundle.open(default_bundle())
    total = bundle.bytes + (bundle.path / MANIFEST).stat().st_size
    assert total < 1.1 * bundle.files["model.safetensors"].bytes + 1e6
