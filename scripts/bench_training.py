"""`make bench-training`: samples/s of policy-train's own loop, beside a bare loop over tensors.

The bare loop has its batches as tensors in memory before it begins, and does what any training
must: the same policy's losses, backward, AdamW. policy-train's loop besides reads its windows from
the store, averages the weights, clips, checks for what is not finite and reports. Both take turns
in blocks of some steps, in one process, so that other work on the machine slows both alike; a
ratio is of one repetition's two blocks. What is due now and then (a checkpoint, a validation) is
timed by itself and spread over the steps between two of them. Writes OUT/bench_training.json.

    python scripts/bench_training.py [--out FOLDER] [--sizes 64 128] [--repetitions N] [--steps N]
"""

import argparse
import copy
import io
import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from loopdit.datasets.loader import Batches
from loopdit.datasets.spec import PROPRIO, PolicySpec, TensorSpec
from loopdit.datasets.store import Episode, EpisodeWriter
from loopdit.datasets.windows import Batch, WindowSampler
from loopdit.machine import describe_machine, machine_and_versions
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.objectives.depth import plan_depth
from loopdit.policy.training.config import TrainConfig
from loopdit.policy.training.data import TrainingData, open_data
from loopdit.policy.training.loop import TrainingLoop
from loopdit.policy.training.normalization import fit_normalizer
from loopdit.policy.training.processes import joined_processes
from loopdit.policy.training.trainer import Trainer
from loopdit.whole_file import whole_file

EPISODES, LENGTH = 40, 50
PRELOADED = 24  # batches of the bare loop


def main() -> None:
    """Measure, write the record, show the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("outputs/bench-training"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="fp32")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    facts = machine_and_versions()
    rows = [_measure(size, options) for size in options.sizes]
    with whole_file(options.out / "bench_training.json") as aside:
        aside.write_text(json.dumps({"rows": rows, **facts}, indent=1) + "\n")
    sys.stdout.write(f"{_table(rows)}\n{describe_machine(facts)}\n")


def _measure(size: int, options: argparse.Namespace) -> dict[str, Any]:
    """One row of the table: two cameras of `size` pixels, the default model."""
    with TemporaryDirectory(dir=options.out) as folder:
        _record(Path(folder, "data"), size)
        config = TrainConfig(
            data=str(Path(folder, "data")),
            out=str(Path(folder, "out")),
            steps=10**9,
            save_every_s=1e9,
            device=options.device,
            threads=options.threads,
            precision=options.precision,
        )
        with joined_processes(
            config.device, config.precision, False, config.threads
        ) as accelerator:
            data = open_data(config)
            policy = LoopedPolicy(data.spec, config.policy)
            fit_normalizer(policy, data.statistics(), config.normalize)
            device = accelerator.device
            bare = _bare_loop(copy.deepcopy(policy), data, config, device)
            trainer = Trainer(policy, config, accelerator)
            sampler = data.sampler()
            pairs: list[tuple[float, float]] = []
            with Batches(sampler, 0, config.workers) as batches:
                for repetition in range(options.repetitions + 1):
                    runs = [
                        lambda: bare(options.steps),
                        lambda: _own_loop(trainer, sampler, batches, options.steps),
                    ]
                    # Each goes first in half of the repetitions.
                    order = [0, 1] if repetition % 2 else [1, 0]
                    found = dict(zip(order, (runs[i]() for i in order), strict=True))
                    pairs.append((found[0], found[1]))
            loop = TrainingLoop(trainer, sampler, Path(config.out), {}, time.monotonic)
            occasional = _occasional(loop, data, trainer)
    samples = options.steps * config.batch_size
    pairs = pairs[1:]  # the first warms up
    ratios = [own / bare for bare, own in pairs]
    seconds_a_step = statistics.median(own for _, own in pairs) / options.steps
    overhead = occasional["checkpoint_stall_s"] / TrainConfig.save_every_s + occasional[
        "validation_s"
    ] / (TrainConfig.validate_every * seconds_a_step)
    return {
        "size": size,
        "device": str(device),
        "precision": config.precision,
        "threads": torch.get_num_threads(),
        "repetitions": len(pairs),
        "steps": options.steps,
        "bare_samples_per_s": [samples / bare for bare, _ in pairs],
        "own_samples_per_s": [samples / own for _, own in pairs],
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "ratio_with_occasional": statistics.median(ratios) * (1 + overhead),
        **occasional,
    }


def _record(path: Path, size: int) -> None:
    """Episodes of two cameras, 8 proprio and 7 action elements: what the shipped tasks have."""
    cameras = [TensorSpec(f"images.{n}", (size, size, 3), "uint8") for n in ("front", "wrist")]
    spec = PolicySpec(
        observations=(*cameras, TensorSpec(PROPRIO, (8,), "float32")),
        action=TensorSpec("action", (7,), "float32"),
        action_frame="random",
        control_period_s=0.05,
    )
    writer = EpisodeWriter.create(path, spec, {"made_by": "bench_training"})
    for seed in range(EPISODES):
        rng = np.random.default_rng(seed)
        frames = {c.name: rng.integers(0, 256, (LENGTH, *c.shape), dtype=np.uint8) for c in cameras}
        proprio = rng.normal(size=(LENGTH, 8)).astype(np.float32)
        actions = rng.normal(size=(LENGTH, 7)).astype(np.float32)
        writer.append(Episode({**frames, PROPRIO: proprio}, actions, "", True, seed))


def _bare_loop(
    policy: LoopedPolicy, data: TrainingData, config: TrainConfig, device: torch.device
) -> Callable[[int], float]:
    """A function that takes so many steps and returns their seconds."""
    policy = policy.to(device)
    sampler = data.sampler()
    plan = plan_depth(config.depth, policy.depths, 0, 0.0)
    loaded = [_on_device(sampler.batch(step), device) for step in range(PRELOADED)]
    optimizer = torch.optim.AdamW(
        policy.parameters(),
        config.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=config.weight_decay,
        fused=True,
    )
    generator = torch.Generator(device).manual_seed(0)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")

    def run(steps: int) -> float:
        _finish(device)
        began = time.monotonic()
        for step in range(steps):
            observation, actions, valid = loaded[step % PRELOADED]
            draws = policy.draw(len(actions), generator)
            with autocast:
                losses = policy.losses(
                    observation, actions, valid, draws, plan, proprio_noise=config.proprio_noise
                )
            optimizer.zero_grad()
            losses.objective.mean().backward()
            optimizer.step()
        _finish(device)
        return time.monotonic() - began

    return run


def _own_loop(trainer: Trainer, sampler: WindowSampler, batches: Batches, steps: int) -> float:
    """The seconds from the first step's begin to the last step's end in policy-train's loop."""
    trainer.config = replace(trainer.config, steps=trainer.step + steps)
    before = trainer.elapsed_s
    loop = TrainingLoop(trainer, sampler, Path(trainer.config.out), {}, time.monotonic)
    with redirect_stdout(io.StringIO()):
        loop.run(batches)
    return trainer.elapsed_s - before


