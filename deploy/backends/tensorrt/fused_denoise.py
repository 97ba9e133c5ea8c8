"""All denoising steps as one node of ours in an engine, where that can be; else step by step.

The graph (`export.fused_graph`) is made here, because a bundle has none that every runtime cannot
load: from the trained module, at the first use, which takes seconds, and kept beside the engines.
It is for the bundle's own number of steps, whose times are constants in it.

Not yet run on a GPU; the tests run it with the trained module in the node's place.
"""

import hashlib
import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import onnx
import torch

from loopdit.deploy.backends import require_witness
from loopdit.deploy.backends.cuda_driver import Gpu
from loopdit.deploy.backends.registry import KINDS
from loopdit.deploy.backends.tensorrt.backend import TensorRTBackend
from loopdit.deploy.backends.tensorrt.fused_plugin import register_fused_plugin
from loopdit.deploy.backends.tensorrt.keyed_file import read_keyed, write_keyed
from loopdit.deploy.backends.tensorrt.library import Library
from loopdit.deploy.backends.tensorrt.static_graph import StaticGraph, static_graph
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.bundle.manifest import WEIGHTS
from loopdit.deploy.bundle.weights_file import WeightsFile
from loopdit.errors import BundleError
from loopdit.policy.checkpoint import load_policy
from loopdit.policy.checkpoint_files import MANIFEST as CHECKPOINT

logger = logging.getLogger(__name__)

FusedGraph = Callable[[int, int], StaticGraph]  # of K and a batch size

_OLDEST = (8, 0)  # compute capability, of Triton's
# Raised when `export.fused_graph` writes other graphs, so that those kept before are stale.
_RECIPE = "1"


class FusedGraphs:
    """`FusedGraph` of a bundle. folder: where graphs are kept."""

    def __init__(self, bundle: Bundle, folder: Path) -> None:
        self._bundle = bundle
        self._folder = folder

    def __call__(self, loops: int, batch: int) -> StaticGraph:
        """Raises BundleError for a policy that the kernel cannot compute."""
        bundle = self._bundle
        name = f"denoise_fused_k{loops}_s{bundle.steps}.onnx"
        digests = {name: entry.sha256 for name, entry in bundle.files.items()}
        key = self._key(loops, digests)
        digest = hashlib.sha256(repr(sorted(key.items())).encode()).hexdigest()[:20]
        kept = self._folder / f"{Path(name).stem}-{digest}.graph"
        content = read_keyed(kept, key)
        if content is None:
            content = self._traced(loops)
            write_keyed(kept, key, content)
        digests[name] = hashlib.sha256(content).hexdigest()
        # Where the weights are found, which is beside it; it is not a file of the bundle.
        path = bundle.path / name
        return static_graph(onnx.load_from_string(content), path, batch, digests)

    def _key(self, loops: int, digests: Mapping[str, str]) -> dict[str, str]:
        return {
            "recipe": _RECIPE,
            "torch": torch.__version__,  # which traces it
            "weights": digests[WEIGHTS],
            "configuration": digests[CHECKPOINT],
            "loops": str(loops),
            "steps": str(self._bundle.steps),
        }

    def _traced(self, loops: int) -> bytes:
        from loopdit.deploy.export.fused_graph import export_fused_denoise  # late: onnxscript

        policy = load_policy(self._bundle.path).eval().requires_grad_(False)
        with tempfile.TemporaryDirectory() as folder:
            weights = Path(folder, WEIGHTS)
            weights.symlink_to(self._bundle.path.absolute() / WEIGHTS)
            path = export_fused_denoise(policy, loops, self._bundle.steps, WeightsFile(weights))
            return path.read_bytes()


def fused_graphs(bundle: Bundle, library: Library, gpu: Gpu, folder: Path) -> FusedGraphs:
    """Ready to be built into engines by `library`. Raises BundleError, with the reason, where there
    is no such node here."""
    if gpu.compute_capability < _OLDEST:
        have = ".".join(map(str, gpu.compute_capability))
        raise BundleError(
            f"the node needs compute capability {'.'.join(map(str, _OLDEST))}, and {gpu.name} has "
            f"{have}."
        )
    reason = KINDS["fused-cuda"].unavailable()  # the same kernel, compiled by Triton
    if reason is not None:
        raise BundleError(f"{reason}.")
    register_fused_plugin(library)
    return FusedGraphs(bundle, folder)


def fused_or_stepped(
    make: Callable[[FusedGraph | None], TensorRTBackend],
    bundle: Bundle,
    graphs: Callable[[], FusedGraph],
) -> TensorRTBackend:
    """What `make` makes of `graphs`, if that runs here and repeats the bundle's witness; else of
    None, which is step by step in the same numbers. The reason is in the log."""
    try:
        backend = make(graphs())
        require_witness(backend, bundle)
    except BundleError as error:
        backend = make(None)
        logger.warning(
            "%s denoises step by step, not by our own kernel in one launch: %s", backend.name, error
        )
    return backend
