"""Run what is missing of experiments, over workers that may die, and keep each result as it comes.

A run is one job. What another experiment has found for the same study, options and seed is taken
over and not run again. What is left is told in time, by how long like runs took. A run that fails,
by what is no number or by killing its worker each time, is kept as a failure with its reason, and
the others go on.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from loopdit.errors import ConfigError, LoopditError
from loopdit.eval.experiments.plan import Run, resolve
from loopdit.eval.experiments.remaining import Durations, about
from loopdit.eval.experiments.store import CellResult, find, first_not_finite, result_path, save
from loopdit.eval.experiments.studies.study import NotFinite, study_named
from loopdit.eval.runs.pools import open_pool
from loopdit.eval.runs.worker_pool import ATTEMPTS, Finished, InProcess, Pool
from loopdit.folder_lock import alone_in
from loopdit.machine import machine_and_versions
from loopdit.progress import Progress


@dataclass(frozen=True)
class Tally:
    """What came of the runs that were asked for: run now, found already, failed (their reasons)."""

    run: int
    found: int
    failed: tuple[str, ...]


def run_all(runs: Sequence[Run], out: Path, workers: int, launcher: str, device: str) -> Tally:
    """Do those of `runs` that have no result in `out`. Raises ConfigError where another process
    runs one of the experiments there, or a stored result cannot be read."""
    with ExitStack() as held:
        for folder in sorted({result_path(out, run).parent for run in runs}):
            folder.mkdir(parents=True, exist_ok=True)
            busy = ConfigError(f"another run writes to {folder}. Wait for it, or change out=.")
            held.enter_context(alone_in(folder, busy))
        start = partial(start_worker, device)
        alone = workers == 1 and launcher == "processes"
        pool: Pool[Run, CellResult] = (
            InProcess(start()) if alone else open_pool(start, workers, launcher)
        )
        progress = held.enter_context(Progress("experiments", 1.0))
        held.enter_context(closing(pool))
        return _Keeper(out, progress, workers).keep(runs, pool)


class _Keeper:
    """Saves, counts, and tells how much is left: a share of the seconds, not of the runs."""

    def __init__(self, out: Path, progress: Progress, workers: int) -> None:
        self._out = out
        self._progress = progress
        self._workers = workers
        self._durations = Durations()
        self._left: dict[str, Run] = {}
        self._spent = 0.0
        self._found = 0
        self._run = 0
        self._failed: list[str] = []

    def keep(self, runs: Sequence[Run], pool: Pool[Run, CellResult]) -> Tally:
        """Every run, found or done."""
        self._look_ahead(runs)
        for finished in pool.run(self._missing(runs)):
            run, result = finished.job, _result(finished)
            save(self._out, run, result)
            self._run += 1
            self._spent += result.wall_s
            self._left.pop(run.config_hash, None)
            if result.error:
                self._failed.append(f"{run.experiment} {run.cell} seed {run.seed}: {result.error}")
            else:
                self._durations.note(run, result.wall_s)
            self._say(f"{run.experiment} {run.cell}, {len(self._left)} runs left")
        return Tally(self._run, self._found, tuple(self._failed))

    def _look_ahead(self, runs: Sequence[Run]) -> None:
        """Which are left, and how long those that are not took."""
        for run in runs:
            result = find(self._out, run)
            if result is None:
                self._left[run.config_hash] = run
            else:
                self._durations.note(run, result.wall_s)
        if self._left:
            seconds = self._durations.left(self._left.values())
            told = "" if seconds is None else f", about {about(seconds / self._workers)}"
            workers = "worker" if self._workers == 1 else "workers"
            self._say(f"{len(self._left)} runs left{told} on {self._workers} {workers}")

    def _missing(self, runs: Sequence[Run]) -> Iterator[Run]:
        """Asked for one at a time, so that what was found meanwhile is not run again."""
        for run in runs:
            result = find(self._out, run)
            if result is None:
                yield run
                continue
            if not result_path(self._out, run).exists():
                save(self._out, run, result)
            self._found += 1
            self._left.pop(run.config_hash, None)

    def _say(self, text: str) -> None:
        failed = f", {len(self._failed)} failed" if self._failed else ""
        left = self._durations.left(self._left.values())
        share = 0.0 if left is None else self._spent / max(self._spent + left, 1e-9)
        self._progress.update(share, f"{text}{failed}")


def start_worker(device: str) -> "partial[CellResult]":
    """What does one run. Each worker computes on one thread, so that results do not depend on how
    many there are."""
    torch.set_num_threads(1)
    return partial(do, device)


def do(device: str, run: Run) -> CellResult:
    """The result of a run, or its failure where it ended in an error of ours: what is no number, a
    task or a measure that is not possible."""
    study = study_named(run.study)
    began = time.monotonic()
    failed = partial(_failure, run, _provenance(device))
    try:
        outcome = study.run(resolve(study, run.options), run.seed, torch.device(device))
        bad = first_not_finite(outcome.metrics)
        if bad is not None:
            raise NotFinite(f"{bad} is {outcome.metrics[bad]}.")
    except LoopditError as error:
        return failed(str(error))
    return replace(
        failed(""),
        metrics=outcome.metrics,
        curve=outcome.curve,
        parameters=outcome.parameters,
        wall_s=round(time.monotonic() - began, 3),
    )


def require_device(device: str) -> str:
    """`device`, with auto told. Raises ConfigError where it is not there."""
    there = torch.cuda.is_available()
    if device == "auto":
        return "cuda" if there else "cpu"
    if device not in ("cpu", "cuda"):
        raise ConfigError(f"device={device} is unknown. Use auto, cpu or cuda.")
    if device == "cuda" and not there:
        raise ConfigError("device=cuda: torch sees no CUDA device here. Use device=cpu.")
    return device


@cache
def _provenance(device: str) -> dict[str, Any]:
    return {**machine_and_versions(), "device": device}


def _result(finished: Finished[Run, CellResult]) -> CellResult:
    if finished.result is not None:
        return finished.result
    return _failure(finished.job, {}, f"its worker process died, {ATTEMPTS} times in a row.")


def _failure(run: Run, provenance: dict[str, Any], error: str) -> CellResult:
    """Of a run that came to nothing."""
    return CellResult(
        experiment=run.experiment,
        number=run.number,
        scale=run.scale,
        factors=run.factors,
        seed=run.seed,
        metrics={},
        curve=None,
        config_hash=run.config_hash,
        options=run.options,
        parameters=0,
        wall_s=0.0,
        provenance=provenance,
        error=error,
    )
