"""What runs a bundle's policy: one protocol, one module for each runtime.

`load_backend` imports a runtime only when it is the one chosen, so a missing one costs nothing.
Shapes: B batch, H horizon, A action dim.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np

from loopdit.datasets.spec import Observation
from loopdit.deploy.bundle import Bundle
from loopdit.deploy.witness import witness_inputs
from loopdit.errors import BundleError, ConfigError

logger = logging.getLogger(__name__)

BACKEND_NAMES = ("onnxruntime", "torch")  # "auto" tries them in this order

# One, because at batch 1 the matrices are too small to share: on 2 cores a second thread gained
# nothing when they were quiet (fastest chunk at K = 4: 3.8 ms with one, 4.4 ms with two) and cost
# much when they were busy (torch p50 at K = 4: 56 against 652 ms). It also leaves the other cores
# to the simulator and the cameras.
DEFAULT_THREADS = 1


@dataclass(frozen=True)
class Context:
    """What `encode` leaves for `denoise`, in the memory of its back end: keys and values, and what
    else that takes by its name.

    Only the back end that made it can read it.
    """

    loops: int
    batch: int
    tensors: Mapping[str, Any]


class Backend(Protocol):
    """A policy ready to run, raw units at both ends. Not for two threads at once."""

    @property
    def name(self) -> str:
        """One of BACKEND_NAMES."""
        ...

    @property
    def device(self) -> str:
        """Where it computes: "cpu"."""
        ...

    @property
    def precision(self) -> str:
        """What it computes in: "fp32"."""
        ...

    @property
    def threads(self) -> int:
        """How many threads share one operation."""
        ...

    def encode(self, observation: Observation, loops: int) -> Context:
        """Each tensor (B, ...) as the spec declares it, K = `loops`; once for an observation."""
        ...

    def denoise(self, context: Context, noise: np.ndarray, steps: int) -> np.ndarray:
        """Noise (B, H, A) float32 -> actions (B, H, A) float32, in `steps` Euler steps."""
        ...


def load_backend(bundle: Bundle, name: str = "auto", threads: int | None = None) -> Backend:
    """Make the named back end ready; "auto" takes the first of BACKEND_NAMES that is installed.

    Raises ConfigError for an unknown name; BundleError when its runtime is not installed, or
    computes other actions than the trained policy did at export.
    """
    if name not in ("auto", *BACKEND_NAMES):
        raise ConfigError(
            f"backend={name} is not known. Choose one of: auto, {', '.join(BACKEND_NAMES)}."
        )
    if threads is not None and threads < 1:
        raise ConfigError(f"threads={threads} must be at least 1.")
    for candidate in BACKEND_NAMES if name == "auto" else (name,):
        if find_spec(candidate) is not None:
            backend = _LOADERS[candidate](bundle, threads or DEFAULT_THREADS)
            _require_witness(backend, bundle)
            return backend
        logger.warning("back end %s is not installed here", candidate)
    raise BundleError(
        f"backend={name} needs {' or '.join(BACKEND_NAMES) if name == 'auto' else name}, which is "
        f"not installed here. Install it with: pip install 'loopdit[serve]'"
    )


def _require_witness(backend: Backend, bundle: Bundle) -> None:
    witness = bundle.manifest.witness
    if witness is None:  # an export in progress, which has yet to prove itself
        return
    told = bundle.manifest.told(next(iter(bundle.manifest.instructions), ""))
    observation, noise = witness_inputs(bundle.spec, bundle.horizon, told)
    context = backend.encode(observation, witness.loops)
    error = witness.error(backend.denoise(context, noise, witness.steps)[0])
    if error > witness.tolerance:
        written = bundle.manifest.exported["versions"]["loopdit"]
        raise BundleError(
            f"{bundle.path}: back end {backend.name} computes actions that differ by {error:.2g} "
            f"from the trained policy's (tolerance {witness.tolerance:g}). The bundle was exported "
            f"by loopdit {written}, maybe with another model; export it again, or use another "
            f"backend=."
        )


def _load_onnxruntime(bundle: Bundle, threads: int) -> Backend:
    from loopdit.deploy.backends.onnxruntime_backend import OnnxRuntimeBackend

    return OnnxRuntimeBackend(bundle, threads)


def _load_torch(bundle: Bundle, threads: int) -> Backend:
    from loopdit.deploy.backends.torch_backend import TorchBackend

    return TorchBackend(bundle, threads)


_LOADERS: dict[str, Callable[[Bundle, int], Backend]] = {
    "onnxruntime": _load_onnxruntime,
    "torch": _load_torch,
}
