"""How near backend=fused is to what this CPU can do, beside ONNX Runtime and eager torch.

    python scripts/bench_fused.py [bundle=FOLDER] [rounds=20] [out=FILE.json]

For each K, one observation, the bundle's own number of denoising steps, one thread:

    floor      the larger of operations / measured peak and bytes of weights / measured bandwidth of
               the cache that holds them
    products   the chunk's matrix products and convolutions alone, by our own tiles
    the rest   whole chunks, observation in, actions out
    error      the largest of 16 chunks from the trained module's in float64, in normalised units

Each runtime is a process of its own, as their thread pools disturb each other; they take turns in
random order, and all but one wait. Times are of the CPU and not of the clock on the wall: one
thread takes the same by both on a quiet machine, and on a busy one the wall counts the others'
work. Of each turn the fastest of several chunks counts, because a cache that others have used
only slows; of the turns, the median. The floor's program is `fused_floor.cpp`.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from loopdit.deploy.backends import load_backend
from loopdit.deploy.backends.fused.cpu_library import COMPILE_OPTIONS
from loopdit.deploy.backends.registry import cpp_compiler
from loopdit.deploy.bundle.bundle import Bundle, default_bundle
from loopdit.deploy.bundle.probes import Probes, bundle_probes
from loopdit.deploy.export.parity import backend_chunks
from loopdit.machine import machine_and_versions
from loopdit.policy.checkpoint import load_policy
from loopdit.policy.encoders.keypoints import KeypointEncoder
from loopdit.policy.looped_policy import LoopedPolicy

CHUNKS = 10
PROBES = 16
PRECISIONS = ("fp32", "bf16")
BACKENDS = ("fused fp32", "fused bf16", "onnxruntime fp32", "torch fp32")
REPOSITORY = Path(__file__).resolve().parent.parent
# Multiply-adds of one camera's stem a pixel of its frame: 75 inputs to 16 channels at a quarter of
# the pixels, 144 to 32 at a sixteenth, 288 to 64 and 64 to 64 at a 64th.
STEM = 75 * 16 / 4 + 144 * 32 / 16 + (288 + 64) * 64 / 64


class Arm:
    """A process that answers a line for a line."""

    def __init__(self, command: list[str]) -> None:
        alone = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | alone,
        )

    def ask(self, question: str) -> float:
        """Seconds, or a rate."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(question + "\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """Return when it has ended."""
        self._process.communicate()


def serve_backend(bundle: Bundle, backend: str, precision: str) -> None:
    """An arm's own process: for "time K" the fastest chunk of some, in CPU seconds; for "error K"
    how far its chunks are from the trained module's in float64."""
    loaded = load_backend(bundle, backend, threads=1, precision=precision)
    probes = bundle_probes(bundle, PROBES, seed=0)
    observation, noise = probes.batch(0, 1)
    for line in sys.stdin:
        what, loops = line.split()[0], int(line.split()[1])
        answer = float("inf")
        if what == "error":
            found = backend_chunks(loaded, probes, loops, bundle.steps)
            answer = largest_error(load_policy(bundle.path), probes, found, loops, bundle.steps)
        else:
            for _ in range(CHUNKS + 1):
                began = time.process_time()
                loaded.denoise(loaded.encode(observation, loops), noise, bundle.steps)
                answer = min(answer, time.process_time() - began)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


def largest_error(
    policy: LoopedPolicy, probes: Probes, found: np.ndarray, loops: int, steps: int
) -> float:
    """Of chunks (N, H, A) from what `policy` does in float64, in normalised units."""
    torch.set_default_dtype(torch.float64)  # of what the module makes itself
    try:
        seen = {
            name: torch.from_numpy(value.astype(np.float64) if value.dtype.kind == "f" else value)
            for name, value in probes.observations.items()
        }
        noise = torch.from_numpy(probes.noise).double()
        exact = deepcopy(policy).double().act(seen, noise, loops, steps).numpy()
    finally:
        torch.set_default_dtype(torch.float32)
    return float((np.abs(found - exact) / policy.normalizer.action_spread.numpy()).max())


def floor_sizes(bundle: Bundle) -> dict[str, int]:
    """The arguments of fused_floor.cpp, in their order."""
    policy = load_policy(bundle.path)
    model, config, sides = policy.model, policy.config, {c.shape[0] for c in bundle.spec.cameras}
    if len(sides) != 1 or not isinstance(model.cameras[0], KeypointEncoder) or config.history > 1:
        sys.exit("the floor is written for keypoint encoders of equal frames, without history.")
    return {
        "width": config.width,
        "hidden": model.stack[0].feedforward_out.in_features,
        "blocks": config.blocks,
        "cameras": len(model.cameras),
        "side": sides.pop(),
        "observed": sum(model.camera_tokens) + 1 + (model.instruction is not None),
        "rows": config.action_horizon // config.actions_per_token,
        "together": config.actions_per_token * bundle.spec.action.shape[0],
    }


