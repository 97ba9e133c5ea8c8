"""`policy-train graft`: behaviour cloning on a looped video model, to a checkpoint.

The videos are encoded once, into latents that are kept beside the data; then the graft is trained
on them as `policy-train` trains a looped policy, with the same run around the steps.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from loopdit.command import Command
from loopdit.datasets.mixing import DataPart
from loopdit.datasets.video.latent_store import LatentStore, latent_folder
from loopdit.datasets.video.latent_windows import LatentSampler
from loopdit.errors import ConfigError
from loopdit.policy.checkpoint import GRAFT
from loopdit.policy.graft.checkpoint import new_policy
from loopdit.policy.graft.config import BACKBONE
from loopdit.policy.graft.graft_policy import GraftPolicy
from loopdit.policy.graft.latents import encode_episodes
from loopdit.policy.graft.losses import ALL_LEVELS, SERVED
from loopdit.policy.graft.memory import Work, free_memory, require_fits
from loopdit.policy.graft.sharding import require_several
from loopdit.policy.graft.train_config import GraftTrainConfig
from loopdit.policy.graft.trainer import GraftTrainer
from loopdit.policy.graft.validation import GraftValidation
from loopdit.policy.looped_dit_config import depths_text
from loopdit.policy.objectives.depth import ALL, RANDOM
from loopdit.policy.training.data import TrainingData, open_data
from loopdit.policy.training.decoding import with_progress
from loopdit.policy.training.logs import LogConfig, open_loggers, require_packages
from loopdit.policy.training.loop import TrainingLoop
from loopdit.policy.training.normalization import fit_normalizer
from loopdit.policy.training.processes import ended_at_once, joined_processes, local_part
from loopdit.policy.training.resuming import refuse_to_overwrite, require_same_run, resume
from loopdit.policy.training.run import (
    folder_of_its_own,
    prepare_metrics,
    require_room,
    run_steps,
    try_evaluation,
)
from loopdit.subcommand import run_subcommand

COMMAND = Command(
    name="policy-train graft",
    folder="train_graft",
    summary="behaviour cloning on a looped video diffusion model, to a checkpoint.",
    examples=(
        "policy-train graft data=bridge.zarr model=CogVideoX-2b out=outputs/graft precision=bf16",
        "policy-train graft data=bridge.zarr video.height=64 video.width=96 steps=200",
        "policy-train graft recipe=paper data=bridge.zarr model=CogVideoX-2b",
        "policy-train graft recipe=halting data=bridge.zarr model=CogVideoX-2b",
        "policy-train graft out=outputs/graft data=bridge.zarr resume=true",
    ),
)


def train_graft(config: GraftTrainConfig, clock: Callable[[], float] = time.monotonic) -> Path:
    """Run or resume a training; returns the checkpoint's folder.

    Raises ConfigError, StoreError, SpecMismatch or CheckpointError before any work is lost.
    """
    out = Path(config.out)
    with joined_processes(
        config.device, config.precision, compiled=False, threads=config.threads, partial=True
    ) as accelerator:
        require_ours(accelerator.distributed_type)
        if config.shard:
            require_several(accelerator)
        refuse_to_overwrite(config, out)
        require_packages(config.log)
        data = open_data(config.data_options)
        torch.manual_seed(config.seed)
        options = replace(config.policy, instructions=list(data.policy.instructions))
        policy = new_policy(data.spec, options)
        _require_memory(config, policy, accelerator)
        statistics = data.statistics()
        fit_normalizer(policy, statistics, config.normalize)
        provenance = _provenance(config, data, accelerator)
        if config.resume:
            require_same_run(config, policy.spec, provenance, out, GRAFT)
        with folder_of_its_own(out, accelerator):
            if accelerator.is_main_process:
                require_room(_checkpoint_bytes(policy), out)
            latents = _encoded(config, data, policy, accelerator)
            sampler = _sampler(config, data, data.training, latents, config.batch_size)
            if accelerator.is_main_process:
                _introduce(config, data, policy, accelerator, sampler)
            trainer = GraftTrainer(policy, config, accelerator, sampler.instructions)
            state = resume(trainer, out) if config.resume else None
            if accelerator.is_main_process and config.evaluate.env:
                content = trainer.content(provenance, None)
                try_evaluation(config.evaluate, out, policy.max_loops, content)
            if accelerator.is_main_process:
                prepare_metrics(config, trainer.step, out)
            with open_loggers(
                config.log if accelerator.is_main_process else LogConfig(),
                out,
                asdict(config),
                trainer.step,
            ) as loggers:
                validation = _validation(config, data, latents, statistics["action"].mean)
                loop = TrainingLoop(trainer, sampler, out, provenance, clock, validation, loggers)
                if state is not None:
                    loop.go_on_from(state)
                run_steps(loop, sampler, config, out, exported=True)
    return out


def require_ours(kind: DistributedType) -> None:
    """Raise ConfigError where the launcher would have accelerate wrap the model otherwise: how
    weights are spread is said by shard=, and the launcher starts processes."""
    if kind in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        raise ConfigError(
            f"the launcher's configuration asks for {kind.value}, and policy-train graft spreads "
            f"weights itself, block by block (torch's FSDP2). Use shard=true with "
            f"configs/accelerate/ddp.yaml."
        )


def _encoded(
    config: GraftTrainConfig, data: TrainingData, policy: GraftPolicy, accelerator: Accelerator
) -> LatentStore:
    """The latents of all episodes; each process encodes its share of those that are missing."""
    parts = [*data.training, *data.validation]
    folder = latent_folder(config.latents, parts)
    encoder = policy.encoder.to(accelerator.device)
    share = (accelerator.process_index, accelerator.num_processes)
    found: list[LatentStore] = []
    with_progress(
        "encoding videos into latents",
        lambda tell: found.append(
            encode_episodes(parts, config.video, encoder, folder, tell, config.latents_batch, share)
        ),
        shown=local_part()[0] == 0,
    )
    accelerator.wait_for_everyone()
    return found[0]


def _sampler(
    config: GraftTrainConfig,
    data: TrainingData,
    parts: Sequence[DataPart],
    latents: LatentStore,
    batch_size: int,
    seed: int | None = None,
) -> LatentSampler:
    return LatentSampler(
        parts,
        latents,
        config.action_horizon,
        batch_size,
        config.seed if seed is None else seed,
        data.cache,
        actions=data.actions,
    )


def _validation(
    config: GraftTrainConfig, data: TrainingData, latents: LatentStore, mean: Sequence[float]
) -> GraftValidation | None:
    """Of the clips that are held out; None where nothing is."""
    if not data.validation:
        return None
    windows = sum(
        len(config.video.steps(part.store.episodes[index].length))
        for part in data.validation
        for index in part.episodes
    )
    size = GraftValidation.batch_size(windows)
    return GraftValidation(_sampler(config, data, data.validation, latents, size, 0), mean)


def _require_memory(
    config: GraftTrainConfig, policy: GraftPolicy, accelerator: Accelerator
) -> None:
    """Print what this will need. Raises ConfigError, with what would fit, where it is too much."""
    transformer = policy.graft.transformer
    trained = sum(p.numel() for p in policy.trained().values())
    every = sum(p.numel() for p in policy.graft.parameters())
    if accelerator.num_processes > 1 and not config.shard:  # DDP keeps it there
        every += sum(p.numel() for p in policy.encoder.parameters())
    in_graft = sum(p.numel() for p in policy.graft.trained().values())
    rows = -(-config.batch_size // (accelerator.num_processes * config.accumulate))
    work = Work(
        {k: v for k, v in dict(transformer.config).items() if not k.startswith("_")},
        config.graft,
        every - in_graft,
        trained,
        policy.latent_shape,
        rows,
        _passes(config),
        config.precision,
        config.checkpoint,
        accelerator.num_processes if config.shard else 1,
    )
    batch = config.batch_size // accelerator.num_processes
    free = free_memory(accelerator.device)
    if accelerator.device.type == "cpu":
        found = require_fits(work, batch, free // local_part()[1])  # they share it
    else:
        found = require_fits(work, batch, free, accelerator.num_processes)
    if accelerator.is_main_process:
        sys.stdout.write(f"{found.sentence()}\n")


def _passes(config: GraftTrainConfig) -> list[int]:
    """The K of each pass of a step, at its most expensive."""
    depths = list(config.graft.depths) if config.graft.looped == BACKBONE else [1]
    most = {ALL: depths, RANDOM: depths[-2:]}.get(config.depth.mode, depths[-1:])
    twice = config.levels == SERVED and config.video_weight > 0
    return [*most, *most] if twice else most


def _checkpoint_bytes(policy: GraftPolicy) -> int:
    """The average, the weights, and the optimizer's two of each; the video model, where whole."""
    trained = sum(4 * p.numel() for p in policy.trained().values())
    every = sum(4 * p.numel() for p in policy.parameters())
    return 4 * trained + (every if policy.config.whole else 0)


