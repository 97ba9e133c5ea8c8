"""`policy-train`: behaviour cloning from episode stores to a checkpoint."""

import shutil
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from loopdit.command import Command, run_command
from loopdit.datasets.loader import Batches
from loopdit.datasets.windows import WindowSampler
from loopdit.errors import CheckpointError
from loopdit.folder_lock import alone_in
from loopdit.policy.checkpoint import CheckpointContent
from loopdit.policy.looped_dit_config import DENSE, ONE_WAY, LoopedDiTConfig, depths_text
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.objectives.objective import DDIM, DDPM
from loopdit.policy.training.augmentation import require_possible
from loopdit.policy.training.closed_loop import BEST, ClosedLoop, forget, require_evaluable
from loopdit.policy.training.config import TrainConfig
from loopdit.policy.training.data import TrainingData, open_data
from loopdit.policy.training.logs import LogConfig, new_run, open_loggers, require_packages
from loopdit.policy.training.loop import TrainingLoop
from loopdit.policy.training.metrics import METRICS, forget_later_rows, read_rows
from loopdit.policy.training.normalization import fit_normalizer
from loopdit.policy.training.processes import end_process, joined_processes
from loopdit.policy.training.resuming import (
    begun_from,
    refuse_to_overwrite,
    require_same_run,
    resume,
)
from loopdit.policy.training.reuse import start_from
from loopdit.policy.training.trainer import Trainer
from loopdit.progress import clock_text
from loopdit.whole_file import require_folder

COMMAND = Command(
    name="policy-train",
    folder="train",
    summary="behaviour cloning of a looped DiT from demonstrations, to a checkpoint.",
    examples=(
        "policy-train data=outputs/demonstrations.zarr out=outputs/checkpoint",
        "policy-train recipe=lift",
        "policy-train out=outputs/checkpoint resume=true",
        "policy-train data=[a.zarr,b.zarr] weights=[0.7,0.3]",
        "policy-train data=mine.zarr init=outputs/bundle out=outputs/tuned",
        "policy-train data=lift.zarr evaluate.env=lift log.tensorboard=true",
        "policy-train -m policy.width=128,192 out='outputs/width-${policy.width}'",
        "torchrun --nproc-per-node=4 -m loopdit.policy.training.train precision=bf16",
    ),
)


def train(config: TrainConfig, clock: Callable[[], float] = time.monotonic) -> Path:
    """Run or resume a training; returns the checkpoint's folder.

    Raises ConfigError, StoreError, SpecMismatch or CheckpointError before any work is lost.
    """
    out = Path(config.out)
    with joined_processes(
        config.device, config.precision, config.compile, config.threads
    ) as accelerator:
        refuse_to_overwrite(config, out)
        require_packages(config.log)
        data = open_data(config)
        torch.manual_seed(config.seed)
        policy = LoopedPolicy(data.spec, data.policy)
        require_possible(config.augment, policy.spec, policy.config.instruction)
        statistics = data.statistics()
        fit_normalizer(policy, statistics, config.normalize)
        provenance = _provenance(config, data, accelerator)
        reuse = None
        if config.resume:
            provenance |= begun_from(require_same_run(config, policy, provenance, out))
        elif config.init:
            reuse = start_from(policy, config.init, config.init_statistics)
            provenance["init"] = reuse.provenance()
        sampler = data.sampler()
        if accelerator.is_main_process:
            notes = (*data.notes, *sampler.notes, *_not_to_be_exported(policy.config))
            _introduce(config, data, policy, accelerator, notes)
            if reuse is not None:
                sys.stdout.write(reuse.table())
        with _folder_of_its_own(out, accelerator):
            if accelerator.is_main_process:
                _require_room(policy, out)
            trainer = Trainer(policy, config, accelerator, sampler.instructions)
            state = resume(trainer, out) if config.resume else None
            if accelerator.is_main_process and config.evaluate.env:
                _try_evaluation(config, trainer, out, provenance)
            data.decode(sampler, range(trainer.step, config.steps))
            if accelerator.is_main_process:
                _prepare_metrics(config, trainer, out)
            with open_loggers(
                config.log if accelerator.is_main_process else LogConfig(),
                out,
                asdict(config),
                trainer.step,
            ) as loggers:
                validation = data.validation_on(statistics["action"].mean)
                loop = TrainingLoop(trainer, sampler, out, provenance, clock, validation, loggers)
                if state is not None:
                    loop.go_on_from(state)
                _run(loop, sampler, config, out)
    return out


