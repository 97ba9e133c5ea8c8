"""The bundle's ONNX graphs on the CPU by ONNX Runtime.

One pair of sessions for each K, made at its first use: they map the shared weights file rather
than copy it, but each packs its own matrices. Keys and values stay in the runtime's memory from
`encode` through every denoising step.
"""

from typing import Any

import numpy as np
import onnxruntime

from loopdit.datasets.spec import COMMITTED, Observation
from loopdit.deploy.backends import Context
from loopdit.deploy.bundle import Bundle
from loopdit.errors import BundleError

_KEPT_STEP_TIMES = 32  # (batch, steps) pairs; a client may ask for any


class OnnxRuntimeBackend:
    """See `Backend`."""

    name = "onnxruntime"
    device = "cpu"
    precision = "fp32"

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self.threads = threads
        self._bundle = bundle
        self._sessions: dict[tuple[str, int], onnxruntime.InferenceSession] = {}
        self._times: dict[tuple[int, int], tuple[list[Any], Any]] = {}

    def encode(self, observation: Observation, loops: int) -> Context:
        """See `Backend.encode`. Raises BundleError for a K that was not exported."""
        session = self._session("encode", loops)
        binding = session.io_binding()
        # A tensor inside a received message may start at any byte.
        given = {name: np.require(value, None, ["C", "A"]) for name, value in observation.items()}
        for tensor in session.get_inputs():
            binding.bind_cpu_input(tensor.name, given[tensor.name])
        made = [tensor.name for tensor in session.get_outputs()]
        for name in made:
            binding.bind_output(name)
        session.run_with_iobinding(binding)
        tensors = dict(zip(made, binding.get_outputs(), strict=True))
        if COMMITTED in given:
            tensors[COMMITTED] = _ort_value(given[COMMITTED])
        return Context(loops, len(next(iter(given.values()))), tensors)

    def denoise(self, context: Context, noise: np.ndarray, steps: int) -> np.ndarray:
        """See `Backend.denoise`."""
        session = self._session("denoise", context.loops)
        binding = session.io_binding()
        for tensor in session.get_inputs():
            if tensor.name in context.tensors:
                binding.bind_ortvalue_input(tensor.name, context.tensors[tensor.name])
        times, dt = self._step_times(context.batch, steps)
        binding.bind_ortvalue_input("dt", dt)
        # Two buffers take turns as a step's input and output: a graph must not write what it reads.
        sample = np.array(noise, np.float32, order="C")
        here, there = _ort_value(sample), _ort_value(np.empty_like(sample))
        actions = np.empty_like(sample)
        binding.bind_ortvalue_output("actions", _ort_value(actions))
        for time in times:
            binding.bind_ortvalue_input("t", time)
            binding.bind_ortvalue_input("sample", here)
            binding.bind_ortvalue_output("next_sample", there)
            session.run_with_iobinding(binding)
            here, there = there, here
        return actions

    def _step_times(self, batch: int, steps: int) -> tuple[list[Any], Any]:
        """The inputs t (one a step) and dt, which depend on nothing else: made once."""
        key = (batch, steps)
        if key not in self._times:
            if len(self._times) >= _KEPT_STEP_TIMES:
                self._times.clear()
            times = [_ort_value(np.full(batch, i / steps, np.float32)) for i in range(steps)]
            self._times[key] = times, _ort_value(np.full(batch, 1 / steps, np.float32))
        return self._times[key]

    def _session(self, kind: str, loops: int) -> onnxruntime.InferenceSession:
        key = (kind, loops)
        if key not in self._sessions:
            self._bundle.require_loops(loops)
            self._bundle.require_unchanged()  # else one K would act by other weights than another
            path = self._bundle.graph(kind, loops)
            try:
                self._sessions[key] = onnxruntime.InferenceSession(
                    str(path), _session_options(self.threads), providers=["CPUExecutionProvider"]
                )
            except Exception as error:  # the runtime's errors share no narrower base
                raise BundleError(
                    f"onnxruntime {onnxruntime.__version__} cannot load {path}: {error} "
                    f"Use backend=torch, or another version of onnxruntime."
                ) from error
        return self._sessions[key]


def _session_options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1  # the graphs are a chain: nothing to run side by side
    options.log_severity_level = 3
    # Idle threads that spin steal the core a simulator or a camera needs: with other work on two
    # cores, spinning made a chunk 2.5 to 3 times slower (p50, K = 1 and 4, 2 threads).
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _ort_value(array: np.ndarray) -> Any:
    """A view of `array` (C order) for the runtime, which reads and writes its memory in place."""
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)