def _introduce(
    config: GraftTrainConfig,
    data: TrainingData,
    policy: GraftPolicy,
    accelerator: Accelerator,
    sampler: LatentSampler,
) -> None:
    for note in data.notes:
        sys.stdout.write(f"{note}\n")
    trained = sum(p.numel() for p in policy.trained().values())
    frozen = sum(p.numel() for p in policy.graft.parameters()) - sum(
        p.numel() for p in policy.graft.trained().values()
    )
    held = sum(len(part.episodes) for part in data.validation)
    sys.stdout.write(
        f"{data.episodes} episodes, {sampler.windows} clips{f', {held} held out' if held else ''}; "
        f"{trained:,} parameters trained beside {frozen:,} frozen, K = "
        f"{depths_text(policy.depths)}; {accelerator.device}, {torch.get_num_threads()} threads, "
        f"{accelerator.num_processes} process{'es' * (accelerator.num_processes > 1)}\n"
        f"{'at most ' if config.minutes else ''}{config.steps} steps of {config.batch_size} clips: "
        f"{config.steps * config.batch_size / sampler.windows:.1f} times through the data"
        f"{'' if config.levels == ALL_LEVELS else f', actions at level {config.noise_level}'}\n"
    )
    sys.stdout.flush()


def _provenance(
    config: GraftTrainConfig, data: TrainingData, accelerator: Accelerator
) -> dict[str, Any]:
    packages = ("loopdit", "torch", "diffusers", "accelerate", "numpy", "zarr")
    return {
        "config": asdict(config),
        **data.provenance(),
        "device": str(accelerator.device),
        "processes": accelerator.num_processes,
        "versions": {name: version(name) for name in packages},
    }


def main(arguments: Sequence[str]) -> None:
    """`policy-train graft` with what follows these words."""
    with ended_at_once():
        run_subcommand(COMMAND, GraftTrainConfig, train_graft, arguments, places=())


if __name__ == "__main__":
    main(sys.argv[1:])  # as `accelerate launch` and torchrun start it
