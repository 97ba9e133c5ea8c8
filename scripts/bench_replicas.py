"""How `policy-serve replicas=N` scales: chunks a second and p50, p99 of the round trip, for numbers
of replicas and of clients that ask back to back.

    python scripts/bench_replicas.py --out replicas.json --seconds 4 backend=fused

One server for each number of replicas runs all the time; the pairs take turns in random order, so
that what else the machine does falls on all alike. Clients are threads of this process, which needs
a core of its own. Options by name=value are passed to `policy-serve`.
"""

import argparse
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from loopdit.deploy.client import PolicyClient
from loopdit.machine import describe_machine, machine_and_versions


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("outputs/replicas.json"))
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("options", nargs="*", help="of policy-serve, as name=value")
    given = parser.parse_args()
    waits: dict[tuple[int, int], list[float]] = {}
    seconds: dict[tuple[int, int], float] = {}
    with ExitStack() as stack:
        endpoints = {n: _serve(n, given.options, stack) for n in given.replicas}
        for turn in range(given.rounds):
            pairs = [(n, m) for n in given.replicas for m in given.clients]
            random.Random(turn).shuffle(pairs)
            for pair in pairs:
                found, took_s = _load(endpoints[pair[0]], pair[1], given.seconds)
                waits.setdefault(pair, []).extend(found)
                seconds[pair] = seconds.get(pair, 0.0) + took_s
    rows = [_row(pair, waits[pair], seconds[pair]) for pair in sorted(waits)]
    facts = machine_and_versions()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps({"rows": rows, "served": given.options, **facts}) + "\n")
    _print(rows, describe_machine(facts))


def _serve(replicas: int, options: list[str], stack: ExitStack) -> str:
    command = ["-m", "loopdit.deploy.serving.command", "address=tcp://127.0.0.1:0", *options]
    server = stack.enter_context(
        subprocess.Popen(
            [sys.executable, *command, f"replicas={replicas}"], stdout=subprocess.PIPE, text=True
        )
    )
    stack.callback(server.terminate)
    assert server.stdout
    for line in server.stdout:
        if line.startswith("ready "):
            return line.split()[1]
    sys.exit(f"policy-serve replicas={replicas} did not get ready: its reason is above.")


def _load(endpoint: str, clients: int, seconds: float) -> tuple[list[float], float]:
    """The seconds that each answered request took, and how long all asked."""
    waits: list[float] = []
    begin = threading.Barrier(clients + 1)
    end_s = [0.0]

    def ask() -> None:
        with PolicyClient(endpoint, timeout_s=60) as policy:
            seen = {t.name: np.zeros(t.shape, t.dtype) for t in policy.spec.observations}
            policy.infer(seen, instruction="pick up the red cube")
            begin.wait()
            while time.perf_counter() < end_s[0]:
                waits.append(policy.infer(seen, instruction="pick up the red cube").latency_s)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    end_s[0] = float("inf")
    begin.wait()
    began = time.perf_counter()
    end_s[0] = began + seconds
    for thread in threads:
        thread.join()
    return waits, time.perf_counter() - began


def _row(pair: tuple[int, int], waits: list[float], seconds: float) -> dict[str, Any]:
    half, most = np.percentile(np.array(waits), [50, 99]) * 1e3
    return {
        "replicas": pair[0],
        "clients": pair[1],
        "chunks_per_s": round(len(waits) / seconds, 1),
        "p50_ms": round(float(half), 2),
        "p99_ms": round(float(most), 2),
        "n": len(waits),
    }


def _print(rows: Sequence[dict[str, Any]], machine: str) -> None:
    names = list(rows[0])
    lines = [" | ".join(names), " | ".join("---" for _ in names)]
    lines += [" | ".join(str(row[name]) for name in names) for row in rows]
    sys.stdout.write("\n".join(f"| {line} |" for line in lines) + f"\n\n{machine}\n")


if __name__ == "__main__":
    main()
