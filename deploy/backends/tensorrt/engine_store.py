"""Engines on this machine's disk: built once for each key, checked whenever they are read.

A key is everything that an engine depends on: library and version, GPU, precision, batch, graph and
weights, and how we build. So a stale engine has another name and is never read; one that is damaged
or was copied from elsewhere is built again, with a log line. The folder may be deleted at any time.
"""

import hashlib
import logging
import sys
from collections.abc import Mapping
from pathlib import Path

from loopdit.deploy.backends.cuda_driver import Gpu
from loopdit.deploy.backends.tensorrt.build import build_engine
from loopdit.deploy.backends.tensorrt.engine import Engine, EngineExecution, EngineRefused
from loopdit.deploy.backends.tensorrt.keyed_file import (
    read_keyed,
    require_writable,
    write_keyed,
)
from loopdit.deploy.backends.tensorrt.library import Library
from loopdit.deploy.backends.tensorrt.static_graph import StaticGraph
from loopdit.errors import BundleError
from loopdit.progress import Progress

logger = logging.getLogger(__name__)

# Raised when `build` or `static_graph` do otherwise, so that engines built before are stale.
_RECIPE = "1"


class EngineStore:
    """The engines of one library, for one GPU and one precision, in `folder`."""

    def __init__(self, library: Library, gpu: Gpu, precision: str, folder: Path) -> None:
        self.library = library
        self.gpu = gpu
        self.precision = precision
        self.folder = folder
        self._loaded: dict[str, Engine] = {}

    def execution(self, graph: StaticGraph) -> EngineExecution:
        """`graph` ready to run on the GPU: from its engine here, or from one that is built now.

        Raises BundleError as `build_engine` does, and when the library refuses what it has built.
        """
        path, key = self.path(graph, "kernels"), self.key(graph)
        if path.stem not in self._loaded:
            self._loaded[path.stem] = self._load(graph)
        return self._loaded[path.stem].execution(
            read_keyed(path, key), keep=lambda kernels: write_keyed(path, key, kernels)
        )

    def serialized(self, graph: StaticGraph) -> bytes:
        """The engine of `graph`, built if it is not here yet. Needs no GPU where building does
        not."""
        found = read_keyed(self.path(graph, "engine"), self.key(graph))
        return self._build(graph) if found is None else found

    def path(self, graph: StaticGraph, kind: str) -> Path:
        """Where the "engine" of `graph` is, or the "kernels" compiled at its first use."""
        return self.folder / f"{graph.name}-{self.precision}-{_digest(self.key(graph))}.{kind}"

    def key(self, graph: StaticGraph) -> dict[str, str]:
        """Everything the engine of `graph` depends on."""
        return {
            **self._machine(),
            "precision": self.precision,
            "batch": str(graph.batch),
            "graph": graph.sha256,
        }

    def _load(self, graph: StaticGraph) -> Engine:
        path = self.path(graph, "engine")
        kept = read_keyed(path, self.key(graph))
        if kept is not None:
            try:
                return Engine.deserialize(self.library, kept, graph, self.precision)
            except EngineRefused as refusal:
                logger.warning("%s: %s; it is built again", path, refusal)
        try:
            return Engine.deserialize(self.library, self._build(graph), graph, self.precision)
        except EngineRefused as refusal:
            raise BundleError(
                f"{refusal} It was built for {self.gpu.name} just now. Update the GPU's driver if "
                f"it is older than the library needs, or use another backend=."
            ) from refusal

    def _build(self, graph: StaticGraph) -> bytes:
        require_writable(self.folder)
        timings = self.folder / f"{self.library.name}-{_digest(self._machine())}.timings"
        label = f"{self.library.title} builds {graph.name} ({self.precision}) for {self.gpu.name}"
        with Progress(label, 1.0, stream=sys.stderr) as progress:  # stdout may be somebody's JSON
            build = build_engine(
                self.library,
                graph,
                self.precision,
                self.gpu,
                read_keyed(timings, self._machine()),
                progress.update,
            )
            progress.update(1.0)
        write_keyed(self.path(graph, "engine"), self.key(graph), build.engine)
        if build.timings is not None:
            write_keyed(timings, self._machine(), build.timings)
        return build.engine

    def _machine(self) -> dict[str, str]:
        """What measured times of kernels depend on."""
        return {
            "recipe": _RECIPE,
            "library": self.library.name,
            "version": self.library.version,
            "gpu": self.gpu.name,
            "compute_capability": ".".join(map(str, self.gpu.compute_capability)),
        }


def _digest(key: Mapping[str, str]) -> str:
    return hashlib.sha256(repr(sorted(key.items())).encode()).hexdigest()[:20]
