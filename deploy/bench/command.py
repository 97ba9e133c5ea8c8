"""`policy-bench`: what a chunk costs at each K on each back end, and how exact it is.

Measures by `latency`, compares with the float32 reference by `parity`, with the machine's own speed
by `roofline`, and with an older run by `bench_compare`. Prints a table and writes into OUT:

    bench.json   everything: `rows`, what a loop costs, the machine, versions, seeds, bundle's hash
    bench.csv    the rows
    bench.html   a page with plots, and the plots beside it as PNG
"""

import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from loopdit.command import Command, option, require_choice, run_command
from loopdit.deploy.backends import BACKEND_NAMES, GRAFT_BACKENDS, is_graft
from loopdit.deploy.backends.registry import FP32, KINDS
from loopdit.deploy.bench.compare import LEAST_ROUNDS, compare, read_older
from loopdit.deploy.bench.energy import EnergyMeter
from loopdit.deploy.bench.gpu_energy import SECONDS as GPU_SECONDS
from loopdit.deploy.bench.latency import VISIT, Arm, Measured, Workload, measure_arms
from loopdit.deploy.bench.own_process import ChildProcess
from loopdit.deploy.bench.results import (
    JSON_FILE,
    Yardstick,
    make_loop_costs,
    make_rows,
    timed,
    write_csv,
    write_json,
    write_text,
    yardstick_name,
)
from loopdit.deploy.bench.roofline import Speed
from loopdit.deploy.bench.roofline_products import TimedProducts
from loopdit.deploy.bench.text import print_results
from loopdit.deploy.bench.timed_backend import COLUMNS, CPU, WALL
from loopdit.deploy.bundle.bundle import Bundle, default_bundle, file_entry
from loopdit.deploy.bundle.manifest import MANIFEST
from loopdit.deploy.bundle.probes import Probes, bundle_probes
from loopdit.deploy.bundle.writer import with_latency
from loopdit.errors import BundleError, ConfigError
from loopdit.machine import describe_machine, machine_and_versions
from loopdit.whole_file import require_folder

_MIN_PROBES = 8
# torch-compile takes half a minute for each K and batch, which only who asks for it should wait.
_QUICK = tuple(name for name in BACKEND_NAMES if name != "torch-compile")
_PRECISIONS = tuple(dict.fromkeys(p for kind in KINDS.values() for p in kind.precisions))
# Of a row, what a bundle keeps for the runtime to plan with.
_RECORDED = (
    *("backend", "device", "precision", "threads", "loops", "steps", "batch", "repetitions"),
    *("p50_ms", "p90_ms", "p99_ms", "min_ms", "max_ms", "encode_p50_ms", "denoise_p50_ms"),
)


@dataclass(frozen=True)
class BenchConfig:
    """What `policy-bench` is told."""

    bundle: str = option("", "folder or zip of the bundle; empty: the one shipped with loopdit")
    backends: list[str] = option([], "back ends to measure; empty: all but torch-compile")
    precisions: list[str] = option([FP32], f"of {', '.join(_PRECISIONS)}, those to measure")
    loops: list[int] = option([], "each K to measure; empty: all that the bundle has")
    steps: list[int] = option([], "numbers of denoising steps; empty: the bundle's default")
    batch: list[int] = option([1], "numbers of observations in one call")
    repetitions: int = option(100, "timed chunks of each")
    threads: int = option(0, "threads for each back end; 0: its default")
    roofline: bool = option(True, "also time the matrix products alone, and the machine's speed")
    clock: str = option(
        WALL, "what ratios and slopes go by: wall, or cpu (time on a core) beside other work"
    )
    compare: str = option("", "an older bench.json to tell real changes from")
    other_machine: bool = option(False, "compare= with another machine's")
    record: bool = option(False, "keep the table in the bundle that bundle= names")
    data: str = option("", "episode store to take observations from; empty: synthetic ones")
    out: str = option("outputs/bench", "folder to write the results to")
    seed: int = option(0, "seed of the order, the observations, the noise and the intervals")

    def __post_init__(self) -> None:
        for name, known in (("backends", BACKEND_NAMES), ("precisions", _PRECISIONS)):
            unknown = [one for one in getattr(self, name) if one not in known]
            if unknown:
                raise ConfigError(
                    f"{name}={getattr(self, name)} has {unknown[0]!r}. Choose from: "
                    f"{', '.join(known)}."
                )
        for name in ("precisions", "batch"):
            if not getattr(self, name):
                raise ConfigError(f"{name}=[] is empty: name at least one.")
        for name in ("backends", "precisions", "loops", "steps", "batch"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ConfigError(f"{name}={values} names one twice. Name each once.")
        for name in ("steps", "batch"):
            if any(value < 1 for value in getattr(self, name)):
                raise ConfigError(f"{name}={getattr(self, name)} must all be at least 1.")
        if self.repetitions < 1:
            raise ConfigError(f"repetitions={self.repetitions} must be at least 1.")
        for name in ("threads", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)} must be 0 or more.")
        require_choice("clock", self.clock, tuple(COLUMNS))
        if self.clock == CPU and self.threads > 1:
            raise ConfigError(
                f"clock=cpu adds up the time of threads={self.threads}, which is nobody's latency. "
                f"Use threads=1, or clock=wall."
            )
        if self.compare and self.repetitions < VISIT * LEAST_ROUNDS:
            raise ConfigError(
                f"repetitions={self.repetitions} are too few to tell a change from noise. "
                f"compare= needs {VISIT * LEAST_ROUNDS} or more."
            )
        if self.record and not self.bundle:
            raise ConfigError("record=true writes into a bundle: name it with bundle=.")


