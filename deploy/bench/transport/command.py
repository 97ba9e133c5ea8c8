"""`policy-bench transport`: what an observation's way to a policy and back costs, beside others'.

Each server is a process of its own, with a policy that makes zeros. Writes OUT/transport.json:
`rows` back to back, `paced_rows` as a control loop asks, `ratios` of both, and the machine.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from loopdit.command import Command, option
from loopdit.deploy.bench.results import write_text
from loopdit.deploy.bench.transport.awake import awake_cores
from loopdit.deploy.bench.transport.measure import Samples, measure
from loopdit.deploy.bench.transport.peers import PEERS
from loopdit.errors import ConfigError
from loopdit.machine import machine_and_versions
from loopdit.subcommand import run_subcommand
from loopdit.whole_file import require_folder

JSON_FILE = "transport.json"
YARDSTICK = "pyzmq-bare"
OTHERS = ("openpi", "groot-like", "lerobot-grpc")
COMMAND = Command(
    name="policy-bench transport",
    folder="bench_transport",
    summary="measure the round trip of an observation over our transports and those of others.",
    examples=(
        "policy-bench transport out=outputs/transport",
        "policy-bench transport transports=[loopdit-shm,pyzmq-bare] paced=0",
        "policy-bench transport awake=true             # without the time in which cores wake",
        "OPENPI_CLIENT=FOLDER policy-bench transport   # the real openpi-client, unpacked there",
    ),
)


@dataclass(frozen=True)
class TransportConfig:
    """The options of `policy-bench transport`."""

    transports: list[str] = option([], f"which of {', '.join(PEERS)}; empty: all")
    requests: int = option(2000, "timed round trips of each, back to back")
    paced: int = option(300, "timed round trips of each at rate_hz; 0: none")
    rate_hz: float = option(50.0, "how often a control loop asks")
    turn: int = option(100, "round trips of one transport before it is another's turn")
    awake: bool = option(False, "keep the cores from falling asleep between two messages")
    out: str = option("outputs/transport", "folder to write the results to")
    seed: int = option(0, "seed of the order and the frames")

    def __post_init__(self) -> None:
        for name in self.transports:
            if name not in PEERS:
                raise ConfigError(f"transports has {name!r}. Choose from: {', '.join(PEERS)}.")
        if self.requests < 1 or self.turn < 1 or self.paced < 0:
            raise ConfigError("requests and turn must be at least 1, and paced 0 or more.")
        if not 0 < self.rate_hz <= 1000:
            raise ConfigError(f"rate_hz={self.rate_hz} must be above 0, at most 1000.")


def run_transport(config: TransportConfig, console: Console) -> dict[str, Any]:
    """Measure, print and write; returns what transport.json holds. Raises LoopditError."""
    require_folder(Path(config.out))
    names = config.transports or list(PEERS)
    with awake_cores() if config.awake else nullcontext():
        samples = measure(
            names, config.requests, config.paced, config.rate_hz, config.turn, config.seed
        )
    results: dict[str, Any] = {
        "rows": [_row(name, samples.back_to_back, samples) for name in names],
        "paced_rows": [_row(name, samples.paced, samples) for name in names]
        if config.paced
        else [],
        "settings": asdict(config),
        **machine_and_versions(),
    }
    for rows, ratios in (("rows", "ratios"), ("paced_rows", "paced_ratios")):
        results[ratios] = _ratios(results[rows])
    _print(results, console)
    write_text(Path(config.out) / JSON_FILE, json.dumps(results, indent=1) + "\n")
    return results


def _row(name: str, taken: Mapping[str, Sequence[float]], samples: Samples) -> dict[str, Any]:
    """What was measured of one transport, or why nothing was."""
    row: dict[str, Any] = {"transport": name, "what": samples.what[name]}
    if name in samples.missing:
        return row | {"p50_us": None, "p99_us": None, "n": 0, "missing": samples.missing[name]}
    low, p50, p90, p99 = np.percentile(taken[name], (0, 50, 90, 99))
    return row | {
        "p50_us": round(float(p50), 1),
        "p99_us": round(float(p99), 1),
        "n": len(taken[name]),
        "min_us": round(float(low), 1),
        "p90_us": round(float(p90), 1),
    }


def _ratios(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Ours over pyzmq alone, over openpi and over the fastest of the others, of p50 and p99."""
    found: dict[str, float] = {}
    measured = {row["transport"]: row for row in rows if row["n"]}
    others = [measured[name]["p50_us"] for name in OTHERS if name in measured]
    for name in (name for name in measured if name.startswith("loopdit-")):
        mine = measured[name]
        for peer in (YARDSTICK, "openpi"):
            if peer in measured:
                for quantile in ("p50", "p99"):
                    theirs = measured[peer][f"{quantile}_us"]
                    ratio = round(mine[f"{quantile}_us"] / theirs, 3)
                    found[f"{name}/{peer} {quantile}"] = ratio
        if others:
            found[f"{name}/fastest other p50"] = round(mine["p50_us"] / min(others), 3)
    return found


def _print(results: Mapping[str, Any], console: Console) -> None:
    for rows, title in (("rows", "back to back"), ("paced_rows", "paced")):
        table = Table(title=f"round trip, microseconds, {title}")
        for column in ("transport", "min", "p50", "p90", "p99", "n"):
            table.add_column(column, justify="left" if column == "transport" else "right")
        for row in results[rows]:
            if row["n"]:
                times = [f"{row[f'{q}_us']:.0f}" for q in ("min", "p50", "p90", "p99")]
                table.add_row(row["transport"], *times, str(row["n"]))
            else:
                table.add_row(row["transport"], row["missing"])
        if results[rows]:
            console.print(table)


def _run(config: TransportConfig) -> None:
    console = Console()
    run_transport(config, console)
    console.print(f"Wrote {config.out}/{JSON_FILE}", highlight=False, soft_wrap=True)


def main(arguments: Sequence[str]) -> None:
    """`policy-bench transport ...`"""
    run_subcommand(COMMAND, TransportConfig, _run, arguments, places=())
