"""A diffusion policy that `export_peer.py` exported, on one runtime, with a stopwatch.

Each runtime is used as our own back ends use it: threads as told, no spinning, no streams. Knows
nothing of whose policy it is: encode.pt2 makes the conditioning, step.pt2 predicts the noise.

Shapes: H horizon, A action dim; a batch of one.
"""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch

RUNTIMES = ("torch", "onnxruntime", "openvino")
_LEVELS = 100  # of noise, that it was made for
Run = Callable[..., np.ndarray]


class TimedPeer:
    """Answers `time` as `loopdit.deploy.bench.timed_backend.TimedBackend` does."""

    def __init__(self, folder: Path, runtime: str, threads: int) -> None:
        torch.set_num_threads(threads)
        make = {"torch": _in_torch, "onnxruntime": _in_onnxruntime, "openvino": _in_openvino}
        encode, step = (_loaded(folder / f"{name}.pt2") for name in ("encode", "step"))
        generator = np.random.default_rng(0)
        frames, proprio = (value.numpy() for value in encode.example_inputs[0])
        self._frames = generator.integers(0, 256, frames.shape, np.uint8)
        self._proprio = generator.standard_normal(proprio.shape, np.float32)
        shape = tuple(step.example_inputs[0][0].shape)
        self._noise = generator.standard_normal(shape, np.float32)
        self._encode: Run = make[runtime](encode, threads)
        self._step: Run = make[runtime](step, threads)

    def given(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Frames, proprio and noise of `chunk`."""
        return self._frames, self._proprio, self._noise

    def chunk(self, steps: int) -> np.ndarray:
        """Actions (1, H, A), normalised: DDIM on the cosine schedule of 100 noise levels."""
        conditioning = self._encode(self._frames, self._proprio)
        sample, stride = self._noise, _LEVELS // steps
        levels = np.cos((np.arange(_LEVELS + 1) / _LEVELS + 0.008) / 1.008 * np.pi / 2) ** 2
        levels /= levels[0]  # what is left of the signal, all of it at the end
        for at in np.arange(steps)[::-1] * stride:
            noise = self._step(sample, np.array([at]), conditioning)
            now, later = levels[at + 1], levels[max(at + 1 - stride, 0)]
            clean = ((sample - (1 - now) ** 0.5 * noise) / now**0.5).clip(-1, 1)
            sample = (later**0.5 * clean + (1 - later) ** 0.5 * noise).astype(np.float32)
        return sample

    def time(
        self, loops: int, steps: int, batch: int, repetitions: int
    ) -> tuple[np.ndarray, float]:
        """Milliseconds (repetitions, 2) by the wall and on a core, after one chunk untimed; it has
        one depth, so `loops` is not looked at."""
        self.chunk(steps)
        times = np.empty((repetitions, 2))
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
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, unasked
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of what torch itself calls
        exported = torch.onnx.export(program, dynamo=True, opset_version=20, verbose=False)
    assert exported is not None  # it is None only when exporting to a file
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
