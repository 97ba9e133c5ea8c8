"""Results on the disk: one JSON file for each cell and seed, written whole.

    OUT/<scale>/<experiment>/<cell>-<seed>-<first 8 of the hash>.json
    OUT/<scale>/<experiment>/<cell>-<seed>-<first 8 of the hash>.failed.json

A failed one says why in `error`, has no metrics, and is tried again by the next run. Files that
are no results of this format are refused, not skipped.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from loopdit.errors import ConfigError
from loopdit.eval.experiments.experiment import Experiment
from loopdit.eval.experiments.plan import Run, runs_of
from loopdit.whole_file import whole_file

FORMAT, VERSION = "loopdit-experiment-cell", 1
_FAILED = ".failed.json"


@dataclass(frozen=True)
class CellResult:
    """What came of one run. `curve`: columns of equal length, by name; `error`: "" where it ran.

    `wall_s` is of the machine in `provenance`; everything else but that follows from the hash.
    """

    experiment: str
    number: int | None
    scale: str
    factors: Mapping[str, str]
    seed: int
    metrics: Mapping[str, float]
    curve: Mapping[str, Sequence[float]] | None
    config_hash: str
    options: Mapping[str, Any]
    parameters: int
    wall_s: float
    provenance: Mapping[str, Any]
    error: str = ""


def result_path(out: Path, run: Run) -> Path:
    """Where the result of a run goes."""
    name = f"{run.cell}-{run.seed}-{run.config_hash[:8]}.json"
    return out / run.scale / run.experiment / name


def save(out: Path, run: Run, result: CellResult) -> Path:
    """Write a result, or a failure; a success takes the place of an earlier failure."""
    path = result_path(out, run)
    failed = path.with_name(path.name.removesuffix(".json") + _FAILED)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(
        {"format": FORMAT, "version": VERSION, **asdict(result)}, indent=1, allow_nan=False
    )
    with whole_file(failed if result.error else path) as aside:
        aside.write_text(text + "\n", "utf-8")
    if not result.error:
        failed.unlink(missing_ok=True)
    return path


def find(out: Path, run: Run) -> CellResult | None:
    """The result of a run, where it has one; one that another experiment made of the same study,
    options and seed counts, as this run's."""
    own = result_path(out, run)
    if own.exists():
        return load(own)
    pattern = f"*/*-{run.seed}-{run.config_hash[:8]}.json"
    for path in sorted((out / run.scale).glob(pattern)):
        result = load(path)
        if result.config_hash == run.config_hash:
            return replace(
                result, experiment=run.experiment, number=run.number, factors=run.factors
            )
    return None


def load(path: Path) -> CellResult:
    """Raises ConfigError for a file that is no result of this format and version."""
    try:
        found: Any = json.loads(path.read_text("utf-8"), parse_constant=_refuse_constant)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as a result: {error}. Remove it.") from error
    if not isinstance(found, dict) or cast(Any, found).get("format") != FORMAT:
        raise ConfigError(f"{path} is no result of an experiment. Remove it.")
    fields = cast(dict[str, Any], found)
    if fields.get("version") != VERSION:
        raise ConfigError(
            f"{path} has version {fields.get('version')}; this program reads {VERSION}. "
            f"Remove it, and it is run again."
        )
    try:
        return CellResult(**{k: v for k, v in fields.items() if k not in ("format", "version")})
    except TypeError as error:
        raise ConfigError(f"{path} is no whole result: {error}. Remove it.") from error


def results(out: Path, experiment: Experiment, scale: str) -> list[CellResult]:
    """The successes of an experiment as it is declared now, in the order of its cells, then by
    seed. Results of other options that lie there too are left out."""
    return list(_valid(out, experiment, scale, failed=False))


def failures(out: Path, experiment: Experiment, scale: str) -> list[CellResult]:
    """Its failures, likewise."""
    return list(_valid(out, experiment, scale, failed=True))


def first_not_finite(metrics: Mapping[str, float]) -> str | None:
    """The name of the first metric that is not a number, or is infinite."""
    return next((name for name, value in metrics.items() if not math.isfinite(value)), None)


def _refuse_constant(name: str) -> float:
    """`json` reads NaN and Infinity, which no result is written with."""
    raise ValueError(f"{name} is no number")


def _valid(out: Path, experiment: Experiment, scale: str, failed: bool) -> Iterator[CellResult]:
    there = [
        load(path)
        for path in sorted((out / scale / experiment.name).glob("*.json"))
        if not path.name.startswith(".") and path.name.endswith(_FAILED) == failed
    ]
    seeds = max((result.seed for result in there), default=-1) + 1
    by_hash = {result.config_hash: result for result in there}
    for run in sorted(runs_of(experiment, scale, seeds), key=lambda run: run.index):
        if run.config_hash in by_hash:
            yield by_hash[run.config_hash]
