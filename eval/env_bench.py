"""`make bench-envs`: how fast an environment steps, against MuJoCo alone and against robosuite.

Every repetition runs each workload for a short block, one after the other, so that other work on
the machine slows all of them alike; a ratio is taken within a repetition, and its median over the
repetitions is what counts. Writes OUT/env_bench.json.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from loopdit.command import Command, option, run_command
from loopdit.envs.arm_env import ArmEnv
from loopdit.envs.registry import ENV_NAMES, make_env
from loopdit.errors import ConfigError
from loopdit.eval.env_workloads import ChildLoop, EnvLoop, RawLoop, VectorLoop, Workload, record
from loopdit.machine import describe_machine, machine_and_versions
from loopdit.whole_file import require_folder, whole_file

RESULTS = "env_bench.json"
RAW, ENV = "MuJoCo alone", "environment"
RAW_FRAMES, ENV_FRAMES = "MuJoCo alone, 2 cameras", "environment, 2 cameras"
RAYS = "environment, 2 cameras ray-cast"
ONE, TWO = "1 process, 2 cameras", "2 processes, 2 cameras"
ROBOSUITE = "robosuite Lift, 2 cameras"
# What, compared with what, and the least that we want of it (0: nothing in particular).
RATIOS = (
    (ENV, RAW, 0.65),
    (ENV_FRAMES, RAW_FRAMES, 0.85),
    (ENV_FRAMES, ROBOSUITE, 10.0),
    (TWO, ONE, 1.7),
    (TWO, ENV_FRAMES, 0.0),
    (RAYS, ENV_FRAMES, 0.0),
)
_SPREAD = ("median", "25 %", "75 %")
_SCRIPT = Path(__file__).with_name("robosuite_lift.py")


@dataclass(frozen=True)
class EnvBenchConfig:
    """What `python -m loopdit.eval.env_bench` is told."""

    env: str = option("lift", "environment to measure")
    image_size: int = option(128, "pixels on each side of a camera's frame")
    repetitions: int = option(40, "blocks of each workload")
    # Other work on a machine comes and goes within a second: many short blocks side by side.
    block_s: float = option(0.1, "seconds of each block")
    robosuite: str = option(
        ".suites/robosuite/bin/python",
        "Python that has robosuite; it is left out where there's none",
    )
    seed: int = option(0, "seed of the episode that all repeat")
    out: str = option("outputs/bench-envs", "folder to write env_bench.json to")

    def __post_init__(self) -> None:
        if self.env not in ENV_NAMES:
            raise ConfigError(
                f"env={self.env} is unknown. The environments are: {', '.join(ENV_NAMES)}."
            )
        for name in ("image_size", "repetitions", "block_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name}={getattr(self, name)} must be more than 0.")


def run_env_bench(config: EnvBenchConfig, console: Console) -> dict[str, Any]:
    """Measure, write OUT/env_bench.json, return what it holds.

    Raises ConfigError for a folder that cannot be written and a robosuite that does not run.
    """
    require_folder(Path(config.out))
    facts = machine_and_versions()
    env = make_env(config.env, image_size=config.image_size, renderer="gl")
    rays = make_env(config.env, image_size=config.image_size, renderer="ray")
    workloads: dict[str, Workload] = {}
    try:
        other = _open(workloads, config, env, rays)
        rates = _measure(workloads, config, console)
    finally:
        for workload in workloads.values():
            workload.close()
        env.close()
        rays.close()
    results = {
        "env": config.env,
        "image_size": config.image_size,
        "renderer": env.renderer,
        "repetitions": config.repetitions,
        "block_s": config.block_s,
        "seed": config.seed,
        "rates": rates,
        "ratios": ratios(rates),
        "robosuite": other,
        **facts,
    }
    with whole_file(Path(config.out) / RESULTS) as aside:
        aside.write_text(json.dumps(results, indent=1) + "\n")
    return results


def ratios(rates: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Each of RATIOS that was measured: median and quartiles over the repetitions."""
    found: list[dict[str, Any]] = []
    for what, against, target in RATIOS:
        if what in rates and against in rates:
            each = [a / b for a, b in zip(rates[what], rates[against], strict=True)]
            found.append(
                {
                    "what": what,
                    "against": against,
                    "target": target,
                    **_spread(each),
                }
            )
    return found


