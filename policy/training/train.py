"""`policy-train`: behaviour cloning from an episode store to a checkpoint."""

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from loopdit.command import Command, run_command
from loopdit.datasets.statistics import compute_statistics
from loopdit.datasets.store import EpisodeStore
from loopdit.datasets.windows import WindowSampler
from loopdit.errors import CheckpointError, ConfigError
from loopdit.machine import usable_cores
from loopdit.policy.checkpoint import (
    MANIFEST,
    load_checkpoint,
    load_training_state,
    save_checkpoint,
)
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.training.config import TrainConfig
from loopdit.policy.training.trainer import Trainer
from loopdit.progress import Progress, clock_text
from loopdit.whole_file import require_folder, whole_file

METRICS = "metrics.jsonl"
_LOG_EVERY_STEPS = 50

COMMAND = Command(
    name="policy-train",
    folder="train",
    summary="behaviour cloning of a looped DiT from demonstrations, to a checkpoint.",
    examples=(
        "policy-train data=outputs/demonstrations.zarr out=outputs/checkpoint",
        "policy-train recipe=lift",
        "policy-train out=outputs/checkpoint resume=true",
        "policy-train -m policy.width=128,192 out='outputs/width-${policy.width}'",
    ),
)


def train(config: TrainConfig, clock: Callable[[], float] = time.monotonic) -> Path:
    """Run or resume a training; returns the checkpoint's folder.

    Raises ConfigError, StoreError, SpecMismatch or CheckpointError before any work is lost.
    """
    out = Path(config.out)
    device = _device(config.device)
    torch.set_num_threads(config.threads or usable_cores())
    _refuse_to_overwrite(config, out)
    store = EpisodeStore.open(config.data)
    require_folder(out)
    provenance = _provenance(config, store, device)
    torch.manual_seed(config.seed)
    policy = LoopedPolicy(store.spec, config.policy)
    policy.normalizer.fit(compute_statistics(store))
    trainer = Trainer(policy, config, device)
    if config.resume:
        _resume(trainer, out, provenance)
    else:
        (out / METRICS).unlink(missing_ok=True)
    sampler = WindowSampler(store, policy.horizon, config.batch_size, config.seed)
    size = sum(p.numel() for p in policy.parameters())
    sys.stdout.write(
        f"{len(store.episodes)} episodes, {sampler.windows} windows; "
        f"{size:,} parameters, K = 1..{policy.max_loops}; {device}, "
        f"{torch.get_num_threads()} threads\n"
    )
    if trainer.step >= config.steps:
        sys.stdout.write(f"nothing to do: {out} has its {trainer.step} steps\n")
        return out
    try:
        _loop(trainer, sampler, out, provenance, clock)
    except KeyboardInterrupt:
        _save(trainer, out, provenance)
        sys.stdout.write(f"\nsaved step {trainer.step}; go on with resume=true\n")
        raise
    _save(trainer, out, provenance)
    sys.stdout.write(
        f"{trainer.step} steps in {clock_text(trainer.elapsed_s)} -> {out}\n"
        f"next: policy-export checkpoint={out}\n"
    )
    return out


def _loop(
    trainer: Trainer,
    sampler: WindowSampler,
    out: Path,
    provenance: dict[str, Any],
    clock: Callable[[], float],
) -> None:
    started, spent = clock(), trainer.elapsed_s
    saved = started
    recent: list[torch.Tensor] = []
    note = ""
    with Progress("train", 1.0, clock, already=trainer.progress) as progress:
        while trainer.progress < 1:
            recent.append(trainer.train_step(sampler.batch(trainer.step)))
            now = clock()
            trainer.elapsed_s = spent + now - started
            due = now - saved >= trainer.config.save_every_s
            if trainer.step % _LOG_EVERY_STEPS == 0 or trainer.progress >= 1 or due:
                losses = torch.stack(recent).mean(0).tolist()
                recent.clear()
                _require_finite(losses, trainer)  # before a save could replace a good checkpoint
                _log(out, trainer, losses)
                per_loop = " ".join(f"K{k}={loss:.3f}" for k, loss in enumerate(losses, 1))
                note = f"step {trainer.step}  loss {per_loop}"
            progress.update(trainer.progress, note)
            if due:
                _save(trainer, out, provenance)
                saved = now


