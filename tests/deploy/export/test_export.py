import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store import Episode, EpisodeWriter
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.bundle.manifest import MANIFEST
from loopdit.deploy.bundle.probes import make_probes
from loopdit.deploy.export.command import ExportConfig, export_bundle
from loopdit.deploy.export.graph_parity import Proof
from loopdit.deploy.export.parity import compare_chunks
from loopdit.deploy.export.report import closed_loop_command
from loopdit.errors import BundleError, ConfigError, SpecMismatch

QUIET = Console(quiet=True)


def _store(path: Path, spec: PolicySpec) -> Path:
    """One episode of three different frames."""
    frames = np.arange(3, dtype=np.uint8)[:, None, None, None]
    writer = EpisodeWriter.create(path, spec, {})
    observations = {
        "images.front": np.broadcast_to(frames, (3, 32, 32, 3)).copy(),
        "proprio": np.arange(6, dtype=np.float32).reshape(3, 2),
    }
    writer.append(Episode(observations, np.zeros((3, 2), np.float32), "wave", True, 0))
    return path


def test_the_export_prints_each_graph_and_the_parity_of_each_k(
    exported: tuple[Path, str], tiny_bundle: Bundle
):
    printed = exported[1]
    for line in (
        "[1/6] encode  K=1",
        "[4/6] denoise K=2",
        "[6/6] denoise any K",
        "16 synthetic observations",
        "max error",
    ):
        assert line in printed
    (proof,) = tiny_bundle.manifest.parity["proofs"]
    assert [row["graph"] for row in proof["graphs"]] == tiny_bundle.manifest.graph_names("fp32")
    assert [row["loops"] for row in proof["rows"]] == [1, 2]
    assert [row["loops"] for row in proof["counted_rows"]] == [1, 2]
    for row in (*proof["graphs"], *proof["rows"], *proof["counted_rows"]):
        assert 0 < row["mean_abs_error"] <= row["max_abs_error"] < 1e-4
        assert f"{row['max_abs_error']:.2e}" in printed


def test_the_manifest_holds_latency_and_the_machine_it_was_measured_on(tiny_bundle: Bundle):
    (table,) = tiny_bundle.manifest.latency
    assert table["machine"]["cores"] >= 1
    assert [row["loops"] for row in table["rows"]] == [1, 2]
    for row in table["rows"]:
        assert 0 < row["min_ms"] <= row["p50_ms"] <= row["p99_ms"] <= row["max_ms"]
        assert row["repetitions"] >= 5


def test_the_exported_weights_are_the_checkpoints(
    exported: tuple[Path, str], tiny_checkpoint: Path
):
    weights = (exported[0] / "model.safetensors").read_bytes()
    assert weights == (tiny_checkpoint / "model.safetensors").read_bytes()


def test_beyond_the_tolerance_of_a_precision_no_bundle_is_written(
    tiny_checkpoint: Path, tmp_path: Path
):
    config = ExportConfig(
        checkpoint=str(tiny_checkpoint),
        out=str(tmp_path / "out"),
        loops=[1],
        loop_graphs=False,
        precision=["bf16"],
        tolerance_bf16=1e-6,
    )
    with pytest.raises(
        BundleError, match=r"bf16 graphs differ from the float32 reference.*tolerance_bf16=1e-06"
    ):
        export_bundle(config, QUIET)
    assert list(tmp_path.iterdir()) == []


def test_what_lower_precisions_cost_is_one_command_over_all_of_them(reduced_bundle: Bundle):
    choices = "[fused:fp32,onnxruntime:fp16,fused:bf16,onnxruntime:int8]"
    command = closed_loop_command(reduced_bundle, "out")
    assert re.sub(r"'", "", command) == f"policy-eval backends out env=[ENV] backends={choices}"
    store = {"provenance": {"settings": {"env": "lift"}}}
    for data, envs in (
        (store["provenance"], "lift"),
        ({"stores": [store, {"provenance": {"settings": {"env": "stack"}}}]}, "lift,stack"),
    ):
        manifest = replace(reduced_bundle.manifest, provenance={"data_provenance": data})
        told = closed_loop_command(replace(reduced_bundle, manifest=manifest), "out")
        assert f"env=[{envs}]" in told


