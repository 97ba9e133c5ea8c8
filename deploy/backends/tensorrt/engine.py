"""A deserialized engine on the GPU, and executions of it over torch's tensors.

Not yet run on a GPU: written to the documented Python API of TensorRT 10, 11 and for RTX.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from loopdit.deploy.backends.tensorrt.engine_types import require_precision, require_tensors
from loopdit.deploy.backends.tensorrt.library import Library
from loopdit.deploy.backends.tensorrt.library_log import LibraryLog
from loopdit.deploy.backends.tensorrt.static_graph import StaticGraph
from loopdit.errors import BundleError


class Execution(Protocol):
    """A graph ready to run. Not for two threads at once."""

    @property
    def graph(self) -> StaticGraph:
        """Names, types and shapes of what it reads and writes."""
        ...

    def enqueue(self, tensors: Mapping[str, Tensor]) -> None:
        """Read and write `tensors`, by name, in place; on a GPU on torch's current stream, and
        without waiting. They are contiguous, of the graph's types and shapes; more are ignored.
        """
        ...

    def is_capturable(self) -> bool:
        """Whether `enqueue` on torch's current stream can become part of a CUDA graph."""
        ...


class EngineRefused(Exception):
    """A library does not take a serialized engine; the message says why."""


class Engine:
    """One engine in GPU memory, whose executions share its weights. tensors: what those read and
    write, by name."""

    def __init__(
        self, library: Library, log: LibraryLog, runtime: Any, native: Any, graph: StaticGraph
    ) -> None:
        self.graph = graph
        self._library = library
        self._log = log
        self._runtime = runtime  # it must outlive its engines
        self._native = native
        self.tensors = [native.get_tensor_name(i) for i in range(native.num_io_tensors)]

    @classmethod
    def deserialize(
        cls, library: Library, serialized: bytes, graph: StaticGraph, precision: str
    ) -> "Engine":
        """Load an engine. Raises EngineRefused where the library does not take it, BundleError when
        it is not of the graph's tensors and of `precision`.
        """
        log = LibraryLog(library)
        runtime = library.module.Runtime(log.native)
        native = runtime.deserialize_cuda_engine(serialized)
        if native is None:
            raise EngineRefused(f"{library.title} refuses {graph.name}: {log.reason()}")
        require_tensors(native, graph.inputs, graph.outputs, graph.name)
        inspector = native.create_engine_inspector()
        description = inspector.get_engine_information(library.module.LayerInformationFormat.JSON)
        require_precision(description, precision, graph.name)
        return cls(library, log, runtime, native, graph)

    def execution(self, kernels: bytes | None, keep: Callable[[bytes], None]) -> "EngineExecution":
        """Ready to run. `kernels`: what an earlier one gave to `keep`, which is called after the
        first run where the library compiles then.
        """
        context, cache = self._library.execution(self._native, kernels)
        if context is None:
            raise BundleError(
                f"{self._library.title} cannot make {self.graph.name} ready: "
                f"{self._log.reason()} Free some GPU memory, or use another backend=."
            )
        return EngineExecution(self, self._library, context, cache, keep)

    def failure(self) -> str:
        """What the library said when something failed."""
        return self._log.reason()


class EngineExecution:
    """See `Execution`."""

    def __init__(
        self,
        engine: Engine,
        library: Library,
        context: Any,
        kernels: Any,
        keep: Callable[[bytes], None],
    ) -> None:
        self.graph = engine.graph
        self._engine = engine
        self._library = library
        self._context = context
        self._kernels = kernels
        self._keep = keep
        self._ran = False

    def enqueue(self, tensors: Mapping[str, Tensor]) -> None:
        """See `Execution.enqueue`."""
        for name in self._engine.tensors:
            self._context.set_tensor_address(name, tensors[name].data_ptr())
        if not self._context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise BundleError(
                f"{self._library.title} cannot run {self.graph.name}: {self._engine.failure()} "
                f"Free some GPU memory, or use another backend=."
            )
        if not self._ran:
            self._ran = True
            if self._kernels is not None:
                self._keep(bytes(self._kernels.serialize()))

    def is_capturable(self) -> bool:
        """See `Execution.is_capturable`."""
        return self._library.is_capturable(self._context, torch.cuda.current_stream().cuda_stream)
