"""The bundle's ONNX graphs on the CPU by OpenVINO, in float32 or with bf16 inside.

One pair of compiled graphs for each (K, batch), made at its first use: with the batch fixed a
denoising step takes two thirds of the time (measured at batch 1, K = 3: 0.11 against 0.17 ms).
Graphs are read by the runtime itself, not by its converter, which reports usage to its maker.
"""

from typing import Any

import numpy as np
import openvino

from loopdit.datasets.spec import COMMITTED, Observation
from loopdit.deploy.backends.openvino_core import CORE
from loopdit.deploy.backends.protocol import Context
from loopdit.deploy.backends.registry import FP32, BackendOptions
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.errors import BundleError

# (batch, K) pairs; a client may ask for any batch, and each holds a copy of the weights.
_KEPT_PAIRS = 16
_HINTS = {FP32: "f32", "bf16": "bf16"}


class OpenVinoBackend:
    """See `Backend`."""

    name = "openvino"
    device = "cpu"

    def __init__(self, bundle: Bundle, options: BackendOptions) -> None:
        self.threads = options.threads
        self.precision = options.precision
        self._bundle = bundle
        self._core = CORE
        self._requests: dict[tuple[int, int], dict[str, Any]] = {}
        capabilities = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if options.precision == "bf16" and "BF16" not in capabilities:
            # The hint would be ignored without a word.
            raise BundleError(
                "openvino has no bf16 on this CPU, which lacks avx512_bf16. Use precision=fp32."
            )

    def encode(self, observation: Observation, loops: int) -> Context:
        """See `Backend.encode`. Raises BundleError for a K that was not exported."""
        # A tensor inside a received message may start at any byte, and be read-only.
        given = {
            name: np.require(value, None, ["C", "A", "W"]) for name, value in observation.items()
        }
        batch = len(next(iter(given.values())))
        request = self._request("encode", loops, batch)
        for port in request.model_inputs:
            # It has the names of what was optimised away behind it, too.
            name = next(name for name in port.get_names() if name in given)
            request.set_tensor(port, _tensor(given[name]))
        made: dict[str, Any] = {}
        for port in request.model_outputs:  # new memory, or the next call would write over it
            tensor = openvino.Tensor(port.get_element_type(), port.get_shape())
            request.set_tensor(port, tensor)
            made |= dict.fromkeys(port.get_names(), tensor)  # the graph's name and internal ones
        request.infer()
        if COMMITTED in given:
            made[COMMITTED] = openvino.Tensor(given[COMMITTED])  # a copy, which keeps itself alive
        return Context(loops, batch, made)

    def denoise(self, context: Context, noise: np.ndarray, steps: int) -> np.ndarray:
        """See `Backend.denoise`."""
        batch = context.batch
        request = self._request("denoise", context.loops, batch)
        for port in request.model_inputs:
            for name in port.get_names() & context.tensors.keys():
                request.set_tensor(port, context.tensors[name])
        t, dt = np.empty(batch, np.float32), np.full(batch, 1 / steps, np.float32)
        request.set_tensor("t", _tensor(t))
        request.set_tensor("dt", _tensor(dt))
        # Two buffers take turns as a step's input and output: a graph must not write what it reads.
        sample = np.array(noise, np.float32, order="C")
        other, actions = np.empty_like(sample), np.empty_like(sample)
        here, there = _tensor(sample), _tensor(other)
        request.set_tensor("actions", _tensor(actions))
        for step in range(steps):
            t[:] = step / steps
            request.set_tensor("sample", here)
            request.set_tensor("next_sample", there)
            request.infer()
            here, there = there, here
        return actions

    def predict(self, context: Context, sample: np.ndarray, level: float) -> np.ndarray:
        """See `guided.PredictingBackend`: a step that goes all the way ends at the chunk itself."""
        request = self._request("denoise", context.loops, context.batch)
        for port in request.model_inputs:
            for name in port.get_names() & context.tensors.keys():
                request.set_tensor(port, context.tensors[name])
        t = np.full(context.batch, level, np.float32)
        dt, given = 1 - t, np.array(sample, np.float32, order="C")
        chunk, actions = np.empty_like(given), np.empty_like(given)
        step = {"t": t, "dt": dt, "sample": given, "next_sample": chunk, "actions": actions}
        for name, array in step.items():
            request.set_tensor(name, _tensor(array))
        request.infer()
        return chunk

    def _request(self, kind: str, loops: int, batch: int) -> Any:
        key = (loops, batch)
        if key not in self._requests:
            self._bundle.require_loops(loops)
            self._bundle.require_unchanged()  # else one K would act by other weights than another
            if len(self._requests) >= _KEPT_PAIRS:
                self._requests.clear()
            self._requests[key] = {}
        pair = self._requests[key]
        if kind not in pair:
            pair[kind] = self._compiled(kind, loops, batch).create_infer_request()
        return pair[kind]

    def _compiled(self, kind: str, loops: int, batch: int) -> Any:
        path = self._bundle.graph(kind, loops)
        try:
            model = self._core.read_model(path)
            model.reshape(
                {
                    port.get_any_name(): [
                        batch if size.is_dynamic else size.get_length()
                        for size in port.get_partial_shape()
                    ]
                    for port in model.inputs
                }
            )
            return self._core.compile_model(model, "CPU", self._settings())
        except RuntimeError as error:
            raise BundleError(
                f"openvino {openvino.get_version()} cannot load {path}: {error} "
                f"Use another backend=, or another version of openvino."
            ) from error

    def _settings(self) -> dict[str, Any]:
        return {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": self.threads,
            # Said for float32 too: its own choice is bf16 wherever the CPU has it.
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
            # Pinned threads do not move from a core that a simulator or a camera needs.
            "ENABLE_CPU_PINNING": False,
            # 2026.4.1 generates wrong code for a denoising step of a fixed batch: actions off by
            # 0.1 to 0.7 in float32 (AVX-512, any K and batch), 3e-7 without; it costs 6 %.
            "SNIPPETS_MODE": "DISABLE",
        }


def _tensor(array: np.ndarray) -> Any:
    """A view of `array` (C order) for the runtime, which reads and writes its memory in place.

    It does not keep the array alive: that needs a name until the runtime is done.
    """
    return openvino.Tensor(array, shared_memory=True)


def load(bundle: Bundle, options: BackendOptions) -> OpenVinoBackend:
    """See `registry.Loader`."""
    return OpenVinoBackend(bundle, options)