def _spread(values: Sequence[float]) -> dict[str, float]:
    """`median`, and `low` and `high`, between which the middle half lies."""
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return {"median": median, "low": low, "high": high}


def _open(
    workloads: dict[str, Workload], config: EnvBenchConfig, env: ArmEnv, rays: ArmEnv
) -> str | None:
    """Fill `workloads`; return robosuite's version, None without it."""
    size, model = config.image_size, env.arm.model
    recording = record(env, config.seed)
    workloads[RAW] = RawLoop(model, recording)
    workloads[ENV] = EnvLoop(env, recording, observing=False)
    workloads[RAW_FRAMES] = RawLoop(model, recording, frame_size=size)
    workloads[ENV_FRAMES] = EnvLoop(env, recording, observing=True)
    workloads[RAYS] = EnvLoop(rays, recording, observing=True)
    workloads[ONE] = VectorLoop(config.env, size, recording, envs=1)
    workloads[TWO] = VectorLoop(config.env, size, recording, envs=2)
    if not Path(config.robosuite).is_file():
        return None
    child = ChildLoop([config.robosuite, str(_SCRIPT), str(size)])
    workloads[ROBOSUITE] = child
    return child.version


def _measure(
    workloads: dict[str, Workload], config: EnvBenchConfig, console: Console
) -> dict[str, list[float]]:
    """Steps a second of each workload in each repetition, after one short block to warm up."""
    rates: dict[str, list[float]] = {name: [] for name in workloads}
    for workload in workloads.values():
        workload.rate(config.block_s / 5)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("measuring", total=config.repetitions * len(workloads))
        for _ in range(config.repetitions):
            for name, workload in workloads.items():
                rates[name].append(workload.rate(config.block_s))
                progress.advance(task)
    return rates


def _run(config: EnvBenchConfig) -> None:
    console = Console(highlight=False, soft_wrap=True)
    results = run_env_bench(config, console)
    console.print(describe_machine(results))
    console.print(
        f"mujoco {results['versions']['mujoco']}, {results['renderer']}; {config.env}, "
        f"{config.image_size} pixels, {config.repetitions} blocks of {config.block_s} s each"
    )
    if not results["robosuite"]:
        console.print(f"Without robosuite: there is no {config.robosuite}.")
    for table in tables(results):
        console.print(table)
    load, cores = results["machine"]["load_average"], results["machine"]["cores"]
    if load > 0.5 * cores:
        console.print(
            f"The machine was busy before this began (load {load} on {cores} cores): the ratios "
            "are noisy, and two processes had no two cores. Measure again when it is idle."
        )
    console.print(f"Wrote {config.out}/{RESULTS}")


def tables(results: dict[str, Any]) -> tuple[Table, Table]:
    """The rates and the ratios of `run_env_bench`, for people."""
    rates = Table("control steps a second", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in _SPREAD:
        rates.add_column(heading, justify="right")
    for name, values in results["rates"].items():
        rates.add_row(name, *(f"{value:.0f}" for value in _spread(values).values()))
    compared = Table("ratio of", "to", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in (*_SPREAD, "target"):
        compared.add_column(heading, justify="right")
    for ratio in results["ratios"]:
        numbers = (f"{ratio[name]:.2f}" for name in ("median", "low", "high"))
        met = "met" if ratio["median"] >= ratio["target"] else "missed"
        target = f"{ratio['target']:g} {met}" if ratio["target"] else ""
        compared.add_row(ratio["what"], ratio["against"], *numbers, target)
    return rates, compared


COMMAND = Command(
    name="make bench-envs",
    folder="bench_envs",
    summary="measure how fast an environment steps, against MuJoCo alone and robosuite.",
    examples=("make bench-envs", "python -m loopdit.eval.env_bench env=push repetitions=5"),
)


def main() -> None:
    """Entry point of `python -m loopdit.eval.env_bench`."""
    run_command(COMMAND, EnvBenchConfig, _run)


if __name__ == "__main__":
    main()
