"""GPUs to build for, a bundle's graphs, and what runs them where there is no GPU."""

from collections.abc import Mapping

import onnxruntime
from torch import Tensor

from loopdit.deploy.backends.cuda_driver import Gpu
from loopdit.deploy.backends.tensorrt.static_graph import StaticGraph, read_static_graph
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.bundle.manifest import GRAPH_KINDS

ADA = Gpu("NVIDIA RTX 4090", (8, 9), 24 << 30)
BLACKWELL = Gpu("NVIDIA RTX 5090", (12, 0), 32 << 30)
HOPPER = Gpu("NVIDIA H200", (9, 0), 141 << 30)


def static_graph(bundle: Bundle, name: str, batch: int = 1) -> StaticGraph:
    """The graph in a bundle's file `name`, which ends in .onnx."""
    digests = {file: entry.sha256 for file, entry in bundle.files.items()}
    return read_static_graph(bundle.path / name, batch, digests)


def graph_names(bundle: Bundle, precision: str = "fp32") -> list[str]:
    """The files of every K, without those that have K as an input."""
    pairs = ((kind, loops) for kind in GRAPH_KINDS for loops in bundle.loops)
    return [bundle.graph(kind, loops, precision).name for kind, loops in pairs]


class OnnxRuntimeExecution:
    """An `Execution`: the very graph that TensorRT is given, run by ONNX Runtime on the CPU."""

    def __init__(self, graph: StaticGraph) -> None:
        self.graph = graph
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(graph.path.parent)
        )
        self._session = onnxruntime.InferenceSession(graph.content, options)

    def enqueue(self, tensors: Mapping[str, Tensor]) -> None:
        given = {name: tensors[name].numpy() for name in self.graph.inputs}
        names = list(self.graph.outputs)
        for name, value in zip(names, self._session.run(names, given), strict=True):
            tensors[name].numpy()[...] = value

    def is_capturable(self) -> bool:
        return True
