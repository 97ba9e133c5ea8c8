"""LeRobot's diffusion policy through the back ends that run ours, in turn with it.

First, in LeRobot's environment (scripts/lerobot_env.sh), which makes the model and exports it:

    PYTHONPATH=src .suites/lerobot/bin/python scripts/peers/export_peer.py outputs/peer
    python scripts/bench_peer_backends.py outputs/peer [--backends torch onnxruntime openvino]

Both start from uint8 frames and proprio and end with 16 actions, float32, batch 1, one thread, in
as many denoising steps; the peer sees two observed steps and samples by DDIM, as it comes. What it
computes on each runtime must agree with torch to 1e-4 before anything is timed. A visit of each and
the clocks are policy-bench's (docs/bench.md): ratios are of times on a core with --clock cpu, the
default, because such machines have other work. Writes OUT/bench_peer_backends.json.
"""

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch

from loopdit.deploy.backends.registry import FP32
from loopdit.deploy.bench.latency import Arm, Workload, measure_arms
from loopdit.deploy.bench.own_process import ChildProcess
from loopdit.deploy.bench.statistics import paired_ratio
from loopdit.deploy.bench.timed_backend import COLUMNS, CPU
from loopdit.deploy.bundle.bundle import Bundle, default_bundle
from loopdit.deploy.bundle.probes import make_probes
from loopdit.machine import describe_machine, machine_and_versions
from loopdit.whole_file import whole_file

RUNTIMES = ("torch", "onnxruntime", "openvino")
_TOLERANCE = 1e-4
Run = Callable[..., np.ndarray]


