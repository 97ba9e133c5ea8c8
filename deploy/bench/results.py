"""`bench.json` and `bench.csv`: what `policy-bench` found, as rows.

A row is an arm with its times, its error against the float32 reference, and how far it is from its
matrix products and from the floor; or, with a `reason`, a back end that is not to be had here.
Beside the rows: `loop_costs`, what a loop costs, and `roofline`, how fast the machine was.
Knows no clock, no process and no console.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loopdit.deploy.bench.latency import Arm, ArmResult, Measured, Missing
from loopdit.deploy.bench.roofline import ChunkProducts, Floor, Speed, floor
from loopdit.deploy.bench.statistics import loop_cost, milliseconds, paired_ratio
from loopdit.deploy.bench.timed_backend import COLUMNS
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.bundle.probes import Probes
from loopdit.deploy.export.parity import compare_chunks, reference_chunks
from loopdit.errors import ConfigError
from loopdit.policy.any_checkpoint import load_any
from loopdit.whole_file import whole_file

JSON_FILE, CSV_FILE = "bench.json", "bench.csv"
_REFERENCE = ("torch", "fp32")  # what every other back end is compared with in speed, too

Row = dict[str, Any]


@dataclass(frozen=True)
class Yardstick:
    """What the chunks of one device and precision are measured against.

    products: of a chunk, by (loops, batch). runtime: which multiplied fastest.
    """

    name: str
    runtime: str
    speed: Speed
    products: Mapping[tuple[int, int], ChunkProducts]

    def floor(self, arm: Arm) -> Floor:
        """Of one chunk of `arm`."""
        return floor(self.products[arm.loops, arm.batch], arm.steps, arm.precision, self.speed)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"of": self.name, "products_by": self.runtime, **asdict(self.speed)}


def yardstick_name(device: str, precision: str) -> str:
    """As `Yardstick.name`."""
    return f"{device} {precision}"


def make_rows(
    measured: Measured,
    yardsticks: Mapping[str, Yardstick],
    bundle: Bundle,
    probes: Probes,
    clock: str,
    seed: int,
) -> list[Row]:
    """A row for each arm that was timed, then one for each that was not. Ratios go by `clock`."""
    references = _references(measured.results, bundle, probes)
    reference_times = {
        (result.arm.work, result.facts.threads): result.chunk_ms(clock)
        for result in measured.results
        if result.arm.process == _REFERENCE
    }
    rows: list[Row] = []
    for result in measured.results:
        arm = result.arm
        parity = compare_chunks(
            result.chunks, references[arm.loops, arm.steps], arm.loops, bundle.spec.action
        )
        row = result.summary() | parity.to_dict()
        chunk_ms = result.chunk_ms(clock)
        row["round_ms"] = _round_medians(chunk_ms)
        reference = reference_times.get((arm.work, result.facts.threads))
        row["faster_than_torch"] = (
            None if reference is None else asdict(paired_ratio(reference, chunk_ms, seed))
        )
        name = yardstick_name(result.facts.device, arm.precision)
        products_ms = measured.yardsticks.get((name, arm.work))
        if name in yardsticks and products_ms is not None:
            column = products_ms[..., COLUMNS[clock]]
            row |= _against(chunk_ms, yardsticks[name].floor(arm), column, seed)
        rows.append(row)
    return rows + [_missing_row(missing) for missing in measured.missing]


def _against(chunk_ms: np.ndarray, least: Floor, products_ms: np.ndarray, seed: int) -> Row:
    """What is said of an arm (rounds, VISIT) beside its floor and its products alone."""
    return {
        "products_p50_ms": milliseconds(np.median(products_ms)),
        "times_products": asdict(paired_ratio(chunk_ms, products_ms, seed)),
        "round_products_ms": _round_medians(products_ms),
        "floor_ms": milliseconds(least.products_ms),
        "floor_flops_ms": milliseconds(least.flops_ms),
        "floor_bytes_ms": milliseconds(least.bytes_ms),
        "floor_launches_ms": milliseconds(least.launches_ms),
        "times_floor": round(float(np.median(chunk_ms)) / least.products_ms, 3),
    }


def _missing_row(missing: Missing) -> Row:
    row: Row = {"backend": missing.backend, "precision": missing.precision}
    if missing.work is not None:
        row |= dict(zip(("loops", "steps", "batch"), missing.work, strict=True))
    return row | {"reason": missing.reason}


def _references(
    results: Sequence[ArmResult], bundle: Bundle, probes: Probes
) -> dict[tuple[int, int], np.ndarray]:
    policy = load_any(bundle.path).policy
    wanted = dict.fromkeys((result.arm.loops, result.arm.steps) for result in results)
    return {(k, steps): reference_chunks(policy, probes, k, steps) for k, steps in wanted}


def make_loop_costs(
    results: Sequence[ArmResult], yardsticks: Mapping[str, Yardstick], clock: str, seed: int
) -> list[Row]:
    """The line of the median, by `clock`, over K, of each back end, precision, steps and batch
    that has two K or more."""
    lines: dict[tuple[str, str, int, int], dict[int, ArmResult]] = {}
    for result in results:
        arm = result.arm
        key = (arm.backend, arm.precision, arm.steps, arm.batch)
        lines.setdefault(key, {})[arm.loops] = result
    found: list[Row] = []
    for key, line in lines.items():
        cost = loop_cost({k: result.chunk_ms(clock) for k, result in line.items()}, seed)
        if cost is None:
            continue
        row: Row = dict(zip(("backend", "precision", "steps", "batch"), key, strict=True))
        row |= {"loops": sorted(line), **cost.to_dict()}
        device = next(iter(line.values())).facts.device
        yardstick = yardsticks.get(yardstick_name(device, key[1]))
        if yardstick is not None:
            least = [yardstick.floor(line[k].arm).products_ms for k in row["loops"]]
            slope, intercept = np.polyfit(row["loops"], least, 1)
            row |= {
                "floor_slope_ms": milliseconds(slope),
                "floor_intercept_ms": milliseconds(intercept),
            }
        found.append(row)
    return found


def timed(rows: Sequence[Row]) -> list[Row]:
    """Those that were measured."""
    return [row for row in rows if "reason" not in row]


def _round_medians(samples_ms: np.ndarray) -> list[float | None]:
    return [milliseconds(value) for value in np.median(samples_ms, axis=1)]


def write_json(folder: Path, results: Mapping[str, Any]) -> None:
    """Raises ConfigError where the folder cannot be written to."""
    write_text(folder / JSON_FILE, json.dumps(results, indent=1) + "\n")


def write_csv(folder: Path, rows: Sequence[Row]) -> None:
    """One line for each row; an interval is three columns, and samples of rounds are left out."""
    flat = [_flat(row) for row in rows]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    write_text(folder / CSV_FILE, out.getvalue())


def _flat(row: Row) -> Row:
    found: Row = {}
    for name, value in row.items():
        if isinstance(value, dict):
            found |= {name: value["value"], f"{name}_low": value["low"]}
            found[f"{name}_high"] = value["high"]
        elif not isinstance(value, list):
            found[name] = value
    return found


def write_text(path: Path, text: str) -> None:
    """Whole or not at all. Raises ConfigError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as aside:
            aside.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}. Choose another out=.") from error
