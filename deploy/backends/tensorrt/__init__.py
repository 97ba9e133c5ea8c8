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

Only this file is imported before the back end is chosen.
"""

from typing import TYPE_CHECKING

from loopdit.cache_folder import cache_folder
from loopdit.deploy.backends.cuda_driver import cuda_driver
from loopdit.errors import BundleError

if TYPE_CHECKING:
    from loopdit.deploy.backends.protocol import Backend
    from loopdit.deploy.backends.registry import BackendOptions
    from loopdit.deploy.bundle.bundle import Bundle


def load(bundle: "Bundle", options: "BackendOptions") -> "Backend":
    """With TensorRT 10 or 11. Raises BundleError, with the remedy, where it cannot run."""
    return _load("tensorrt", bundle, options)


def load_rtx(bundle: "Bundle", options: "BackendOptions") -> "Backend":
    """With TensorRT for RTX. Raises BundleError, with the remedy, where it cannot run."""
    return _load("tensorrt-rtx", bundle, options)


def _load(name: str, bundle: "Bundle", options: "BackendOptions") -> "Backend":
    import torch

    from loopdit.deploy.backends.tensorrt.backend import TensorRTBackend
    from loopdit.deploy.backends.tensorrt.engine_store import EngineStore
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
    store = EngineStore(library, gpu, options.precision, cache_folder("engines"))
    place = Place(torch.device("cuda", 0), torch.cuda.Stream(0))
    return TensorRTBackend(bundle, options, name, store.execution, place)
