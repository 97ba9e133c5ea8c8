"""LeRobot's diffusion policy, as large as ours, through our back ends, in turn with ours.

    sh scripts/lerobot_env.sh    # once: LeRobot's environment, where the peer is made and exported
    .venv/bin/python scripts/bench_peer_backends.py

Both start from uint8 frames and proprio and end with 16 actions, float32, batch 1, one thread, in
as many denoising steps; the peer sees two observed steps and samples by DDIM, as it comes. Its
weights are fresh, which no latency depends on; it has as many parameters as our bundle, to 2 %.
What it computes on each runtime must agree with torch to 1e-4 before anything is timed. A visit of
each and the clocks are policy-bench's (docs/bench.md); our own kernels, which run no other policy,
take turns with the rest. Writes OUT/bench_peer_backends.json (everything) and .md (a page).
"""

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from peers.backends_page import backends_page
from peers.timed_peer import RUNTIMES, TimedPeer

from loopdit.deploy.backends.registry import FP32
from loopdit.deploy.bench.latency import VISIT, Arm, Measured, Workload, measure_arms
from loopdit.deploy.bench.own_process import ChildProcess
from loopdit.deploy.bench.statistics import Interval, paired_ratio
from loopdit.deploy.bench.timed_backend import COLUMNS, CPU, WALL
from loopdit.deploy.bundle.bundle import Bundle, default_bundle
from loopdit.deploy.bundle.probes import bundle_probes
from loopdit.machine import machine_and_versions
from loopdit.policy.checkpoint import load_policy
from loopdit.whole_file import whole_file

_ROOT = Path(__file__).resolve().parents[1]
_SUITES = os.environ.get("LOOPDIT_SUITES", ".suites")
_OURS_ALONE = "fused"
_TOLERANCE = 1e-4
_MOST_APART = 0.02  # of the numbers of parameters
_NAME = "bench_peer_backends"


def main() -> None:
    """Export the peer, measure, write the record and the page, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bundle", type=Path, default=default_bundle())
    parser.add_argument("--size", default="tabletop", help="of lerobot_model.SIZES")
    parser.add_argument("--backends", nargs="+", choices=RUNTIMES, default=list(RUNTIMES))
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--clock", choices=COLUMNS, default=WALL, help=f"{CPU}: beside other work")
    parser.add_argument("--lerobot", type=Path, default=_ROOT / _SUITES / "lerobot/bin/python")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench-peer"))
    chosen = parser.parse_args()
    facts = machine_and_versions()  # before the load of our own
    began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    bundle = Bundle.open(chosen.bundle)
    peer = _exported(chosen.lerobot, bundle, chosen.size, chosen.out / "peer")
    parameters = {"peer": peer["parameters"]["all"], "ours": _parameters(bundle)}
    apart = abs(parameters["peer"] / parameters["ours"] - 1)
    if apart > _MOST_APART:
        sys.exit(
            f"the peer of size {chosen.size} has {parameters['peer']:,} parameters and "
            f"{chosen.bundle} {parameters['ours']:,}: {apart:.1%} apart, which is no comparison of "
            f"equals. Choose another --size, or add one to scripts/peers/lerobot_model.py."
        )
    measured = _measured(chosen, bundle)
    record: dict[str, Any] = {
        "began_at": began,
        "clock": chosen.clock,
        "steps": chosen.steps,
        "rounds": len(measured.results[0].times_ms),
        "visit": VISIT,
        "outliers": "none removed",
        "parameters": parameters,
        "model_id": bundle.model_id,
        "peer": peer,
        "rows": _rows(measured),
        "ratios": _ratios(measured, chosen.clock),
        "missing": [asdict(one) for one in measured.missing],
        **facts,
    }
    page = backends_page(record)
    for suffix, text in (("json", json.dumps(record, indent=1) + "\n"), ("md", page)):
        with whole_file(chosen.out / f"{_NAME}.{suffix}") as aside:
            aside.write_text(text)
    sys.stdout.write(page)


def _exported(python: Path, bundle: Bundle, size: str, folder: Path) -> dict[str, Any]:
    """What peer.json says, of programs that LeRobot's environment has just written to `folder`."""
    if not python.is_file():
        sys.exit(f"{python} is not there. Make LeRobot's environment: sh scripts/lerobot_env.sh")
    script = _ROOT / "scripts" / "peers" / "export_peer.py"
    words = [str(python), str(script), str(folder), "--bundle", str(bundle.path), "--size", size]
    environment = {**os.environ, "PYTHONPATH": str(_ROOT / "src")}
    subprocess.run(words, check=True, env=environment)
    return json.loads((folder / "peer.json").read_text())