def _require_finite(losses: list[float], trainer: Trainer) -> None:
    if not all(map(math.isfinite, losses)):
        raise ConfigError(
            f"the loss is not finite at step {trainer.step}. "
            f"Lower learning_rate={trainer.config.learning_rate}."
        )


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda, but PyTorch finds no CUDA device. Use device=cpu.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _refuse_to_overwrite(config: TrainConfig, out: Path) -> None:
    there = (out / MANIFEST).exists()
    if there and not (config.resume or config.overwrite):
        raise CheckpointError(
            f"{out} already holds a checkpoint. Go on with resume=true, replace it with "
            f"overwrite=true, or choose another out=."
        )
    if config.resume and not there:
        raise CheckpointError(f"{out} holds no checkpoint to resume. Leave out resume=true.")


def _resume(trainer: Trainer, out: Path, provenance: dict[str, Any]) -> None:
    """Load the state in `out`, unless it belongs to other data or another model."""
    before = load_checkpoint(out)
    before.policy.spec.require_equal(
        trainer.policy.spec,
        mine=f"the checkpoint {out}",
        theirs=f"the data set {trainer.config.data}",
        remedy="Resume with the data it was trained on, or choose another out=.",
    )
    if before.policy.config != trainer.config.policy:
        raise CheckpointError(
            f"{out} has policy={before.policy.config}; asked for {trainer.config.policy}. "
            f"Resume with the same policy options."
        )
    if before.provenance["data_digest"] != provenance["data_digest"]:
        raise CheckpointError(
            f"{out} was trained on other episodes than {trainer.config.data} holds now. "
            f"Resume with the same data, or start afresh with overwrite=true."
        )
    _require_same_options(before.provenance["config"], trainer.config, out)
    trainer.load_state(load_training_state(out))
    _forget_later_metrics(out / METRICS, trainer.step)
    sys.stdout.write(f"resuming at step {trainer.step}\n")


# What may differ when a run goes on: how long, where and how often, but not what is computed.
_FREE_ON_RESUME = frozenset(
    {"data", "out", "steps", "minutes", "device", "threads", "save_every_s", "resume", "overwrite"}
)


def _require_same_options(before: dict[str, Any], config: TrainConfig, out: Path) -> None:
    now = asdict(config)
    changed = [
        f"{name}={now[name]} where it had {before.get(name)}"
        for name in now
        if name not in _FREE_ON_RESUME and now[name] != before.get(name)
    ]
    if changed:
        raise CheckpointError(
            f"{out} was trained with other options: {'; '.join(changed)}. Resume with the same "
            f"ones, or start afresh with overwrite=true."
        )


def _forget_later_metrics(path: Path, step: int) -> None:
    """Drop what a killed run logged after its last checkpoint: those steps are done again."""
    if path.exists():
        rows = [line for line in path.read_text().splitlines() if line.endswith("}")]
        kept = [line for line in rows if json.loads(line)["step"] <= step]
        with whole_file(path) as aside:
            aside.write_text("".join(line + "\n" for line in kept))


def _provenance(config: TrainConfig, store: EpisodeStore, device: torch.device) -> dict[str, Any]:
    seeds = [record.seed for record in store.episodes]
    return {
        "config": asdict(config),
        "data_digest": store.digest(),
        # First and last: an evaluation on one of them is refused.
        "data_seeds": [min(seeds), max(seeds)],
        "data_provenance": store.provenance,
        "episodes": len(store.episodes),
        "device": str(device),
        "versions": {name: version(name) for name in ("loopdit", "torch", "numpy", "zarr")},
    }


def _save(trainer: Trainer, out: Path, provenance: dict[str, Any]) -> None:
    found = {**provenance, "step": trainer.step, "elapsed_s": round(trainer.elapsed_s, 1)}
    save_checkpoint(out, trainer.average, found, trainer.state())


def _log(out: Path, trainer: Trainer, losses: list[float]) -> None:
    """One line of JSON for programs; the numbers on the screen are the same."""
    row = {
        "step": trainer.step,
        "elapsed_s": round(trainer.elapsed_s, 2),
        "loss": {str(k): round(loss, 5) for k, loss in enumerate(losses, 1)},
        "learning_rate": trainer.optimizer.param_groups[0]["lr"],
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        with (out / METRICS).open("a") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        raise CheckpointError(
            f"cannot write {out / METRICS}: {error.strerror}. Free space or choose another out=; "
            f"the last checkpoint there is intact."
        ) from error


def main() -> None:
    """Entry point."""
    run_command(COMMAND, TrainConfig, train)


if __name__ == "__main__":
    main()
