import csv
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from loopdit.deploy.backends import BACKEND_NAMES
from loopdit.deploy.bench.command import BenchConfig, run_bench
from loopdit.deploy.bench.latency import Arm, Workload, measure, measure_arms
from loopdit.deploy.bench.text import print_results, results_table
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.bundle.probes import make_probes
from loopdit.errors import BundleError, ConfigError

QUIET = Console(quiet=True)
ABSENT = "onnxruntime-tensorrt"  # the tests' machine has no GPU, or not this build


@pytest.fixture(scope="module")
def out(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that one real run leaves, and the bundle that it recorded into."""
    folder = tmp_path_factory.mktemp("bench")
    bundle = shutil.copytree(tiny_bundle.path, folder / "bundle")
    config = BenchConfig(
        bundle=str(bundle),
        backends=["onnxruntime", "torch", ABSENT],
        steps=[3, 6],
        repetitions=10,
        record=True,
        clock="cpu",
        out=str(folder),
        seed=4,
    )
    returned = run_bench(config, QUIET)
    assert json.loads((folder / "bench.json").read_text()) == json.loads(json.dumps(returned))
    return folder


@pytest.fixture(scope="module")
def results(out: Path) -> dict[str, Any]:
    return json.loads((out / "bench.json").read_text())


@pytest.fixture(scope="module")
def rows(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that were measured."""
    return [row for row in results["rows"] if "reason" not in row]


@pytest.mark.system
def test_there_is_a_row_for_each_back_end_k_and_steps(rows: list[dict[str, Any]]):
    arms = [(row["backend"], row["loops"], row["steps"]) for row in rows]
    assert arms == [(b, k, s) for b in ("onnxruntime", "torch") for k in (1, 2) for s in (3, 6)]
    for row in rows:
        assert (row["device"], row["precision"]) == ("cpu", "fp32")
        assert (row["batch"], row["repetitions"]) == (1, 10)


@pytest.mark.system
def test_a_back_end_that_is_not_to_be_had_is_a_row_with_its_reason(results: dict[str, Any]):
    (row,) = [row for row in results["rows"] if "reason" in row]
    assert (row["backend"], row["precision"]) == (ABSENT, "fp32")
    assert "p50_ms" not in row
    assert row["reason"]


@pytest.mark.system
def test_times_are_ordered_and_made_of_their_parts(rows: list[dict[str, Any]]):
    for row in rows:
        order = [row[f"{name}_ms"] for name in ("min", "p50", "p90", "p99", "max")]
        assert order == sorted(order)
        assert order[0] > 0
        for part in ("encode", "denoise"):
            assert 0 < row[f"{part}_p50_ms"] <= row[f"{part}_p99_ms"] < row["max_ms"]
        assert 0 < row["min_ms"] <= row["first_ms"] * 10
        assert 10 < row["rss_mib"] < 10_000


@pytest.mark.system
def test_more_denoising_steps_and_loops_take_longer_on_a_core(rows: list[dict[str, Any]]):
    by_arm = {(row["backend"], row["loops"], row["steps"]): row["cpu_p50_ms"] for row in rows}
    for backend in ("onnxruntime", "torch"):
        assert by_arm[backend, 2, 6] > by_arm[backend, 2, 3]
        assert by_arm[backend, 2, 6] > by_arm[backend, 1, 3]


@pytest.mark.system
def test_a_chunk_takes_longer_than_its_products_and_they_longer_than_the_floor(
    rows: list[dict[str, Any]],
):
    for row in rows:
        assert row["times_products"]["value"] > 1
        assert row["products_p50_ms"] > row["floor_ms"] > 0
        assert row["floor_ms"] >= max(row["floor_flops_ms"], row["floor_bytes_ms"])


@pytest.mark.system
def test_the_speed_beside_torch_is_of_torch_eager_at_the_same_work(rows: list[dict[str, Any]]):
    for row in rows:
        ratio = row["faster_than_torch"]["value"]
        (torch,) = [
            other
            for other in rows
            if other["backend"] == "torch"
            and (other["loops"], other["steps"]) == (row["loops"], row["steps"])
        ]
        assert ratio == pytest.approx(torch["cpu_p50_ms"] / row["cpu_p50_ms"], rel=0.01)


@pytest.mark.system
def test_what_a_loop_costs_is_said_for_each_back_end_and_number_of_steps(
    results: dict[str, Any], rows: list[dict[str, Any]]
):
    assert len(results["loop_costs"]) == 4
    for cost in results["loop_costs"]:
        one, two = (
            row["cpu_p50_ms"]
            for row in rows
            if (row["backend"], row["steps"]) == (cost["backend"], cost["steps"])
        )
        assert cost["slope_ms"]["value"] == pytest.approx(two - one, abs=1e-3)
        assert cost["intercept_ms"]["value"] == pytest.approx(2 * one - two, abs=1e-3)
        assert cost["floor_slope_ms"] > 0


@pytest.mark.system
def test_errors_against_the_reference_are_those_of_float32(rows: list[dict[str, Any]]):
    for row in rows:
        assert 0 <= row["mean_abs_error"] <= row["max_abs_error"] < 1e-4
    # Another runtime rounds otherwise: an error of exactly 0 would be torch against itself.
    assert all(r["max_abs_error"] > 0 for r in rows if r["backend"] == "onnxruntime")


@pytest.mark.system
def test_the_results_carry_machine_versions_seeds_and_the_bundles_hash(
    results: dict[str, Any], tiny_bundle: Bundle
):
    assert results["machine"]["cores"] >= 1
    assert {"python", "torch", "onnxruntime"} <= set(results["versions"])
    assert results["seeds"] == {"order": 4, "observations": 4, "noise": 4}
    assert results["bundle"]["model_id"] == tiny_bundle.model_id
    assert re.fullmatch(r"[0-9a-f]{64}", results["bundle"]["manifest_sha256"])
    assert "synthetic" in results["observations"]
    assert results["outliers"] == "none removed"


@pytest.mark.system
def test_the_table_is_in_the_bundle_that_was_named(out: Path, rows: list[dict[str, Any]]):
    *_, table = Bundle.open(out / "bundle").manifest.latency
    assert [(row["loops"], row["steps"], row["p99_ms"]) for row in table["rows"]] == [
        (row["loops"], row["steps"], row["p99_ms"]) for row in rows
    ]
    assert table["machine"]["cores"] >= 1


@pytest.mark.system
def test_the_csv_has_the_same_rows_with_intervals_as_columns(out: Path, results: dict[str, Any]):
    lines = list(csv.DictReader(io.StringIO((out / "bench.csv").read_text())))
    assert len(lines) == len(results["rows"])
    for line, row in zip(lines, results["rows"], strict=True):
        assert line["backend"] == row["backend"]
        assert line["reason"] == row.get("reason", "")
        if "reason" not in row:
            assert float(line["p99_ms"]) == row["p99_ms"]
            assert float(line["times_products_low"]) == row["times_products"]["low"]


@pytest.mark.system
def test_the_page_is_one_file_with_both_plots_and_what_is_missing(out: Path):
    page = (out / "bench.html").read_text()
    assert not re.search(r"https?:|<script|src=|url\((?!#)", page)
    assert page.count("<svg") == 4  # two for each number of steps
    assert len(set(re.findall(r' id="([^"]+)"', page))) == len(re.findall(r' id="([^"]+)"', page))
    assert ABSENT in page
    for name in ("latency.png", "distance.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.system
def test_the_printed_table_fits_80_columns_with_no_number_cut(
    results: dict[str, Any], rows: list[dict[str, Any]]
):
    printed = io.StringIO()
    Console(file=printed, width=80).print(results_table(results))
    lines = [line.rstrip() for line in printed.getvalue().splitlines() if line.strip()]
    assert len(lines) == 2 + len(rows)
    assert "…" not in printed.getvalue()
    for line, row in zip(lines[2:], rows, strict=True):
        assert f"{row['p50_ms']:.2f}" in line
        assert line.endswith(f"{row['max_abs_error']:.1e}")


@pytest.mark.system
def test_what_is_printed_says_what_is_missing_and_what_a_loop_costs(results: dict[str, Any]):
    printed = io.StringIO()
    print_results(results, Console(file=printed, width=80))
    assert f"{ABSENT} fp32: not measured: " in printed.getvalue()
    assert "onnxruntime fp32, 3 steps, batch 1: " in printed.getvalue()


def test_what_a_back_end_has_not_is_missing_with_its_reason_and_starts_nothing(
    tiny_bundle: Bundle,
):
    probes = make_probes(tiny_bundle.spec, tiny_bundle.horizon, 1, seed=0)
    workload = Workload(str(tiny_bundle.path), probes, steps=1)
    measured = measure_arms(workload, [Arm("torch", "int8", 1, 1, 1)], repetitions=1, seed=0)
    (missing,) = measured.missing
    assert missing.reason.startswith("it has no int8, but fp32")
    assert measured.results == []


@pytest.mark.system
def test_a_back_end_that_cannot_start_ends_a_plain_measurement_with_its_reason(
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


def test_nothing_to_measure_is_an_error_with_the_reasons(tiny_bundle: Bundle, tmp_path: Path):
    config = BenchConfig(
        bundle=str(tiny_bundle.path), backends=["torch"], precisions=["int8"], out=str(tmp_path)
    )
    with pytest.raises(BundleError, match="torch: it has no int8, but fp32"):
        run_bench(config, QUIET)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backends": ["onnxruntime", "tensorflow"]}, "'tensorflow'.*onnxruntime"),
        ({"precisions": ["fp64"]}, "'fp64'.*fp32, fp16"),
        ({"precisions": []}, "is empty"),
        ({"repetitions": 0}, "repetitions=0"),
        ({"batch": [0]}, r"batch=\[0\]"),
        ({"batch": []}, "is empty"),
        ({"steps": [5, 5]}, "names one twice"),
        ({"threads": -1}, "threads=-1"),
        ({"clock": "sun"}, "clock=sun"),
        ({"clock": "cpu", "threads": 2}, "threads=2"),
        ({"compare": "old.json", "repetitions": 10}, "repetitions=10 are too few"),
        ({"record": True}, "bundle="),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        BenchConfig(**options)


def test_every_back_end_can_be_named():
    assert BenchConfig(backends=list(BACKEND_NAMES)).backends == list(BACKEND_NAMES)
