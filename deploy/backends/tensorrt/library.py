"""What differs between TensorRT 10, TensorRT 11 and TensorRT for RTX, and nothing else.

Types: TensorRT 10 and for RTX take them from the graph when asked to; 11 always does, and still
takes the question. GPU: an engine of 10 and 11 is for the GPU that builds it; RTX builds for those
that it lists, and needs none for it. Kernels: 10 and 11 time them while building and keep the times
in a timing cache, for the next build; RTX compiles them at first use and keeps them in a runtime
cache, for the next process (its timing cache does nothing).

Everything else of this package uses only what all of them have.
"""

import importlib
import logging
from dataclasses import dataclass
from typing import Any

from loopdit.deploy.backends.cuda_driver import Gpu
from loopdit.errors import BundleError

logger = logging.getLogger(__name__)

TENSORRT, TENSORRT_RTX = "tensorrt", "tensorrt-rtx"
_MODULES = {TENSORRT: "tensorrt", TENSORRT_RTX: "tensorrt_rtx"}
# The oldest with everything that is used here.
_OLDEST = {TENSORRT: (10, 0), TENSORRT_RTX: (1, 2)}


@dataclass(frozen=True)
class Library:
    """One of them. name: the back end's. module: what was imported; it has no type stubs."""

    name: str
    module: Any

    @property
    def version(self) -> str:
        """As it says itself, such as "11.4.0.106"."""
        return str(self.module.__version__)

    @property
    def title(self) -> str:
        """Name and version, for messages."""
        return f"{self.name} {self.version}"

    def require_gpu(self, gpu: Gpu) -> None:
        """Raise BundleError for a GPU that the library does not know."""
        if self._chooses_at_first_use and self._target(gpu) is None:
            names = dir(self.module.ComputeCapability)
            known = sorted(int(name[2:]) for name in names if name.startswith("SM"))
            raise BundleError(
                f"{self.title} does not run on {gpu.name} (compute capability "
                f"{_dotted(gpu)}); it knows "
                f"{', '.join(f'{n // 10}.{n % 10}' for n in known)}. "
                f"Use backend=tensorrt or backend=cuda-graph."
            )

    def network(self, builder: Any) -> Any:
        """An empty network whose types are those of the graph, never the builder's choice."""
        typed = self.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return builder.create_network(1 << int(typed))

    def aim(self, config: Any, gpu: Gpu) -> None:
        """Build for `gpu`, where the library builds for others than the one it runs on."""
        if self._chooses_at_first_use:
            config.num_compute_capabilities = 1
            config.set_compute_capability(self._target(gpu), 0)

    def restore_timings(self, config: Any, timings: bytes | None) -> None:
        """Let the builder skip kernels that it timed before; `timings` of this GPU and version."""
        if self._chooses_at_first_use:
            return
        cache = config.create_timing_cache(timings or b"")
        if cache is None or not config.set_timing_cache(cache, False):
            logger.warning("%s refuses its timing cache; every kernel is timed again", self.title)
            config.set_timing_cache(config.create_timing_cache(b""), False)

    def timings(self, config: Any) -> bytes | None:
        """What the builder has timed, to restore later; None where the library times nothing."""
        cache = None if self._chooses_at_first_use else config.get_timing_cache()
        return None if cache is None else bytes(cache.serialize())

    def execution(self, engine: Any, kernels: bytes | None) -> tuple[Any, Any]:
        """An execution context of `engine` (None where memory is short), and the cache of kernels
        that it compiles at first use, filled from `kernels`; None where building chose them all.
        """
        if not self._chooses_at_first_use:
            return engine.create_execution_context(), None
        config = engine.create_runtime_config()
        cache = config.create_runtime_cache()
        if kernels is not None and not cache.deserialize(kernels):
            logger.warning("%s refuses its kernel cache; they are compiled again", self.title)
        config.set_runtime_cache(cache)
        return engine.create_execution_context(config), cache

    def is_capturable(self, execution: Any, stream: int) -> bool:
        """Whether what `execution` does on a CUDA stream can become part of a CUDA graph."""
        return not self._chooses_at_first_use or bool(execution.is_stream_capturable(stream))

    @property
    def _chooses_at_first_use(self) -> bool:
        return self.name == TENSORRT_RTX

    def _target(self, gpu: Gpu) -> Any:
        major, minor = gpu.compute_capability
        return getattr(self.module.ComputeCapability, f"SM{major}{minor}", None)


def load_library(name: str) -> Library:
    """Import the library of back end `name`. Raises BundleError when it is too old or broken."""
    try:
        library = Library(name, importlib.import_module(_MODULES[name]))
        found = tuple(int(part) for part in library.version.split(".")[:2])
    except (ImportError, OSError, ValueError) as error:  # OSError: a shared library is missing
        raise BundleError(
            f"{_MODULES[name]} does not import: {error}. Install it again, or use another backend=."
        ) from error
    if found < _OLDEST[name]:
        oldest = ".".join(map(str, _OLDEST[name]))
        raise BundleError(
            f"{library.title} is too old: version {oldest} or newer is needed. "
            f"Install it with: pip install -U {_MODULES[name]}"
        )
    return library


def _dotted(gpu: Gpu) -> str:
    return ".".join(map(str, gpu.compute_capability))