def run_bench(config: BenchConfig, console: Console) -> dict[str, Any]:
    """Measure what `config` asks for and write it into OUT; returns what bench.json holds.

    Raises LoopditError for a bundle, data set, K or older file that cannot be used, and where
    nothing that was asked for can run here.
    """
    require_folder(Path(config.out))  # now, rather than after the measuring
    bundle = Bundle.open(config.bundle or default_bundle())
    for k in config.loops:
        bundle.require_loops(k)
    facts = machine_and_versions()  # before the load of our own
    older = config.compare and _older(config, facts["machine"])
    count = max(_MIN_PROBES, *config.batch)
    probes = bundle_probes(bundle, count, config.seed, config.data)
    console.print(describe_machine(facts), highlight=False, soft_wrap=True)
    measured, yardsticks = _measured(config, bundle, probes, console)
    if not measured.results:
        reasons = "; ".join(f"{one.backend}: {one.reason}" for one in measured.missing)
        raise BundleError(f"none of what was asked for can run here. {reasons}")
    results: dict[str, Any] = {
        "rows": make_rows(measured, yardsticks, bundle, probes, config.clock, config.seed),
        "loop_costs": make_loop_costs(measured.results, yardsticks, config.clock, config.seed),
        "roofline": [yardstick.to_dict() for yardstick in yardsticks.values()],
        **facts,
        "seeds": {"order": config.seed, "observations": config.seed, "noise": config.seed},
        "bundle": {
            "model_id": bundle.model_id,
            "manifest_sha256": file_entry(bundle.path / MANIFEST).sha256,
        },
        "observations": probes.source,
        "outliers": "none removed",
        "clock": config.clock,
        "rounds": len(measured.results[0].times_ms),
        "visit": VISIT,
        "energy": _energy({row.facts.device for row in measured.results}),
    }
    if older:
        results["comparison"] = compare(older, results, config.compare, config.seed)
    _write(Path(config.out), results)
    if config.record:
        rows = [{n: row[n] for n in _RECORDED} for row in timed(results["rows"])]
        with_latency(config.bundle, {"rows": rows, **facts})
    return results


def _older(config: BenchConfig, machine: Mapping[str, Any]) -> dict[str, Any]:
    return read_older(config.compare, machine, config.clock, config.other_machine)


