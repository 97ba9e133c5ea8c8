"""Clone the experts of several of Gymnasium's runners with one policy, and run it in closed loop.

    python -m loopdit.eval.morphology.clone envs=[gymnasium/Swimmer-v5,gymnasium/HalfCheetah-v5]

Collects demonstrations by the experts that lie beside this file, trains, and prints for each body
the error on held-out demonstrations beside the constant predictor's, and the return of the policy
beside its expert's and that of random actions, on the same starts.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from loopdit.command import Command, option, run_command
from loopdit.envs.suites.locomotion import Locomotion
from loopdit.errors import ConfigError
from loopdit.eval.morphology.cloning import (
    CloningConfig,
    Demonstrated,
    best_guess,
    clone,
    cloning_error,
)
from loopdit.eval.morphology.demonstrations import (
    demonstrate,
    embodiment_of,
    windows_of,
)
from loopdit.eval.morphology.expert import expert_file, load_expert
from loopdit.eval.morphology.experts import task_of
from loopdit.eval.morphology.running import run_expert, run_policy, run_random
from loopdit.eval.perturb import NoiseConfig
from loopdit.policy.morphology.morphology_dit import MorphologyConfig
from loopdit.policy.morphology.morphology_policy import MorphologyPolicy
from loopdit.policy.objectives.objective import ObjectiveConfig
from loopdit.whole_file import require_folder

COMMAND = Command(
    name="python -m loopdit.eval.morphology.clone",
    folder="morphology_clone",
    summary="clone the experts of several runners with one looped policy, and run it.",
    examples=(
        "python -m loopdit.eval.morphology.clone envs=[gymnasium/Swimmer-v5]",
        "python -m loopdit.eval.morphology.clone policy.bodies=false policy.loops.loops=1",
    ),
)
FILE = "clone.json"
WEIGHTS = "weights.safetensors"
# Seeds of episodes: demonstrations begin at 0, and closed loops have starts of their own.
_CLOSED_LOOP = 3_000_000


@dataclass(frozen=True)
class CloneConfig:
    """What is cloned, with what, and how it is measured."""

    envs: list[str] = option(
        [f"gymnasium/{task}-v5" for task in ("Ant", "HalfCheetah", "Hopper", "Swimmer")],
        "runners that have an expert",
    )
    out: str = option("outputs/morphology", f"folder for {FILE} and {WEIGHTS}")
    demonstrations: int = option(20, "episodes of each expert to learn from")
    held_out: int = option(3, "episodes of each expert to measure the error on")
    episodes: int = option(10, "closed-loop episodes of each body; 0: none")
    execute: int = option(1, "actions of a chunk that are played before the next one")
    sampling_steps: int = option(1, "steps from no noise to a chunk")
    policy: MorphologyConfig = field(default_factory=MorphologyConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    cloning: CloningConfig = field(default_factory=CloningConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)

    def __post_init__(self) -> None:
        least = {"demonstrations": 1, "held_out": 1, "episodes": 0, "sampling_steps": 1}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least {value}.")
        if not 1 <= self.execute <= self.policy.horizon:
            raise ConfigError(
                f"execute={self.execute} is not within a chunk: use 1 to "
                f"policy.horizon={self.policy.horizon}."
            )
        self.objective.require_effect()
        if len(self.envs) > self.policy.robots or len(set(self.envs)) < len(self.envs):
            raise ConfigError(
                f"envs={','.join(self.envs)} names a runner twice, or more than "
                f"policy.robots={self.policy.robots}."
            )


def main() -> None:
    """Entry point of `python -m loopdit.eval.morphology.clone`."""
    run_command(COMMAND, CloneConfig, run)


def run(config: CloneConfig) -> None:
    """Collect, train, measure, write and print."""
    console = Console(highlight=False, soft_wrap=True)
    out = Path(config.out)
    require_folder(out)
    tasks = [task_of(env) for env in config.envs]
    robots = [demonstrated(task, index, config) for index, task in enumerate(tasks)]
    torch.manual_seed(config.cloning.seed)
    policy = MorphologyPolicy(config.policy, config.objective)
    began = time.process_time()
    often = max(1, config.cloning.steps // 10)

    def say(step: int, loss: float) -> None:
        if not (step + 1) % often:
            console.print(f"step {step + 1} of {config.cloning.steps}: loss {loss:.4f}")

    clone(policy, robots, config.cloning, say)
    seconds = time.process_time() - began
    rows = [measured(policy, robot, config) for robot in robots]
    _save(out, policy, config, rows, seconds)
    console.print(_table(rows))
    console.print(f"Results: {out / FILE}")


def demonstrated(task: str, index: int, config: CloneConfig) -> Demonstrated:
    """The body `index` of the policy, with its expert's demonstrations. Raises ConfigError where
    there is no expert for it."""
    expert = load_expert(expert_file(task))
    robot = Locomotion(task)
    seeds = range(config.demonstrations + config.held_out)
    runs = demonstrate(robot, expert, seeds, config.noise)
    training = windows_of(runs[: config.demonstrations], config.policy.horizon)
    held_out = windows_of(runs[config.demonstrations :], config.policy.horizon)
    body = embodiment_of(robot, task, index, training)
    robot.close()
    return Demonstrated(body, training, held_out)


def measured(policy: MorphologyPolicy, robot: Demonstrated, config: CloneConfig) -> dict[str, Any]:
    """Errors and returns of one body."""
    error = asdict(cloning_error(policy, robot, config.sampling_steps))
    row: dict[str, Any] = {"env": f"gymnasium/{robot.body.name}", "error": error}
    row["tokens"] = robot.body.tokens(config.policy.bodies)
    if config.episodes:
        row["returns"] = {
            who: [round(total, 1) for total in totals]
            for who, totals in returns(policy, robot, config).items()
        }
    return row


def returns(
    policy: MorphologyPolicy, robot: Demonstrated, config: CloneConfig
) -> dict[str, list[float]]:
    """Of policy, expert and random actions, on the same starts, without perturbation."""
    task = robot.body.name
    seeds = range(_CLOSED_LOOP, _CLOSED_LOOP + config.episodes)
    guess = best_guess(policy, robot.body, config.sampling_steps)
    copies = [Locomotion(task) for _ in seeds]
    played = run_policy(
        copies, lambda seen: guess(torch.from_numpy(seen)).numpy(), seeds, config.execute
    )
    expert, one = load_expert(expert_file(task)), copies[0]
    found = {
        "policy": played.returns.tolist(),
        "expert": [run_expert(one, expert, seed).total for seed in seeds],
        "random": [run_random(one, seed) for seed in seeds],
    }
    for copy in copies:
        copy.close()
    return found


def _save(
    out: Path, policy: MorphologyPolicy, config: CloneConfig, rows: list[Any], seconds: float
) -> None:
    from safetensors.torch import save_file

    save_file(policy.state_dict(), out / WEIGHTS)
    parameters = sum(parameter.numel() for parameter in policy.parameters())
    content = {
        "options": asdict(config),
        "parameters": parameters,
        "training_cpu_seconds": round(seconds),
        "bodies": rows,
    }
    (out / FILE).write_text(json.dumps(content, indent=1) + "\n")


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="Clones of the experts", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("body", no_wrap=True)
    for name in ("tokens", "error", "of constant", "return", "expert's", "random's"):
        table.add_column(name, justify="right")
    for row in rows:
        error, found = row["error"], row.get("returns", {})
        table.add_row(
            row["env"].partition("/")[2],
            str(row["tokens"]),
            f"{error['first']:.4f}",
            f"{error['first'] / error['constant_first']:.0%}",
            *(_mean(found.get(who)) for who in ("policy", "expert", "random")),
        )
    return table


def _mean(totals: list[float] | None) -> str:
    if not totals:
        return ""
    spread = f" ± {np.std(totals, ddof=1):.0f}" if len(totals) > 1 else ""
    return f"{np.mean(totals):.0f}{spread}"


if __name__ == "__main__":
    main()
