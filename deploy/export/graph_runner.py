"""A bundle's graphs as they lie in its files, run by ONNX Runtime on the CPU: to prove an export.

Not a back end: it keeps nothing in the runtime's memory and tunes nothing. It runs those with K as
an input as well as those of each K, and of every precision: bf16 products, which ONNX Runtime has
no CPU kernel for, by float32 ones of the same numbers (`graph_precision.widened`).

Shapes: B batch, H horizon, A action dim, L = K * blocks.
"""

from collections.abc import Mapping
from typing import cast

import numpy as np
import onnx_ir
import onnxruntime

from loopdit.datasets.spec import COMMITTED, Observation
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.bundle.manifest import BF16, LOOPS_INPUT
from loopdit.deploy.export.graph_precision import widened

BACKEND = "onnxruntime"  # what an export's parity calls it

# The same external file for every graph, beside it: where a graph in memory looks for its weights.
_FOLDER_KEY = "session.model_external_initializers_file_folder_path"

Arrays = dict[str, np.ndarray]


class GraphRunner:
    """The graphs of one precision; `counted` ones have K as an input. Sessions are made at their
    first use."""

    def __init__(self, bundle: Bundle, precision: str, counted: bool = False) -> None:
        self.bundle = bundle
        self.precision = precision
        self.counted = counted
        self._sessions: dict[tuple[str, int | None], onnxruntime.InferenceSession] = {}

    def encode(self, observation: Observation, loops: int) -> Arrays:
        """Each tensor (B, ...) -> what `step` takes besides the sample: keys and values
        (L, B, heads, N, d), mask and committed where there are."""
        made = self._run("encode", loops, observation)
        if COMMITTED in observation:
            made[COMMITTED] = np.asarray(observation[COMMITTED])
        return made

    def step(
        self, context: Mapping[str, np.ndarray], sample: np.ndarray, t: float, dt: float, loops: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The sample (B, H, A) one denoising step later, normalised, and as raw actions."""
        batch = len(sample)
        times = {"t": np.full(batch, t, np.float32), "dt": np.full(batch, dt, np.float32)}
        made = self._run("denoise", loops, {**context, **times, "sample": sample})
        return made["next_sample"], made["actions"]

    def chunks(
        self, observation: Observation, noise: np.ndarray, loops: int, steps: int
    ) -> np.ndarray:
        """Raw actions (B, H, A) for each of B observations and their noise (B, H, A)."""
        context = self.encode(observation, loops)
        sample, actions = noise, noise
        for i in range(steps):
            sample, actions = self.step(context, sample, i / steps, 1 / steps, loops)
        return actions

    def _run(self, kind: str, loops: int, given: Mapping[str, np.ndarray]) -> Arrays:
        session = self._session(kind, None if self.counted else loops)
        known = {**given, LOOPS_INPUT: np.array(loops, np.int64)}
        inputs = {tensor.name: known[tensor.name] for tensor in session.get_inputs()}
        names = [tensor.name for tensor in session.get_outputs()]
        made = cast(list[np.ndarray], session.run(names, inputs))
        return dict(zip(names, made, strict=True))

    def _session(self, kind: str, loops: int | None) -> onnxruntime.InferenceSession:
        key = (kind, loops)
        if key not in self._sessions:
            path = self.bundle.graph(kind, loops, self.precision)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            options.log_severity_level = 3
            options.add_session_config_entry(_FOLDER_KEY, str(path.parent))
            model = path.read_bytes()
            if self.precision == BF16:
                wide = onnx_ir.load(path)
                widened(wide)
                model = onnx_ir.to_proto(wide).SerializeToString()
            self._sessions[key] = onnxruntime.InferenceSession(
                model, options, providers=["CPUExecutionProvider"]
            )
        return self._sessions[key]
