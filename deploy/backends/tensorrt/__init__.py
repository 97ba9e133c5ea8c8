"""TensorRT: engines built from a bundle's graphs, cached on disk, run as CUDA graphs.

    library        what differs between TensorRT 10, 11 and for RTX
    library_log    what they say
    static_graph   a bundle's graph as they take it
    build          from there to an engine; build_progress: how far that is
    engine_types   that an engine computes in the precision it was asked for
    engine         an engine on the GPU
    engine_store   engines on disk; keyed_file: how they are told from stale and damaged ones
    policy_run     encode and the denoising steps over two engines, as one CUDA graph
    backend        all of that as a back end
    fused_plugin   our own kernel as a node of an engine; fused_denoise: all steps by it;
                   fused_trial: whether that works here

Only this file is imported before the back end is chosen.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loopdit.cache_folder import cache_folder
from loopdit.deploy.backends.cuda_driver import cuda_driver
from loopdit.errors import BundleError

if TYPE_CHECKING:
    from loopdit.deploy.backends.protocol import Backend
    from loopdit.deploy.backends.registry import BackendOptions
    from loopdit.deploy.backends.tensorrt.backend import TensorRTBackend
    from loopdit.deploy.backends.tensorrt.engine_store import EngineStore
    from loopdit.deploy.backends.tensorrt.fused_denoise import FusedGraph
    from loopdit.deploy.bundle.bundle import Bundle


def load(bundle: "Bundle", options: "BackendOptions") -> "Backend":
    """With TensorRT 10 or 11. Raises BundleError, with the remedy, where it cannot run."""
    from loopdit.deploy.backends.registry import FP32

    parts = _parts("tensorrt", bundle, options)
    if options.precision != FP32:  # which our node is in alone
        return parts.make(None)

    from loopdit.deploy.backends.tensorrt.fused_denoise import fused_or_stepped
    from loopdit.deploy.backends.tensorrt.fused_trial import require_trial, trial_command

    def proven() -> "FusedGraph":
        graphs = parts.graphs()
        graph = graphs(bundle.default_loops, 1)
        require_trial(parts.store, graph, trial_command(bundle.path))
        return graphs

    return fused_or_stepped(parts.make, bundle, proven)


def load_rtx(bundle: "Bundle", options: "BackendOptions") -> "Backend":
    """With TensorRT for RTX, which takes no plugins in Python. Raises BundleError, with the remedy,
    where it cannot run."""
    return _parts("tensorrt-rtx", bundle, options).make(None)


def fused_parts(bundle: "Bundle") -> "Parts":
    """Of `load` in float32, for a trial of our node."""
    from loopdit.deploy.backends.registry import BackendOptions

    return _parts("tensorrt", bundle, BackendOptions(threads=1))


@dataclass(frozen=True)
class Parts:
    """What a back end is made of here. make: the back end, with graphs for our node or without.
    graphs: those; raises BundleError, with the reason, where there can be none. store: engines."""

    make: "Callable[[FusedGraph | None], TensorRTBackend]"
    graphs: "Callable[[], FusedGraph]"
    store: "EngineStore"


def _parts(name: str, bundle: "Bundle", options: "BackendOptions") -> Parts:
    import torch

    from loopdit.deploy.backends.tensorrt.backend import TensorRTBackend
    from loopdit.deploy.backends.tensorrt.engine_store import EngineStore
    from loopdit.deploy.backends.tensorrt.fused_denoise import fused_graphs
    from loopdit.deploy.backends.tensorrt.library import load_library
    from loopdit.deploy.backends.tensorrt.policy_run import Place

    driver = cuda_driver()
    if not driver.gpus or not torch.cuda.is_available():
        raise BundleError(
            f"backend={name} needs a GPU that torch can use: "
            f"{driver.problem or 'this torch was built without CUDA, or for another driver'}."
        )
    library, gpu = load_library(name), driver.gpus[0]
    library.require_gpu(gpu)
    folder = cache_folder("engines")
    store = EngineStore(library, gpu, options.precision, folder)
    place = Place(torch.device("cuda", 0), torch.cuda.Stream(0))
    return Parts(
        lambda fused: TensorRTBackend(bundle, options, name, store.execution, place, fused),
        lambda: fused_graphs(bundle, library, gpu, folder),
        store,
    )
