"""`python -m loopdit.policy.fixed_point`: what the loops of a checkpoint do to its observations.

Writes OUT/fixed_point.json (the report, with the machine and versions) and OUT/fixed_point.png, and
prints a line a loop. Beside it: whether its last loop, repeated, has a fixed point that is found.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from loopdit.command import Command, option, run_command
from loopdit.errors import ConfigError
from loopdit.machine import machine_and_versions
from loopdit.policy.checkpoint import load_checkpoint
from loopdit.policy.fixed_point.adapters import observation_loops, random_policy
from loopdit.policy.fixed_point.anderson import AndersonConfig, Solution, solve
from loopdit.policy.fixed_point.diagnostics import FixedPointReport, diagnose
from loopdit.policy.fixed_point.observations import recorded, synthetic
from loopdit.policy.fixed_point.picture import draw
from loopdit.policy.fixed_point.step import at_loop
from loopdit.whole_file import require_folder, whole_file

REPORT, PICTURE = "fixed_point.json", "fixed_point.png"
_TOLERANCE, _MAX_STEPS = 1e-3, 100

COMMAND = Command(
    name="python -m loopdit.policy.fixed_point",
    folder="fixed_point",
    summary="whether the loops of a checkpoint approach a fixed point, beside random weights.",
    examples=(
        "python -m loopdit.policy.fixed_point checkpoint=deploy/bundles/tabletop",
        "python -m loopdit.policy.fixed_point checkpoint=outputs/checkpoint data=lift.zarr",
    ),
)


@dataclass(frozen=True)
class FixedPointConfig:
    """What is measured, and on what."""

    checkpoint: str = option("???", "folder of a checkpoint or a bundle")
    data: str = option("", "episode store to take observations from; empty: synthetic ones")
    out: str = option("outputs/fixed-point", "folder to write the report and the picture to")
    loops: int = option(0, "loops to measure; 0: twice those that it was trained for, 8 at least")
    samples: int = option(64, "observations")
    null_seeds: int = option(5, "how many random policies to measure beside it")
    iterations: int = option(50, "steps of the power iteration at most")
    threads: int = option(1, "CPU threads")
    seed: int = option(0, "seed of the observations")

    def __post_init__(self) -> None:
        for name in ("samples", "iterations", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1.")
        for name in ("loops", "null_seeds", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)} must be 0 or more.")


def run(config: FixedPointConfig) -> FixedPointReport:
    """Measure, write and print. Raises CheckpointError, StoreError, SpecMismatch, ConfigError."""
    require_folder(Path(config.out))
    torch.set_num_threads(config.threads)
    checkpoint = load_checkpoint(config.checkpoint)
    policy = checkpoint.policy
    if config.data:
        observation = recorded(policy, config.data, config.samples, config.seed)
    else:
        observation = synthetic(policy, config.samples, config.seed)
    looped = observation_loops(policy, observation)
    report = diagnose(
        looped,
        lambda seed: observation_loops(random_policy(policy, seed), observation),
        loops=config.loops or max(8, 2 * policy.max_loops),
        trained_loops=policy.max_loops,
        null_seeds=range(config.null_seeds),
        iterations=config.iterations,
    )
    solver = AndersonConfig(tolerance=_TOLERANCE, max_steps=_MAX_STEPS)
    last = at_loop(looped.step, policy.max_loops - 1)
    solved = {
        name: _summary(solve(last, looped.start, way))
        for name, way in (("plain", solver.plain()), ("anderson", solver))
    }
    written = {
        "checkpoint": config.checkpoint,
        "weights_sha256": checkpoint.weights_sha256,
        "data": config.data or "synthetic",
        "seed": config.seed,
        **report.to_dict(),
        "solver": asdict(solver),
        "solved": solved,
        **machine_and_versions(),
    }
    out = Path(config.out)
    with whole_file(out / REPORT) as file:
        file.write_text(json.dumps(written, indent=1, allow_nan=False) + "\n")
    draw(report, out / PICTURE, f"{config.checkpoint}, trained for {policy.max_loops} loops")
    found = "".join(f"{name}: {_found(summary)}\n" for name, summary in solved.items())
    sys.stdout.write(f"{table(report)}\n{found}{out / REPORT}\n{out / PICTURE}\n")
    return report


def _summary(solution: Solution) -> dict[str, float]:
    steps, residual = solution.steps.double(), solution.residual
    return {
        "samples": len(residual),
        "converged": int(solution.converged.sum()),
        "median_steps": float(steps.median()),
        "median_residual": float(residual.median()),
    }


def _found(summary: Mapping[str, float]) -> str:
    return (
        f"{summary['converged']:.0f} of {summary['samples']:.0f} samples have a fixed point of the "
        f"last loop within {_TOLERANCE:g}; median residual {summary['median_residual']:.2g} after "
        f"{summary['median_steps']:.0f} loops"
    )


def table(report: FixedPointReport) -> str:
    """A line for each loop: the model's medians, and in brackets the null's median seed."""
    names = ("cosine", "update_norm", "relative_update", "ratio", "lipschitz")
    lines = ["loop" + "".join(f"{name.replace('_', ' '):>20}" for name in names)]
    loops = len(report.model.cosine.median)
    for loop in range(loops):
        cells: list[str] = []
        for name in names:
            own = getattr(report.model, name).median
            place = loop - loops + len(own)  # a ratio begins with the second loop
            null = sorted(getattr(curves, name).median[place] for curves in report.null)
            beside = f" ({null[len(null) // 2]:.3f})" if null else ""
            cells.append(f"{own[place]:.3f}{beside}" if place >= 0 else "")
        mark = "" if loop < report.trained_loops else "  beyond training"
        lines.append(f"{loop + 1:4}" + "".join(f"{cell:>20}" for cell in cells) + mark)
    return "\n".join(lines)


if __name__ == "__main__":
    run_command(COMMAND, FixedPointConfig, run)