def _run(loop: TrainingLoop, sampler: WindowSampler, config: TrainConfig, out: Path) -> None:
    trainer = loop.trainer
    accelerator = trainer.accelerator
    part = (accelerator.process_index, accelerator.num_processes)
    best, begun_at = None, trainer.step
    try:
        if config.evaluate.env and accelerator.is_main_process:
            loop.closed_loop = _closed_loop(loop, config, out)
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
    if best is not None:
        chosen = out / BEST
        loop.say(
            f"best: step {best.step}, {best.successes} of {best.episodes} succeed in "
            f"{config.evaluate.env} -> {chosen}"
        )
    if not any(_not_to_be_exported(trainer.policy.config)):
        loop.say(f"next: policy-export checkpoint={chosen}")


def _try_evaluation(
    config: TrainConfig, trainer: Trainer, out: Path, provenance: dict[str, Any]
) -> None:
    """Before anything of an earlier training in `out` is removed."""
    sys.stdout.write(f"trying one episode in evaluate.env={config.evaluate.env}\n")
    sys.stdout.flush()
    content = CheckpointContent.of(trainer.average, provenance)
    require_evaluable(config.evaluate, out, trainer.policy.max_loops, content)


def _closed_loop(loop: TrainingLoop, config: TrainConfig, out: Path) -> ClosedLoop:
    policy = loop.trainer.policy
    closed_loop = ClosedLoop(config.evaluate, out, policy.max_loops, loop.say, loop.record)
    closed_loop.take_up(loop.trainer.step)
    # What was measured while no training ran to note it.
    noted = {row["step"] for row in read_rows(out) if "evaluation" in row}
    for result in closed_loop.results:
        if result.step not in noted:
            loop.record(result)
    return closed_loop


@contextmanager
def _folder_of_its_own(out: Path, accelerator: Accelerator) -> Generator[None]:
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


def _require_room(policy: LoopedPolicy, out: Path) -> None:
    """Raise CheckpointError where the disk is too full already for one more checkpoint."""
    size = sum(4 * p.numel() for p in policy.parameters())
    needed = 4 * size  # the average, the weights, and the optimizer's two of each
    free = shutil.disk_usage(out).free
    if free < needed:
        raise CheckpointError(
            f"a checkpoint needs {needed / 1e6:,.0f} MB beside what is in {out}, where "
            f"{free / 1e6:,.0f} MB are free. Free space or choose another out=."
        )


def _introduce(
    config: TrainConfig,
    data: TrainingData,
    policy: LoopedPolicy,
    accelerator: Accelerator,
    notes: tuple[str, ...],
) -> None:
    size = sum(p.numel() for p in policy.parameters())
    held = sum(len(part.episodes) for part in data.validation)
    windows = sum(
        part.store.episodes[index].length for part in data.training for index in part.episodes
    )
    several = f", {accelerator.num_processes} processes" if accelerator.num_processes > 1 else ""
    for note in notes:
        sys.stdout.write(f"{note}\n")
    sys.stdout.write(
        f"{data.episodes} episodes, {windows} windows{f', {held} held out' if held else ''}; "
        f"{size:,} parameters, K = {depths_text(policy.depths)}; {accelerator.device}, "
        f"{torch.get_num_threads()} threads{several}\n"
        f"{'at most ' if config.minutes else ''}{config.steps} steps of {config.batch_size} "
        f"windows: {config.steps * config.batch_size / windows:.1f} times through the data\n"
    )
    if config.compile:
        sys.stdout.write("compiling in the first step, which takes a minute or several\n")
    sys.stdout.flush()


def _not_to_be_exported(config: LoopedDiTConfig) -> Generator[str]:
    """What policy-export would say, hours later."""
    if config.objective.chosen_sampler == DDPM:
        yield (
            f"policy.objective.sampler={DDPM} draws noise at each step, which an exported graph "
            f"does not: this policy cannot be exported. Train with {DDIM} to export it."
        )
    if config.topology == DENSE:
        yield (
            f"policy.topology={DENSE} is for comparisons: this policy cannot be exported. Train "
            f"with {ONE_WAY} to export it."
        )


def _prepare_metrics(config: TrainConfig, trainer: Trainer, out: Path) -> None:
    if config.resume:
        forget_later_rows(out, trainer.step)
        sys.stdout.write(f"resuming at step {trainer.step}\n")
    else:
        (out / METRICS).unlink(missing_ok=True)
        new_run(out)
        forget(out)


def _provenance(
    config: TrainConfig, data: TrainingData, accelerator: Accelerator
) -> dict[str, Any]:
    return {
        "config": asdict(config),
        **data.provenance(),
        "device": str(accelerator.device),
        "processes": accelerator.num_processes,
        "versions": {
            name: version(name) for name in ("loopdit", "torch", "accelerate", "numpy", "zarr")
        },
    }


def main() -> None:
    """Entry point."""
    run_command(COMMAND, TrainConfig, train)
    end_process()


if __name__ == "__main__":
    main()