def _parameters(bundle: Bundle) -> int:
    """As policy-info counts them."""
    return sum(parameter.numel() for parameter in load_policy(bundle.path).parameters())


def _measured(chosen: argparse.Namespace, bundle: Bundle) -> Measured:
    probes = bundle_probes(bundle, 8, 0)
    workload = Workload(str(bundle.path), probes, chosen.steps, threads=1)
    names = [*chosen.backends, _OURS_ALONE]
    arms = [Arm(name, FP32, k, chosen.steps, 1) for name in names for k in bundle.loops]
    with ExitStack() as stack:
        peers = {
            name: stack.enter_context(
                closing(ChildProcess(f"peer {name}", TimedPeer, chosen.out / "peer", name, 1))
            )
            for name in dict.fromkeys(("torch", *chosen.backends))
        }
        chunks = {name: child.call("chunk", chosen.steps) for name, child in peers.items()}
        for name, chunk in chunks.items():
            error = float(np.abs(chunk - chunks["torch"]).max())
            if not error <= _TOLERANCE:
                raise AssertionError(f"the peer on {name} differs from torch by {error:.2g}")
        timed = [(name, peers[name]) for name in chosen.backends]
        return measure_arms(workload, arms, chosen.repetitions, 0, timed)


def _rows(measured: Measured) -> list[dict[str, Any]]:
    """What each took. The peer has no dial: all its visits are one row."""
    rows: list[dict[str, Any]] = []
    for result in measured.results:
        spread = _spread(result.chunk_ms(WALL), result.chunk_ms(CPU))
        rows.append({"policy": "ours", **_place(result.arm), **spread})
    for name in dict.fromkeys(name for name, _ in measured.yardsticks):
        times = np.concatenate([t for (of, _), t in measured.yardsticks.items() if of == name])
        spread = _spread(*(times[..., COLUMNS[clock]] for clock in (WALL, CPU)))
        rows.append({"policy": "peer", "backend": name, "loops": None, **spread})
    return rows


def _spread(wall_ms: np.ndarray, cpu_ms: np.ndarray) -> dict[str, Any]:
    p50, p90, p99 = np.percentile(wall_ms, (50, 90, 99))
    found = {"p50_ms": p50, "p90_ms": p90, "p99_ms": p99, "min_ms": wall_ms.min()}
    found |= {"max_ms": wall_ms.max(), "cpu_p50_ms": np.median(cpu_ms)}
    return {**{n: round(float(v), 4) for n, v in found.items()}, "repetitions": wall_ms.size}


def _ratios(measured: Measured, clock: str) -> list[dict[str, Any]]:
    """The peer's median over ours: both by one back end, and each by its fastest."""
    rows: list[dict[str, Any]] = []
    theirs = {key: times[..., COLUMNS[clock]] for key, times in measured.yardsticks.items()}
    ours = {result.arm: result.chunk_ms(clock) for result in measured.results}
    for arm, times in ours.items():
        if (arm.backend, arm.work) in theirs:
            ratio = paired_ratio(theirs[arm.backend, arm.work], times, 0)
            rows.append({**_place(arm), "peer_backend": arm.backend, **_ratio(ratio)})
    for work in dict.fromkeys(arm.work for arm in ours):
        peer = min((k for k in theirs if k[1] == work), key=lambda k: np.median(theirs[k]))
        best = min((arm for arm in ours if arm.work == work), key=lambda arm: np.median(ours[arm]))
        ratio = paired_ratio(theirs[peer], ours[best], 0)
        rows.append({**_place(best), "peer_backend": peer[0], "fastest": True, **_ratio(ratio)})
    return rows


def _place(arm: Arm) -> dict[str, Any]:
    return {"backend": arm.backend, "loops": arm.loops}


def _ratio(found: Interval) -> dict[str, Any]:
    return {"peer_over_ours": asdict(found)}


if __name__ == "__main__":
    main()
