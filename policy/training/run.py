"""A run of a training in its folder: alone there, with its metrics, from first step to last.

Knows no model and no data: both trainings, of looped policies and of grafted ones, run so.
"""

import shutil
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from accelerate import Accelerator

from loopdit.datasets.loader import Batches, Sampler
from loopdit.errors import CheckpointError
from loopdit.folder_lock import alone_in
from loopdit.policy.checkpoint import CheckpointContent
from loopdit.policy.training.closed_loop import (
    BEST,
    ClosedLoop,
    EvaluateConfig,
    forget,
    require_evaluable,
)
from loopdit.policy.training.logs import new_run
from loopdit.policy.training.loop import TrainingLoop
from loopdit.policy.training.metrics import METRICS, forget_later_rows, read_rows
from loopdit.policy.training.steps import RunOptions
from loopdit.progress import clock_text
from loopdit.whole_file import require_folder


@contextmanager
def folder_of_its_own(out: Path, accelerator: Accelerator) -> Generator[None]:
    """Make `out`, for this training alone as long as it runs."""
    if not accelerator.is_main_process:
        yield
        return
    require_folder(out)
    busy = CheckpointError(
        f"another training writes to {out}. Wait for it, or choose another out=."
    )
    with alone_in(out, busy):
        yield


def require_room(needed: int, out: Path) -> None:
    """Raise CheckpointError where the disk is too full already for a checkpoint of so many
    bytes."""
    free = shutil.disk_usage(out).free
    if free < needed:
        raise CheckpointError(
            f"a checkpoint needs {needed / 1e6:,.0f} MB beside what is in {out}, where "
            f"{free / 1e6:,.0f} MB are free. Free space or choose another out=."
        )


def try_evaluation(
    config: EvaluateConfig, out: Path, max_loops: int, content: CheckpointContent
) -> None:
    """Before anything of an earlier training in `out` is removed."""
    sys.stdout.write(f"trying one episode in evaluate.env={config.env}\n")
    sys.stdout.flush()
    require_evaluable(config, out, max_loops, content)


def prepare_metrics(config: RunOptions, step: int, out: Path) -> None:
    """Keep the rows up to `step` of a run that goes on, none of one that begins."""
    if config.resume:
        forget_later_rows(out, step)
        sys.stdout.write(f"resuming at step {step}\n")
    else:
        (out / METRICS).unlink(missing_ok=True)
        new_run(out)
        forget(out)


def run_steps(
    loop: TrainingLoop, sampler: Sampler, config: RunOptions, out: Path, exported: bool
) -> None:
    """All steps that are left, with what is evaluated beside them. `exported`: whether the policy
    can be, which is said at the end."""
    trainer = loop.trainer
    accelerator = trainer.accelerator
    part = (accelerator.process_index, accelerator.num_processes)
    best, begun_at = None, trainer.step
    try:
        if config.evaluate.env and accelerator.is_main_process:
            loop.closed_loop = _closed_loop(loop, config.evaluate, out)
        if trainer.progress < 1:
            with Batches(sampler, trainer.step, config.workers, part) as batches:
                loop.run(batches)
        else:
            loop.say(f"nothing to do: {out} has its {trainer.step} steps")
        if loop.closed_loop is not None:
            loop.closed_loop.snapshot(trainer.step, loop.content(with_state=False))
            best = loop.closed_loop.finish()
    finally:
        if loop.closed_loop is not None:
            loop.closed_loop.close()
    if trainer.step > begun_at:
        loop.say(f"{trainer.step} steps in {clock_text(trainer.elapsed_s)} -> {out}")
    chosen = out
    if loop.patience.most and loop.patience.step:
        chosen = out / BEST
        early = f" (ended after {config.patience} without a better one)" * loop.patience.over
        loop.say(
            f"best: step {loop.patience.step}, held-out error {loop.patience.best:.3f}{early} -> "
            f"{chosen}"
        )
    if best is not None:
        chosen = out / BEST
        loop.say(
            f"best: step {best.step}, {best.successes} of {best.episodes} succeed in "
            f"{config.evaluate.env} -> {chosen}"
        )
    if exported:
        loop.say(f"next: policy-export checkpoint={chosen}")


def _closed_loop(loop: TrainingLoop, config: EvaluateConfig, out: Path) -> ClosedLoop:
    closed_loop = ClosedLoop(config, out, loop.trainer.depths[-1], loop.say, loop.record)
    closed_loop.take_up(loop.trainer.step)
    # What was measured while no training ran to note it.
    noted = {row["step"] for row in read_rows(out) if "evaluation" in row}
    for result in closed_loop.results:
        if result.step not in noted:
            loop.record(result)
    return closed_loop