def test_errors_are_the_largest_and_the_mean_and_not_a_number_is_never_near(tiny_spec: PolicySpec):
    reference = np.zeros((1, 2, 2), np.float32)
    reference[0, 0, 0] = 50  # at the limit
    found = reference + np.array([[[0, 0.5], [-1, 0]]])
    row = compare_chunks(found, reference, 1, tiny_spec.action)
    assert (row.max_abs_error, row.mean_abs_error, row.clipped) == (1.0, 0.375, 0.25)
    broken = compare_chunks(np.full_like(reference, np.nan), reference, 1, tiny_spec.action)
    with pytest.raises(BundleError, match="inf"):
        Proof("fp32", 10.0, (row, broken), (), ()).require()


def test_probes_of_a_store_are_its_frames(tiny_spec: PolicySpec, tmp_path: Path):
    store = _store(tmp_path / "store", tiny_spec)
    probes = make_probes(tiny_spec, 4, 20, seed=0, data=str(store))
    assert str(store) in probes.source
    steps = probes.observations["proprio"][:, 0] / 2  # recorded as 0, 2, 4
    assert set(steps) == {0, 1, 2}
    np.testing.assert_array_equal(probes.observations["images.front"][:, 5, 5, 1], steps)


def test_a_store_of_another_robot_is_refused_before_the_work(
    tiny_checkpoint: Path, tiny_spec: PolicySpec, tmp_path: Path
):
    other = replace(tiny_spec, control_period_s=0.05)
    config = ExportConfig(
        checkpoint=str(tiny_checkpoint),
        out=str(tmp_path / "out"),
        data=str(_store(tmp_path / "store", other)),
    )
    with pytest.raises(SpecMismatch, match=r"control_period_s is 0.1, there 0.05"):
        export_bundle(config, QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_bundle_in_the_way_is_refused_before_the_work(tiny_checkpoint: Path, bundle_copy: Path):
    before = (bundle_copy / MANIFEST).read_bytes()
    config = ExportConfig(checkpoint=str(tiny_checkpoint), out=str(bundle_copy))
    with pytest.raises(BundleError, match="overwrite=true"):
        export_bundle(config, QUIET)
    assert (bundle_copy / MANIFEST).read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoint": ""}, "checkpoint= is missing"),
        ({"steps": 0}, "steps=0"),
        ({"observations": 0}, "observations=0"),
        ({"tolerance": float("nan")}, "tolerance=nan"),
        ({"tolerance_int8": -1.0}, "tolerance_int8=-1"),
        ({"precision": ["fp32", "int4"]}, "has 'int4'. Choose from: fp32, fp16, bf16, int8"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        ExportConfig(**({"checkpoint": "somewhere"} | options))  # pyright: ignore[reportArgumentType] - parametrised


@pytest.mark.parametrize(
    ("options", "message"),
    [({"loops": [1, 5]}, r"was trained for K = 1\.\.2"), ({"default_loops": 7}, "default_loops=7")],
)
def test_a_depth_the_policy_was_not_trained_for_is_refused(
    tiny_checkpoint: Path, tmp_path: Path, options: dict[str, object], message: str
):
    values = {"checkpoint": str(tiny_checkpoint), "out": str(tmp_path / "out")} | options
    with pytest.raises(ConfigError, match=message):
        export_bundle(ExportConfig(**values), QUIET)  # pyright: ignore[reportArgumentType] - parametrised


def test_the_manifest_is_json_that_says_its_format_first(exported: tuple[Path, str]):
    data = json.loads((exported[0] / MANIFEST).read_text())
    assert list(data)[:2] == ["format", "format_version"]
    assert (data["format"], data["format_version"]) == ("loopdit-bundle", 2)
