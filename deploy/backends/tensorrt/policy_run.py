"""The policy over its two graphs: encode once, then the denoising steps; as one CUDA graph, too.

A graph for denoising that takes a time is one step of it; one that takes none is all of them
(`fused_denoise`).

Shapes: B batch, H horizon, A action dim. Knows torch and how to run a graph, not what runs it: the
tests run it on the CPU, by ONNX Runtime.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from loopdit.deploy.backends.tensorrt.engine import Execution
from loopdit.deploy.backends.tensorrt.static_graph import TensorForm

logger = logging.getLogger(__name__)

_TIME = "t"
_STEPPED = {"sample", _TIME, "dt"}  # what `denoise` takes beside the context


@dataclass(frozen=True)
class Place:
    """Where tensors are. stream: the one CUDA stream that all work goes to; None on the CPU."""

    device: torch.device
    stream: torch.cuda.Stream | None = None

    def current(self) -> AbstractContextManager[object]:
        """Work in this block goes to the stream."""
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)

    def empty(self, form: TensorForm) -> Tensor:
        """A tensor that is yet to be written."""
        return torch.empty(form.shape, dtype=_dtype(form), device=self.device)

    def staging(self, form: TensorForm) -> Tensor:
        """Memory of the CPU that the GPU copies from by itself."""
        return torch.empty(form.shape, dtype=_dtype(form), pin_memory=self.device.type == "cuda")


@dataclass(frozen=True)
class PolicyRun:
    """One K and one batch size, ready to run."""

    encode: Execution
    denoise: Execution
    place: Place

    @property
    def is_fused(self) -> bool:
        """Whether `denoise` is all the steps."""
        return _TIME not in self.denoise.graph.inputs

    @property
    def given(self) -> dict[str, TensorForm]:
        """What an observation must have, by name: for `encode`, and what `denoise` takes as is."""
        made = self.encode.graph.outputs
        forms = {**self.denoise.graph.inputs, **self.encode.graph.inputs}
        return {name: forms[name] for name in forms if name not in made and name not in _STEPPED}

    def context(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What `denoise` takes for these tensors of an observation, in memory of its own."""
        made = {name: self.place.empty(form) for name, form in self.encode.graph.outputs.items()}
        self.encode.enqueue({**given, **made})
        return {
            name: t for name, t in {**given, **made}.items() if name in self.denoise.graph.inputs
        }

    def actions(self, context: Mapping[str, Tensor], noise: Tensor, times: "StepTimes") -> Tensor:
        """Noise (B, H, A) -> actions (B, H, A) in raw units; `noise` stays as it is."""
        outputs = self.denoise.graph.outputs
        actions = self.place.empty(outputs["actions"])
        if self.is_fused:
            self.denoise.enqueue({**context, "sample": noise, "actions": actions})
            return actions
        # Two buffers take turns as a step's input and output: a graph must not write what it reads.
        here, there, other = noise, *(self.place.empty(outputs["next_sample"]) for _ in range(2))
        for t in times.t:
            step = {"sample": here, "t": t, "dt": times.dt, "next_sample": there}
            self.denoise.enqueue({**context, **step, "actions": actions})
            here, there, other = there, other, there
        return actions


@dataclass(frozen=True)
class StepTimes:
    """The inputs t (B,), one for each step, and dt (B,), which depend on nothing else."""

    t: tuple[Tensor, ...]
    dt: Tensor


@lru_cache(maxsize=32)  # a client may ask for any number of steps
def step_times(batch: int, steps: int, place: Place) -> StepTimes:
    """For `steps` Euler steps from 0 to 1."""
    with place.current():
        times = [torch.full((batch,), i / steps, device=place.device) for i in range(steps)]
        return StepTimes(tuple(times), torch.full((batch,), 1 / steps, device=place.device))


class WholeChunk:
    """Encode and all steps over buffers that stay where they are; on a GPU one CUDA graph.

    Called with an observation's arrays (B, ...) and noise (B, H, A), it returns actions (B, H, A).
    """

    def __init__(self, run: PolicyRun, steps: int) -> None:
        # Kept, because a CUDA graph knows addresses only: what lies there must stay alive.
        self._run = run
        self._times = step_times(run.denoise.graph.batch, steps, run.place)
        forms = {**run.given, "noise": run.denoise.graph.inputs["sample"]}
        self._staged = {name: run.place.staging(form) for name, form in forms.items()}
        # Zeros, because capturing runs it once, and what is looked up in a table must be in there.
        self._given = {name: run.place.empty(form).zero_() for name, form in forms.items()}
        self._actions = run.place.empty(run.denoise.graph.outputs["actions"])
        on_gpu = run.place.stream is not None
        self._launch = self._captured() if on_gpu else self._compute

    def __call__(self, observation: Mapping[str, np.ndarray], noise: np.ndarray) -> np.ndarray:
        """See the class."""
        given = {**observation, "noise": noise}
        with self._run.place.current():
            for name, staged in self._staged.items():
                staged.numpy()[...] = given[name]
                self._given[name].copy_(staged, non_blocking=True)
            self._launch()
            return self._actions.cpu().numpy().copy()

    def _compute(self) -> None:
        context = self._run.context(self._given)
        self._actions.copy_(self._run.actions(context, self._given["noise"], self._times))

    def _captured(self) -> Callable[[], None]:
        """`_compute` as one launch. What it allocates belongs to the graph and stays in place."""
        with self._run.place.current():
            # Libraries allocate and compile at a first run, which no graph can hold.
            self._compute()
            torch.cuda.current_stream().synchronize()
            for execution in (self._run.encode, self._run.denoise):
                if not execution.is_capturable():
                    logger.warning(
                        "%s cannot be part of a CUDA graph; it is launched piece by piece, which "
                        "takes longer",
                        execution.graph.name,
                    )
                    return self._compute
            graph = torch.cuda.CUDAGraph()
            stream = self._run.place.stream
            # Other threads of a server may go on using the GPU meanwhile.
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                self._compute()
        return graph.replay


def _dtype(form: TensorForm) -> torch.dtype:
    return getattr(torch, form.dtype)
