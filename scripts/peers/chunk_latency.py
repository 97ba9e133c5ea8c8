"""How long a chunk takes of each policy at each depth, in turn, in one thread.

    python scripts/peers/chunk_latency.py OUT.json NAME=POLICY=1:0,4:0 ... [--repetitions 40]

POLICY is a checkpoint's folder, which is timed by torch, and by the fused kernels where there are
some for it; or the address of a server, whose own clock then counts: the wire is nobody's latency.
Each repetition times every policy at every K:STEPS once, in a seeded random order, so that whatever
else the machine does falls on all alike; one chunk before it, untimed, brings its weights back into
the caches. No sample is removed.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from opened import Opened, opened
from standings import FUSED, TORCH

from loopdit.datasets.spec import PolicySpec
from loopdit.errors import BundleError, LoopditError
from loopdit.eval.rollouts.policy_sources import WIRE_SCHEMES
from loopdit.machine import describe_machine, machine_and_versions
from loopdit.whole_file import whole_file


class _Timed(NamedTuple):
    backend: str
    name: str
    loops: int
    steps: int


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("policies", nargs="+", metavar="NAME=POLICY=K:STEPS,...")
    parser.add_argument("--repetitions", type=int, default=40)
    chosen = parser.parse_args()
    named = [text.split("=") for text in chosen.policies]
    facts = machine_and_versions()
    with ExitStack() as stack:
        try:
            policies = {
                (backend, name): policy
                for name, path, _ in named
                for backend, policy in _by_backend(stack, path)
            }
            timed = [
                _Timed(backend, name, *map(int, condition.split(":")))
                for name, _, conditions in named
                for backend in (TORCH, FUSED)
                if (backend, name) in policies
                for condition in conditions.split(",")
            ]
            samples = measure(policies, timed, chosen.repetitions)
        except LoopditError as error:
            sys.exit(f"chunk_latency: {error}")
    rows = [{**key._asdict(), **_summary(ms)} for key, ms in samples.items()]
    record = {"repetitions": chosen.repetitions, "threads": 1, "rows": rows, **facts}
    with whole_file(chosen.out) as aside:
        aside.write_text(json.dumps(record, indent=1) + "\n")
    for row in rows:
        sys.stdout.write(
            f"{row['name']} K = {row['loops']}, {row['backend']}: p50 {row['p50_ms']:.2f} ms\n"
        )
    sys.stdout.write(f"{describe_machine(facts)}\n")


def _by_backend(stack: ExitStack, path: str) -> Iterator[tuple[str, Opened]]:
    yield TORCH, stack.enter_context(opened(path))
    if path.startswith(WIRE_SCHEMES):
        return
    try:
        yield FUSED, stack.enter_context(opened(path, FUSED))
    except BundleError as error:
        sys.stdout.write(f"{path}: by torch alone: {error}\n")


def measure(
    policies: Mapping[tuple[str, str], Opened], timed: Sequence[_Timed], repetitions: int
) -> dict[_Timed, np.ndarray]:
    """Milliseconds (repetitions,) of each."""
    random = np.random.default_rng(0)
    seen = {place: _observation(policy.spec, random) for place, policy in policies.items()}
    found: dict[_Timed, list[float]] = {key: [] for key in timed}
    for repetition in range(repetitions):
        for index in random.permutation(len(timed)):
            key = timed[int(index)]
            for last in (False, True):
                place = (key.backend, key.name)
                made = policies[place].make(seen[place], repetition, key.loops, key.steps)
                if last:
                    found[key].append(1000 * made.seconds)
    return {key: np.array(ms) for key, ms in found.items()}


def _observation(spec: PolicySpec, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Values that no branch depends on."""
    return {
        tensor.name: random.integers(0, 256, tensor.shape, np.uint8)
        if tensor.is_image
        else random.standard_normal(tensor.shape).astype(np.float32)
        for tensor in spec.observations
    }


def _summary(ms: np.ndarray) -> dict[str, Any]:
    q25, p50, q75, p99 = np.percentile(ms, [25, 50, 75, 99])
    named = {"p50_ms": p50, "q25_ms": q25, "q75_ms": q75, "p99_ms": p99, "fastest_ms": ms.min()}
    return {
        **{name: float(value) for name, value in named.items()},
        "ms": [round(float(value), 3) for value in ms],
    }


if __name__ == "__main__":
    main()