class TimedPeer:
    """The exported peer on one runtime; answers `time` as a back end does."""

    def __init__(self, folder: Path, runtime: str, threads: int) -> None:
        torch.set_num_threads(threads)
        make = {"torch": _in_torch, "onnxruntime": _in_onnxruntime, "openvino": _in_openvino}
        encode, step = (_loaded(folder / f"{name}.pt2") for name in ("encode", "step"))
        generator = np.random.default_rng(0)
        frames, proprio = (np.array(value) for value in encode.example_inputs[0])
        self._frames = generator.integers(0, 256, frames.shape, np.uint8)
        self._proprio = generator.standard_normal(proprio.shape, np.float32)
        shape = tuple(step.example_inputs[0][0].shape)
        self._noise = generator.standard_normal(shape, np.float32)
        self._encode: Run = make[runtime](encode, threads)
        self._step: Run = make[runtime](step, threads)

    def chunk(self, steps: int) -> np.ndarray:
        """Actions (1, H, A), normalised: DDIM on the cosine schedule of 100 noise levels."""
        conditioning = self._encode(self._frames, self._proprio)
        sample = self._noise
        levels = np.cos((np.arange(101) / 100 + 0.008) / 1.008 * np.pi / 2) ** 2
        for at in np.arange(steps)[::-1] * (100 // steps):
            noise = self._step(sample, np.array([at]), conditioning)
            now, later = levels[at + 1], levels[max(at + 1 - 100 // steps, 0)]
            clean = ((sample - (1 - now) ** 0.5 * noise) / now**0.5).clip(-1, 1)
            sample = (later**0.5 * clean + (1 - later) ** 0.5 * noise).astype(np.float32)
        return sample

    def time(
        self, loops: int, steps: int, batch: int, repetitions: int
    ) -> tuple[np.ndarray, float]:
        """Milliseconds (repetitions, COLUMNS); it has one depth, so `loops` is not looked at."""
        self.chunk(steps)
        times = np.empty((repetitions, len(COLUMNS)))
        for i in range(repetitions):
            cpu, began = process_time(), perf_counter()
            self.chunk(steps)
            times[i] = 1e3 * (perf_counter() - began), 1e3 * (process_time() - cpu)
        return times, float("nan")


def _loaded(path: Path) -> Any:
    return torch.export.load(path)


def _in_torch(program: Any, threads: int) -> Run:
    module = program.module()

    @torch.inference_mode()
    def run(*given: np.ndarray) -> np.ndarray:
        return module(*map(torch.from_numpy, given)).numpy()

    return run


def _onnx(program: Any) -> bytes:
    exported = torch.onnx.export(program, dynamo=True, opset_version=20, verbose=False)
    assert exported is not None
    return exported.model_proto.SerializeToString()


def _in_onnxruntime(program: Any, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(_onnx(program), options)
    names = [tensor.name for tensor in session.get_inputs()]

    def run(*given: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(None, dict(zip(names, given, strict=True)))[0])

    return run


def _in_openvino(program: Any, threads: int) -> Run:
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        # Its generated loops have no Mish, which the peer's U-Net is full of (OpenVINO 2026.4.1).
        "SNIPPETS_MODE": "DISABLE",
    }
    core = openvino.Core()
    request = core.compile_model(core.read_model(_onnx(program)), "CPU", settings)
    return lambda *given: request(list(given))[0]


def main() -> None:
    """Measure, write the record, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("peer", type=Path)
    parser.add_argument("--backends", nargs="+", choices=RUNTIMES, default=list(RUNTIMES))
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repetitions", type=int, default=60)
    parser.add_argument("--clock", choices=COLUMNS, default=CPU)
    parser.add_argument("--out", type=Path, default=Path("outputs/bench-peer"))
    chosen = parser.parse_args()
    peer: dict[str, Any] = json.loads((chosen.peer / "peer.json").read_text())
    bundle = Bundle.open(default_bundle())
    facts = machine_and_versions()
    workload = Workload(
        str(bundle.path), make_probes(bundle.spec, bundle.horizon, 8, 0), chosen.steps, threads=1
    )
    arms = [Arm(name, FP32, k, chosen.steps, 1) for name in chosen.backends for k in bundle.loops]
    with ExitStack() as stack:
        peers = {
            name: stack.enter_context(
                closing(ChildProcess(f"peer {name}", TimedPeer, chosen.peer, name, 1))
            )
            for name in dict.fromkeys(("torch", *chosen.backends))
        }
        chunks = {name: child.call("chunk", chosen.steps) for name, child in peers.items()}
        for name, chunk in chunks.items():
            error = float(np.abs(chunk - chunks["torch"]).max())
            if not error <= _TOLERANCE:
                raise AssertionError(f"the peer on {name} differs from torch by {error:.2g}")
        measured = measure_arms(
            workload, arms, chosen.repetitions, 0, [(n, peers[n]) for n in chosen.backends]
        )
    rows: list[dict[str, Any]] = []
    for result in measured.results:
        arm, column = result.arm, COLUMNS[chosen.clock]
        theirs = measured.yardsticks[arm.backend, arm.work][..., column]
        ours = result.chunk_ms(chosen.clock)
        ratio = paired_ratio(theirs, ours, 0)
        rows.append(
            {
                "backend": arm.backend,
                "loops": arm.loops,
                "ours_ms": float(np.median(ours)),
                "peer_ms": float(np.median(theirs)),
                "peer_over_ours": [ratio.value, ratio.low, ratio.high],
            }
        )
    record = {"peer": peer, "clock": chosen.clock, "steps": chosen.steps, "rows": rows, **facts}
    chosen.out.mkdir(parents=True, exist_ok=True)
    with whole_file(chosen.out / "bench_peer_backends.json") as aside:
        aside.write_text(json.dumps(record, indent=1) + "\n")
    lines = ["| back end | K | ours, ms | peer, ms | peer / ours |", "|---|---|---|---|---|"]
    lines += [
        f"| {row['backend']} | {row['loops']} | {row['ours_ms']:.2f} | {row['peer_ms']:.2f} "
        f"| {row['peer_over_ours'][0]:.2f} "
        f"[{row['peer_over_ours'][1]:.2f}, {row['peer_over_ours'][2]:.2f}] |"
        for row in rows
    ]
    lines += [f"{one.backend}: not measured: {one.reason}" for one in measured.missing]
    lines.append(f"medians by the {chosen.clock} clock; the peer has {peer['parameters']['all']:,}")
    lines[-1] += f" parameters; {describe_machine(facts)}"
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