def _occasional(loop: TrainingLoop, data: TrainingData, trainer: Trainer) -> dict[str, float]:
    """How long training waits for a checkpoint, how long it then takes, and a validation."""
    from loopdit.policy.checkpoint import write_checkpoint
    from loopdit.policy.training.saving import CheckpointSaver

    stalls: list[float] = []
    writes: list[float] = []
    saver = CheckpointSaver(Path(trainer.config.out))
    for _ in range(9):
        began = time.monotonic()
        trainer.require_finite_weights()
        saver.save(loop.content(with_state=True))
        stalls.append(time.monotonic() - began)
        saver.finish()
        began = time.monotonic()
        write_checkpoint(saver.folder, loop.content(with_state=True))
        writes.append(time.monotonic() - began)
    saver.close()
    validation = data.validation_on(data.statistics()["action"].mean)
    assert validation is not None
    took: list[float] = []
    for _ in range(3):
        began = time.monotonic()
        validation.measure(trainer.average, trainer.accelerator.device)
        took.append(time.monotonic() - began)
    return {
        "checkpoint_stall_s": statistics.median(stalls),
        "checkpoint_write_s": statistics.median(writes),
        "validation_s": statistics.median(took),
    }


def _on_device(
    batch: Batch, device: torch.device
) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    observation = {n: torch.tensor(v, device=device) for n, v in batch.observations.items()}
    return (
        observation,
        torch.tensor(batch.actions, device=device),
        torch.tensor(batch.valid, device=device),
    )


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| two cameras of | bare loop, samples/s | policy-train, samples/s | time, as a multiple | "
        "with checkpoints and validation | a checkpoint stalls | n |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        bare, own = (statistics.median(row[f"{n}_samples_per_s"]) for n in ("bare", "own"))
        low, high = np.quantile(row["ratios"], [0.1, 0.9])
        stall, write = (1000 * row[f"checkpoint_{n}_s"] for n in ("stall", "write"))
        lines.append(
            f"| {row['size']} px | {bare:.0f} | {own:.0f} | {row['ratio']:.3f} "
            f"(10 to 90 %: {low:.3f} to {high:.3f}) | {row['ratio_with_occasional']:.3f} | "
            f"{stall:.0f} of {write:.0f} ms | {row['repetitions']} x {row['steps']} steps |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
