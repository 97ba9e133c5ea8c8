"""`policy-bench`: what a chunk costs at each K on each back end, and how exact it is.

Measures by `latency`, compares with the float32 reference by `parity`, prints a table and writes
OUT/bench.json: `rows` of {backend, device, precision, loops, steps, batch, p50_ms, p99_ms,
max_abs_error, ...} with the machine, versions, seeds and the bundle's hash beside them.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from loopdit.command import Command, option, run_command
from loopdit.deploy.backends import BACKEND_NAMES
from loopdit.deploy.bundle import Bundle, default_bundle, file_entry
from loopdit.deploy.latency import ArmResult, Workload, measure
from loopdit.deploy.manifest import MANIFEST
from loopdit.deploy.parity import compare_chunks, reference_chunks
from loopdit.deploy.probes import Probes, make_probes
from loopdit.errors import ConfigError
from loopdit.machine import describe_machine, machine_and_versions
from loopdit.policy.checkpoint import load_policy
from loopdit.whole_file import require_folder, whole_file

RESULTS = "bench.json"
_MIN_PROBES = 8


@dataclass(frozen=True)
class BenchConfig:
    """What `policy-bench` is told."""

    bundle: str = option("", "folder of the bundle; empty: the one shipped with loopdit")
    backends: list[str] = option(list(BACKEND_NAMES), "back ends to measure")
    loops: list[int] = option([], "each K to measure; empty: all that the bundle has")
    steps: int = option(0, "denoising steps; 0: the bundle's default")
    batch: int = option(1, "observations in one call")
    repetitions: int = option(100, "timed chunks for each back end and K")
    threads: int = option(0, "threads for each back end; 0: its default")
    data: str = option("", "episode store to take observations from; empty: synthetic ones")
    out: str = option("outputs/bench", "folder to write bench.json to")
    seed: int = option(0, "seed of the order, the observations and the noise")

    def __post_init__(self) -> None:
        unknown = [name for name in self.backends if name not in BACKEND_NAMES]
        if unknown or not self.backends:
            raise ConfigError(
                f"backends={self.backends} {f'has {unknown[0]!r}' if unknown else 'is empty'}. "
                f"Choose from: {', '.join(BACKEND_NAMES)}."
            )
        if len(set(self.loops)) < len(self.loops):
            raise ConfigError(f"loops={self.loops} names a depth twice. Name each once.")
        for name in ("batch", "repetitions"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1.")
        for name in ("steps", "threads", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)} must be 0 or more.")


def run_bench(config: BenchConfig, console: Console) -> dict[str, Any]:
    """Measure what `config` asks for and write OUT/bench.json; returns what was written.

    Raises LoopditError for a bundle, data set or K that cannot be measured.
    """
    require_folder(Path(config.out))  # now, rather than after the measuring
    bundle = Bundle.open(config.bundle or default_bundle())
    loops = config.loops or list(bundle.loops)
    for k in loops:
        bundle.require_loops(k)
    steps = config.steps or bundle.steps
    probes = make_probes(
        bundle.spec,
        bundle.horizon,
        max(_MIN_PROBES, config.batch),
        config.seed,
        config.data,
        bundle.manifest.told,
        bundle.manifest.instructions,
    )
    facts = machine_and_versions()  # before the load of our own
    console.print(describe_machine(facts), highlight=False, soft_wrap=True)
    workload = Workload(str(bundle.path), probes, steps, config.batch, config.threads or None)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("measuring", total=None)
        arms = measure(
            workload,
            config.backends,
            loops,
            config.repetitions,
            config.seed,
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    results = {
        "rows": _rows(arms, bundle, probes, steps, config.batch),
        **facts,
        "seeds": {"order": config.seed, "observations": config.seed, "noise": config.seed},
        "bundle": {
            "model_id": bundle.model_id,
            "manifest_sha256": file_entry(bundle.path / MANIFEST).sha256,
        },
        "observations": probes.source,
        "outliers": "none removed",
    }
    _write(Path(config.out), results)
    return results


def _rows(
    arms: Sequence[ArmResult], bundle: Bundle, probes: Probes, steps: int, batch: int
) -> list[dict[str, Any]]:
    policy = load_policy(bundle.path)
    references = {
        k: reference_chunks(policy, probes, k, steps) for k in {arm.loops for arm in arms}
    }
    rows: list[dict[str, Any]] = []
    for arm in arms:
        reference = references[arm.loops]
        parity = compare_chunks(arm.chunks, reference, arm.loops, bundle.spec.action)
        rows.append({**arm.summary(), "steps": steps, "batch": batch} | parity.to_dict())
    return rows


def _write(folder: Path, results: dict[str, Any]) -> None:
    path = folder / RESULTS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as aside:
            aside.write_text(json.dumps(results, indent=1) + "\n")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}. Choose another out=.") from error


def results_table(results: dict[str, Any]) -> Table:
    """The rows of `run_bench`, for people."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)  # 80 columns must do
    table.add_column("back end", no_wrap=True)
    for heading in ("K", "p50 ms", "p99 ms", "min ms", "encode", "denoise", "error"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in results["rows"]:
        times = ("p50_ms", "p99_ms", "min_ms", "encode_p50_ms", "denoise_p50_ms")
        table.add_row(
            f"{row['backend']} {row['precision']}",
            str(row["loops"]),
            *(f"{row[name]:.2f}" for name in times),
            f"{row['max_abs_error']:.1e}",
        )
    return table


def _run(config: BenchConfig) -> None:
    console = Console()
    results = run_bench(config, console)
    first = results["rows"][0]
    console.print(
        f"One action chunk: {first['steps']} steps, batch {first['batch']}, "
        f"threads {first['threads']}, {first['repetitions']} repetitions, "
        f"{results['observations']}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(results_table(results))
    machine = results["machine"]
    if machine["load_average"] > 0.5 * machine["cores"]:
        console.print(
            f"The machine was busy before this began (load {machine['load_average']} on "
            f"{machine['cores']} cores): p99 shows the other work, too. Compare min and p50.",
            highlight=False,
            soft_wrap=True,
        )
    console.print(
        f"encode and denoise are p50; error is the largest against torch float32, in raw action "
        f"units. Wrote {config.out}/{RESULTS}",
        highlight=False,
        soft_wrap=True,
    )


COMMAND = Command(
    name="policy-bench",
    folder="bench",
    summary="measure a policy's latency at each K on each back end",
    examples=(
        "policy-bench",
        "policy-bench bundle=outputs/bundle loops=[1,4] repetitions=300",
        "policy-bench backends=[onnxruntime] threads=1 out=outputs/bench-1-thread",
    ),
)


def main() -> None:
    """Entry point of `policy-bench`."""
    run_command(COMMAND, BenchConfig, _run)


if __name__ == "__main__":
    main()
