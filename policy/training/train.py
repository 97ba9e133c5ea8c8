"""`policy-train`: behaviour cloning from episode stores to a checkpoint."""

import sys
import time
from collections.abc import Callable, Generator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from loopdit.command import Command, run_command
from loopdit.policy.checkpoint import GRAFT, CheckpointContent
from loopdit.policy.looped_dit_config import DENSE, ONE_WAY, LoopedDiTConfig, depths_text
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.objectives.objective import DDIM, DDPM
from loopdit.policy.training.augmentation import require_possible
from loopdit.policy.training.config import TrainConfig
from loopdit.policy.training.data import TrainingData, open_data
from loopdit.policy.training.logs import LogConfig, open_loggers, require_packages
from loopdit.policy.training.loop import TrainingLoop
from loopdit.policy.training.normalization import fit_normalizer
from loopdit.policy.training.processes import ended_at_once, joined_processes
from loopdit.policy.training.resuming import (
    begun_from,
    refuse_to_overwrite,
    require_same_run,
    resume,
)
from loopdit.policy.training.reuse import start_from
from loopdit.policy.training.run import (
    folder_of_its_own,
    prepare_metrics,
    require_room,
    run_steps,
    try_evaluation,
)
from loopdit.policy.training.trainer import Trainer

SUBCOMMANDS = (GRAFT,)

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
        "policy-train graft model=CogVideoX-2b data=bridge.zarr  # see policy-train graft --help",
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
            provenance |= begun_from(require_same_run(config, policy.spec, provenance, out))
        elif config.init:
            reuse = start_from(policy, config.init, config.init_statistics)
            provenance["init"] = reuse.provenance()
        sampler = data.sampler()
        if accelerator.is_main_process:
            notes = (*data.notes, *sampler.notes, *_not_to_be_exported(policy.config))
            _introduce(config, data, policy, accelerator, notes)
            if reuse is not None:
                sys.stdout.write(reuse.table())
        with folder_of_its_own(out, accelerator):
            if accelerator.is_main_process:
                # The average, the weights, and the optimizer's two of each.
                require_room(4 * sum(4 * p.numel() for p in policy.parameters()), out)
            trainer = Trainer(policy, config, accelerator, sampler.instructions)
            state = resume(trainer, out) if config.resume else None
            if accelerator.is_main_process and config.evaluate.env:
                content = CheckpointContent.of(trainer.average, provenance)
                try_evaluation(config.evaluate, out, policy.max_loops, content)
            data.decode(sampler, range(trainer.step, config.steps))
            if accelerator.is_main_process:
                prepare_metrics(config, trainer.step, out)
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
                exported = not any(_not_to_be_exported(policy.config))
                run_steps(loop, sampler, config, out, exported)
    return out


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
    """Entry point. `policy-train graft` is another training, of a video model."""
    if sys.argv[1:2] == [GRAFT]:
        from loopdit.policy.graft.train import main as train_graft

        train_graft(sys.argv[2:])
        return
    with ended_at_once():
        run_command(COMMAND, TrainConfig, train)


if __name__ == "__main__":
    main()