def floor(
    sizes: dict[str, int], loops: int, steps: int, precision: str, rates: dict[str, float]
) -> float:
    """Seconds. Projections of keypoints and a step's first and last layer are always float32."""
    width, observed, rows = sizes["width"], sizes["observed"], sizes["rows"]
    weights = sizes["blocks"] * width * (4 * width + 3 * sizes["hidden"])
    kept = 2 * width * width
    tokens = observed * (loops - 1) + rows * loops * steps
    wide = 2 * (weights * tokens + kept * observed)
    stems = 2 * sizes["cameras"] * STEM * sizes["side"] ** 2
    exact = 2 * width * (sizes["cameras"] * 4 * 48 + 2 * steps * rows * sizes["together"])
    passes = loops * steps + loops - 1
    each = {"fp32": 4, "bf16": 2}[precision]
    read = (weights * passes + kept) * each
    peak = rates[f"peak {precision}"]
    blocks = max(wide / peak, read / rates[f"read {precision}"])
    return exact / rates["peak fp32"] + stems / peak + blocks


def measure(bundle: Bundle, rounds: int) -> dict[str, Any]:
    """All of it, as JSON."""
    sizes, steps = floor_sizes(bundle), bundle.steps
    times: dict[tuple[str, int], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "floor")
        compiler = cpp_compiler()
        if compiler is None:
            sys.exit("needs a C++ compiler: install g++ or clang++, or name one in CXX.")
        options = [option for option in COMPILE_OPTIONS if option not in ("-shared", "-fPIC")]
        include = f"-I{REPOSITORY}/deploy/backends/fused"
        source = str(REPOSITORY / "scripts" / "fused_floor.cpp")
        subprocess.run([compiler, *options, include, source, "-o", str(program)], check=True)
        limits = Arm([str(program), *map(str, sizes.values())])
        mine = [sys.executable, __file__, f"bundle={bundle.path}"]
        arms = {name: Arm([*mine, f"arm={name}"]) for name in BACKENDS}
        asks: dict[tuple[str, int], Callable[[], float]] = {}
        for k in bundle.loops:
            for name, arm in arms.items():
                asks[name, k] = lambda arm=arm, k=k: arm.ask(f"time {k}")
            for i, precision in enumerate(PRECISIONS):
                question = f"products {k} {steps} {i}"
                asks[f"products {precision}", k] = lambda question=question: limits.ask(question)
        weights = sizes["blocks"] * sizes["width"] * (4 * sizes["width"] + 3 * sizes["hidden"])
        rates = {f"peak {p}": limits.ask(f"peak {i}") for i, p in enumerate(PRECISIONS)}
        rates |= {
            f"read {p}": limits.ask(f"read {weights * size}")
            for p, size in zip(PRECISIONS, (4, 2), strict=True)
        }
        order = random.Random(0)
        for _ in range(rounds):
            for key in order.sample(list(asks), len(asks)):
                times[key].append(asks[key]())
        errors = {
            f"{name} K={k}": arms[name].ask(f"error {k}") for name in BACKENDS for k in bundle.loops
        }
        for arm in (limits, *arms.values()):
            arm.close()
    for k in bundle.loops:
        for precision in PRECISIONS:
            times[f"floor {precision}", k] = [floor(sizes, k, steps, precision, rates)]
    found = {f"{name} K={k}": median(each) for (name, k), each in times.items()}
    return {"sizes": sizes, "steps": steps, "rates": rates, "seconds": found, "errors": errors}


def table(report: dict[str, Any], loops: tuple[int, ...]) -> str:
    """Milliseconds of each arm, then how many times as long as the floor the kernels take, and the
    others as the kernels."""
    seconds = report["seconds"]
    names = [f"floor {p}" for p in PRECISIONS] + [f"products {p}" for p in PRECISIONS]
    lines = ["| ms | " + " | ".join(f"K = {k}" for k in loops) + " |"]
    lines.append("|---" * (len(loops) + 1) + "|")
    for name in (*names, *BACKENDS):
        cells = (f"{1e3 * seconds[f'{name} K={k}']:.3f}" for k in loops)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    ratios = [("fused fp32", "floor fp32"), ("fused fp32", "products fp32")]
    ratios += [("fused bf16", "floor bf16"), ("fused bf16", "products bf16")]
    ratios += [(other, mine) for mine in BACKENDS[:2] for other in BACKENDS[2:]]
    for above, below in ratios:
        cells = (f"{seconds[f'{above} K={k}'] / seconds[f'{below} K={k}']:.2f}" for k in loops)
        lines.append(f"| {above} / {below} | " + " | ".join(cells) + " |")
    for name in BACKENDS:
        cells = (f"{report['errors'][f'{name} K={k}']:.1e}" for k in loops)
        lines.append(f"| error of {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """See the module."""
    if not all("=" in argument for argument in sys.argv[1:]):
        sys.exit(__doc__)
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    bundle = Bundle.open(given.get("bundle", default_bundle()))
    if "arm" in given:
        serve_backend(bundle, *given["arm"].split())
        return
    report = measure(bundle, int(given.get("rounds", 20)))
    sys.stdout.write(f"{json.dumps(report['rates'])}\n{table(report, bundle.loops)}\n")
    if "out" in given:
        Path(given["out"]).write_text(json.dumps(report | {"machine": machine_and_versions()}))


if __name__ == "__main__":
    main()
