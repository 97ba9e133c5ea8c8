"""How often `policy-serve` keeps a deadline, and how deep it computes for it: one client that asks
with budgets in random order, 50 times a second.

    python scripts/bench_deadlines.py --requests 400 backend=fused

In time: the server had the chunk packed within the budget, by its own clock (queue, decode, encode,
denoise and send of the reply), of the requests that it did not refuse. Options by name=value are
passed to `policy-serve`.
"""

import argparse
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence

import numpy as np

from loopdit.deploy.client import PolicyClient
from loopdit.deploy.messages import ErrorCode, WireError
from loopdit.machine import describe_machine, machine_and_versions

_PERIOD_S = 0.02


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budgets-ms", type=float, nargs="+", default=[2, 3, 5, 10, 20, 50, 200])
    parser.add_argument("--requests", type=int, default=400, help="of each budget")
    parser.add_argument("options", nargs="*", help="of policy-serve, as name=value")
    given = parser.parse_args()
    command = ["-m", "loopdit.deploy.serving.command", "address=tcp://127.0.0.1:0", *given.options]
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            lines = iter(server.stdout)
            endpoint = next(line for line in lines if line.startswith("ready ")).split()[1]
            rows = _ask(endpoint, given.budgets_ms * given.requests)
        finally:
            server.terminate()
    _print(rows)


def _ask(endpoint: str, budgets_ms: list[float]) -> list[tuple[float, str, float]]:
    """For each request its budget, what was run (empty: refused), and the server's ms."""
    random.Random(0).shuffle(budgets_ms)
    rows: list[tuple[float, str, float]] = []
    with PolicyClient(endpoint, timeout_s=60) as policy:
        seen = {t.name: np.zeros(t.shape, t.dtype) for t in policy.spec.observations}
        next_s = time.monotonic()
        for budget_ms in budgets_ms:
            next_s = max(next_s + _PERIOD_S, time.monotonic())
            time.sleep(max(0.0, next_s - time.monotonic()))
            try:
                reply = policy.infer(
                    seen, instruction="pick up the red cube", budget_s=budget_ms / 1e3
                )
            except WireError as error:
                if error.code != ErrorCode.LATE:
                    raise
                rows.append((budget_ms, "", 0.0))
                continue
            took_ms = sum(reply.timing_us.values()) / 1e3
            rows.append((budget_ms, f"{reply.loops}x{reply.steps}", took_ms))
    return rows


def _print(rows: Sequence[tuple[float, str, float]]) -> None:
    sys.stdout.write(
        "| budget, ms | refused | in time | p50, ms | K x steps |\n|---|---|---|---|---|\n"
    )
    for budget_ms in sorted({row[0] for row in rows}):
        here = [row for row in rows if row[0] == budget_ms]
        took = np.array([row[2] for row in here if row[1]])
        ran = Counter(row[1] for row in here if row[1]).most_common(3)
        within = f"{np.mean(took <= budget_ms):.1%}" if len(took) else "-"
        half = f"{np.median(took):.2f}" if len(took) else "-"
        shares = ", ".join(f"{rung} {count / len(here):.0%}" for rung, count in ran)
        refused = 1 - len(took) / len(here)
        sys.stdout.write(f"| {budget_ms:g} | {refused:.0%} | {within} | {half} | {shares} |\n")
    facts = machine_and_versions()
    sys.stdout.write(f"\n{len(rows)} requests. {describe_machine(facts)}\n")


if __name__ == "__main__":
    main()
