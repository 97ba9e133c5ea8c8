import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from loopdit.deploy.bench import BenchConfig, results_table, run_bench
from loopdit.deploy.bundle import Bundle
from loopdit.deploy.latency import Workload, measure
from loopdit.deploy.probes import make_probes
from loopdit.errors import BundleError, ConfigError

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def results(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("bench")
    config = BenchConfig(bundle=str(tiny_bundle.path), repetitions=10, out=str(out), seed=4)
    returned = run_bench(config, QUIET)
    written = json.loads((out / "bench.json").read_text())
    assert written == json.loads(json.dumps(returned))
    return written


def test_there_is_a_row_for_each_back_end_and_k(results: dict[str, Any]):
    arms = [(row["backend"], row["loops"]) for row in results["rows"]]
    assert arms == [("onnxruntime", 1), ("onnxruntime", 2), ("torch", 1), ("torch", 2)]
    for row in results["rows"]:
        assert (row["device"], row["precision"]) == ("cpu", "fp32")
        assert (row["steps"], row["batch"], row["repetitions"]) == (3, 1, 10)


def test_times_are_ordered_and_made_of_their_parts(results: dict[str, Any]):
    for row in results["rows"]:
        assert 0 < row["min_ms"] <= row["p50_ms"] <= row["p99_ms"] <= row["max_ms"]
        assert 0 < row["encode_p50_ms"] < row["max_ms"]
        assert 0 < row["denoise_p50_ms"] < row["max_ms"]


def test_errors_against_the_reference_are_those_of_float32(results: dict[str, Any]):
    for row in results["rows"]:
        assert 0 <= row["mean_abs_error"] <= row["max_abs_error"] < 1e-4
    # Another runtime rounds otherwise: an error of exactly 0 would be torch against itself.
    assert all(r["max_abs_error"] > 0 for r in results["rows"] if r["backend"] == "onnxruntime")


def test_the_results_carry_machine_versions_seeds_and_the_bundles_hash(
    results: dict[str, Any], tiny_bundle: Bundle
):
    assert results["machine"]["cores"] >= 1
    assert {"python", "torch", "onnxruntime"} <= set(results["versions"])
    assert results["seeds"] == {"order": 4, "observations": 4, "noise": 4}
    assert results["bundle"]["model_id"] == tiny_bundle.model_id
    assert re.fullmatch(r"[0-9a-f]{64}", results["bundle"]["manifest_sha256"])
    assert "synthetic" in results["observations"]


def test_a_back_end_that_cannot_start_ends_the_measurement_with_its_reason(
    tiny_bundle: Bundle, tmp_path: Path
):
    probes = make_probes(tiny_bundle.spec, tiny_bundle.horizon, 1, seed=0)
    workload = Workload(str(tmp_path / "gone"), probes, steps=1)
    with pytest.raises(BundleError, match="gone does not exist"):
        measure(workload, ["onnxruntime"], [1], repetitions=1, seed=0)


def test_a_k_that_the_bundle_has_not_is_refused(tiny_bundle: Bundle, tmp_path: Path):
    config = BenchConfig(bundle=str(tiny_bundle.path), loops=[1, 9], out=str(tmp_path))
    with pytest.raises(BundleError, match="loops=9"):
        run_bench(config, QUIET)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backends": ["onnxruntime", "tensorflow"]}, "'tensorflow'.*onnxruntime, torch"),
        ({"backends": []}, "is empty"),
        ({"repetitions": 0}, "repetitions=0"),
        ({"batch": 0}, "batch=0"),
        ({"threads": -1}, "threads=-1"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        BenchConfig(**options)


def test_the_printed_table_fits_80_columns_with_no_number_cut(results: dict[str, Any]):
    printed = io.StringIO()
    Console(file=printed, width=80).print(results_table(results))
    lines = [line.rstrip() for line in printed.getvalue().splitlines() if line.strip()]
    assert len(lines) == 2 + len(results["rows"])
    assert "…" not in printed.getvalue()
    for line, row in zip(lines[2:], results["rows"], strict=True):
        assert f"{row['p50_ms']:.2f}" in line
        assert line.endswith(f"{row['max_abs_error']:.1e}")
