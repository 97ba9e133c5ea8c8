"""The bundle's ONNX graphs by ONNX Runtime: on the CPU, or on a GPU by CUDA or TensorRT.

One pair of sessions for each K, made at its first use: they map the shared weights file rather
than copy it, but each packs its own matrices. Keys and values stay in the runtime's memory, on the
device, from `encode` through every denoising step.
"""

import importlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from loopdit.cache_folder import cache_folder
from loopdit.datasets.spec import COMMITTED, Observation
from loopdit.deploy.backends.protocol import Context
from loopdit.deploy.backends.registry import BackendOptions
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.errors import BundleError, OutOfMemory

_KEPT_STEP_TIMES = 32  # (batch, steps) pairs; a client may ask for any
# How its allocators say that there is no memory left: that of its arena, and CUDA's.
_FULL = ("Failed to allocate memory", "CUDA failure 2:", "out of memory")


@contextmanager
def enough_memory() -> Generator[None]:
    """Raise OutOfMemory, with the remedy, where the runtime finds no memory left; its errors share
    no type for that, only words."""
    try:
        yield
    except Exception as error:
        if not any(words in str(error) for words in _FULL):
            raise
        raise OutOfMemory(
            f"onnxruntime has too little free memory for this policy at this batch size: {error} "
            f"Use a smaller batch, end other programs (nvidia-smi lists those on a GPU), or use "
            f"another backend=."
        ) from error


@dataclass(frozen=True)
class _Place:
    """Where graphs run. providers: the runtime's names and options, the first is the one meant."""

    name: str
    device: str
    providers: tuple[Any, ...]


class OnnxRuntimeBackend:
    """See `Backend`."""

    def __init__(self, bundle: Bundle, options: BackendOptions, place: _Place) -> None:
        bundle.require_precision(options.precision)
        self.name = place.name
        self.device = place.device
        self.precision = options.precision
        self.threads = options.threads
        self._bundle = bundle
        self._providers = place.providers
        self._sessions: dict[tuple[str, int], onnxruntime.InferenceSession] = {}
        self._times: dict[tuple[int, int], tuple[list[Any], Any]] = {}

    @enough_memory()
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
            binding.bind_output(name, self.device)
        session.run_with_iobinding(binding)
        tensors = dict(zip(made, binding.get_outputs(), strict=True))
        if COMMITTED in given:
            tensors[COMMITTED] = self._value(given[COMMITTED])
        return Context(loops, len(next(iter(given.values()))), tensors)

    @enough_memory()
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
        here, there = self._value(sample), self._value(np.empty_like(sample))
        actions = self._value(np.empty_like(sample))
        binding.bind_ortvalue_output("actions", actions)
        for time in times:
            binding.bind_ortvalue_input("t", time)
            binding.bind_ortvalue_input("sample", here)
            binding.bind_ortvalue_output("next_sample", there)
            session.run_with_iobinding(binding)
            here, there = there, here
        return np.array(actions.numpy())  # a copy: on the CPU it is the memory of the value

    @enough_memory()
    def predict(self, context: Context, sample: np.ndarray, level: float) -> np.ndarray:
        """See `guided.PredictingBackend`: a step that goes all the way ends at the chunk itself."""
        session = self._session("denoise", context.loops)
        binding = session.io_binding()
        t = np.full(context.batch, level, np.float32)
        step = {"sample": np.array(sample, np.float32, order="C"), "t": t, "dt": 1 - t}
        for tensor in session.get_inputs():
            given = context.tensors.get(tensor.name)
            value = self._value(step[tensor.name]) if given is None else given
            binding.bind_ortvalue_input(tensor.name, value)
        binding.bind_output("next_sample", self.device)
        session.run_with_iobinding(binding)
        return np.array(binding.get_outputs()[0].numpy())

    def _step_times(self, batch: int, steps: int) -> tuple[list[Any], Any]:
        """The inputs t (one a step) and dt, which depend on nothing else: made once."""
        key = (batch, steps)
        if key not in self._times:
            if len(self._times) >= _KEPT_STEP_TIMES:
                self._times.clear()
            times = [self._value(np.full(batch, i / steps, np.float32)) for i in range(steps)]
            self._times[key] = times, self._value(np.full(batch, 1 / steps, np.float32))
        return self._times[key]

    def _value(self, array: np.ndarray) -> Any:
        """`array` (C order) for the runtime: on the CPU its own memory, on a GPU a copy."""
        return onnxruntime.OrtValue.ortvalue_from_numpy(array, self.device)

    def _session(self, kind: str, loops: int) -> onnxruntime.InferenceSession:
        key = (kind, loops)
        if key not in self._sessions:
            self._bundle.require_loops(loops)
            self._bundle.require_unchanged()  # else one K would act by other weights than another
            self._sessions[key] = self._load(self._bundle.graph(kind, loops, self.precision))
        return self._sessions[key]

    def _load(self, path: Path) -> onnxruntime.InferenceSession:
        try:
            with enough_memory():
                session = onnxruntime.InferenceSession(
                    str(path), _session_options(self.threads), providers=self._providers
                )
        except OutOfMemory:
            raise
        except Exception as error:  # the runtime's errors share no narrower base
            said = " ".join(str(error).split())
            raise BundleError(
                f"onnxruntime {onnxruntime.__version__} cannot load {path}: {said} "
                f"Use backend=torch, or another version of onnxruntime."
            ) from error
        meant = self._providers[0][0]
        if meant not in session.get_providers():  # it goes on with the next, and says so in a log
            raise BundleError(
                f"onnxruntime {onnxruntime.__version__} could not start its {meant}: see what it "
                f"printed. It needs the CUDA, cuDNN and TensorRT releases that it was built for."
            )
        return session


def _session_options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1  # the graphs are a chain: nothing to run side by side
    options.log_severity_level = 3
    # Idle threads that spin steal the core a simulator or a camera needs: with other work on two
    # cores, spinning made a chunk 2.5 to 3 times slower (p50, K = 1 and 4, 2 threads).
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


_CPU = ("CPUExecutionProvider", {})
# Without TF32, which keeps 10 bits of a product where float32 is asked for.
_CUDA = ("CUDAExecutionProvider", {"use_tf32": "0"})


def load(bundle: Bundle, options: BackendOptions) -> OnnxRuntimeBackend:
    """On the CPU; see `registry.Loader`."""
    return OnnxRuntimeBackend(bundle, options, _Place("onnxruntime", "cpu", (_CPU,)))


def load_cuda(bundle: Bundle, options: BackendOptions) -> OnnxRuntimeBackend:
    """By the CUDA provider; see `registry.Loader`."""
    onnxruntime.preload_dlls()  # out of NVIDIA's packages, where the loader does not look
    return OnnxRuntimeBackend(bundle, options, _Place("onnxruntime-cuda", "cuda", (_CUDA, _CPU)))


def load_tensorrt(bundle: Bundle, options: BackendOptions) -> OnnxRuntimeBackend:
    """By the TensorRT provider, which builds engines at first and keeps them; see `Loader`."""
    name = "onnxruntime-tensorrt"
    onnxruntime.preload_dlls()
    tensorrt = importlib.import_module("tensorrt")  # brings its libraries into the process, too
    # The runtime names its engines by graph and GPU; here also by what reads them.
    folder = cache_folder(name) / f"{onnxruntime.__version__}-{tensorrt.__version__}"
    folder.mkdir(parents=True, exist_ok=True)
    engines = {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder),
    }
    providers = (("TensorrtExecutionProvider", engines), _CUDA, _CPU)
    return OnnxRuntimeBackend(bundle, options, _Place(name, "cuda", providers))