def _measured(
    config: BenchConfig, bundle: Bundle, probes: Probes, console: Console
) -> tuple[Measured, dict[str, Yardstick]]:
    steps = config.steps or [bundle.steps]
    workload = Workload(str(bundle.path), probes, steps[0], threads=config.threads or None)
    choices = product(
        config.backends or _quick(bundle),
        config.precisions,
        config.loops or bundle.loops,
        steps,
        config.batch,
    )
    arms = [Arm(*choice) for choice in choices]
    kinds = _kinds_of_work(arms)
    if config.clock == CPU and any(device != "cpu" for device, _ in kinds):
        raise ConfigError(
            "clock=cpu sees nothing of a GPU's work. Use clock=wall for its back ends."
        )
    with ExitStack() as stack, Progress(console=console, transient=True) as bar:
        task = bar.add_task("measuring", total=None)
        children: dict[str, ChildProcess] = {}
        for device, precision in kinds if config.roofline and not is_graft(bundle) else ():
            name = yardstick_name(device, precision)
            child = ChildProcess(f"{name} products", TimedProducts, workload, device, precision)
            children[name] = stack.enter_context(closing(child))
        works = list(dict.fromkeys((arm.loops, arm.batch) for arm in arms))
        # Before and after: the faster counts, as a machine cannot be too fast.
        before = {name: child.call("speed", *works[-1]) for name, child in children.items()}
        measured = measure_arms(
            workload,
            arms,
            config.repetitions,
            config.seed,
            tuple(children.items()),
            lambda done, total: bar.update(task, completed=done, total=total),
        )
        yardsticks: dict[str, Yardstick] = {}
        for name, child in children.items():
            after = child.call("speed", *works[-1])
            products = {work: child.call("products", *work) for work in works}
            yardsticks[name] = Yardstick(
                name, child.call("runtime"), _faster(before[name], after), products
            )
    return measured, yardsticks


def _quick(bundle: Bundle) -> Sequence[str]:
    """What is measured where nobody chooses."""
    return GRAFT_BACKENDS if is_graft(bundle) else _QUICK


def _kinds_of_work(arms: list[Arm]) -> list[tuple[str, str]]:
    """(device, precision) of what can run here."""
    found = (
        (kind.devices[0], arm.precision)
        for arm in arms
        if (kind := KINDS[arm.backend]).unavailable() is None and arm.precision in kind.precisions
    )
    return list(dict.fromkeys(found))


def _faster(one: Speed, other: Speed) -> Speed:
    return Speed(
        max(one.flops_per_s, other.flops_per_s),
        max(one.bytes_per_s, other.bytes_per_s),
        min(one.launch_s, other.launch_s),
    )


def _energy(devices: Collection[str]) -> str:
    said: list[str] = []
    problem = EnergyMeter().problem
    if problem is None:
        said.append("Energy is of the processor's whole package (RAPL), other work included")
    elif "cpu" in devices:
        said.append(f"Energy was not measured: {problem}")
    if "cuda" in devices:
        said.append(
            f"A GPU's energy is of its board (NVML), computing alone for {GPU_SECONDS:g} s, where "
            f"its driver says it"
        )
    return ". ".join(said)


def _write(folder: Path, results: Mapping[str, Any]) -> None:
    # Not before they are needed: matplotlib alone takes a second.
    from loopdit.deploy.bench.page import PAGE_FILE, bench_html, picture_files

    write_json(folder, results)
    write_csv(folder, results["rows"])
    write_text(folder / PAGE_FILE, bench_html(results))
    for name, content in picture_files(results).items():
        (folder / name).write_bytes(content)


def _run(config: BenchConfig) -> None:
    console = Console()
    print_results(run_bench(config, console), console)
    said = f"Wrote {config.out}/{JSON_FILE}, bench.csv and bench.html"
    if config.record:
        said += f"; {config.bundle} has this machine's table now"
    console.print(said, highlight=False, soft_wrap=True)


COMMAND = Command(
    name="policy-bench",
    folder="bench",
    summary="measure a policy's latency at each K on each back end",
    examples=(
        "policy-bench",
        "policy-bench backends=[torch,onnxruntime] loops=[1,4] repetitions=300",
        "policy-bench bundle=outputs/bundle precisions=[fp32,bf16] batch=[1,8] record=true",
        "policy-bench compare=outputs/before/bench.json out=outputs/after",
        "policy-bench transport --help  # the wire beside other people's",
    ),
)


def main() -> None:
    """Entry point of `policy-bench` and `policy-bench transport`."""
    if sys.argv[1:2] == ["transport"]:
        from loopdit.deploy.bench.transport.command import main as transport

        transport(sys.argv[2:])
        return
    run_command(COMMAND, BenchConfig, _run)


if __name__ == "__main__":
    main()
