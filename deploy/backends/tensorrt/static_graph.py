"""An exported graph as TensorRT takes it: of one batch size, and without what trips it up.

Three edits, none of which changes a number (the tests run both forms by ONNX Runtime):
- The free batch axis becomes a constant. Kernels are chosen for it, and CUDA graphs need it anyway.
- Pictures become float32 before anything else, and so do the uint8 constants that they are mixed
  with: the parser takes uint8 for nothing but that cast (measured with TensorRT for RTX 1.7.1: of
  the transposition that our graphs begin with, "first input has type UInt8"). Every uint8 is a
  float32 exactly.
- What replaces NaN after a softmax goes. It is for queries that may attend to nothing, of which
  `policy.attention` leaves none; and with it the builder fails on masked attention in fp16 and bf16
  (TensorRT for RTX 1.7.1: "mha_fusion.cpp:3156: CHECK(is_softmax(...)) failed").

The weights stay where they are, in the file that the graph names. Knows no TensorRT.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from loopdit.errors import BundleError

_BATCH = "batch"  # as `onnx_graphs` names the axis


@dataclass(frozen=True)
class TensorForm:
    """dtype: numpy's name of it, such as "float32", or "bfloat16". shape: with the batch in it."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class StaticGraph:
    """One graph for one batch size.

    path: the file that it was read from, or would be in where it was made (`fused_denoise`).
    content: the edited ONNX model, whose weights are in files beside `path`. inputs, outputs: by
    name. sha256: of the graph and all of its weights.
    """

    path: Path
    batch: int
    content: bytes
    inputs: Mapping[str, TensorForm]
    outputs: Mapping[str, TensorForm]
    sha256: str

    @property
    def name(self) -> str:
        """For people and file names, such as "denoise_k3"."""
        return self.path.stem


def read_static_graph(path: Path, batch: int, sha256: Mapping[str, str]) -> StaticGraph:
    """The graph at `path` for `batch` observations at a time.

    `sha256` has the digest of every file beside it, by name, as the bundle verified them.
    Raises BundleError for a graph with another free axis.
    """
    return static_graph(onnx.load(path, load_external_data=False), path, batch, sha256)


def static_graph(
    model: onnx.ModelProto, path: Path, batch: int, sha256: Mapping[str, str]
) -> StaticGraph:
    """Like `read_static_graph`, of a model in memory, which is edited. `sha256` has its own, too,
    under the name of `path`."""
    graph = model.graph
    make_static(graph, batch)
    inputs = {value.name: _form(path, value) for value in graph.input}
    outputs = {value.name: _form(path, value) for value in graph.output}
    files = {path.name} | {
        entry.value
        for tensor in graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    digest = hashlib.sha256(" ".join(f"{name}:{sha256[name]}" for name in sorted(files)).encode())
    content = model.SerializeToString()
    return StaticGraph(path, batch, content, inputs, outputs, digest.hexdigest())


def make_static(graph: onnx.GraphProto, batch: int) -> None:
    """The three edits, in place."""
    for value in (*graph.input, *graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param == _BATCH:
                axis.dim_value = batch
    _float_pictures(graph)
    _unguard_softmax(graph)
    del graph.value_info[:]  # shapes of what is in between, with the free axis; parsers infer them


def _unguard_softmax(graph: onnx.GraphProto) -> None:
    made = {name: node for node in graph.node for name in node.output}
    plain: dict[str, str] = {}
    for node in graph.node:
        test = made.get(node.input[0]) if node.op_type == "Where" else None
        if test is None or test.op_type != "IsNaN":
            continue
        tested = made.get(test.input[0])
        if tested is not None and tested.op_type == "Softmax":
            plain[node.output[0]] = test.input[0]
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = plain.get(name, name)
    kept = [node for node in graph.node if node.output[0] not in plain]
    read = {name for node in kept for name in node.input}
    kept = [node for node in kept if node.op_type != "IsNaN" or node.output[0] in read]
    _replace_nodes(graph, kept)


def _replace_nodes(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    nodes = list(nodes)  # before they go
    del graph.node[:]
    graph.node.extend(nodes)


def _form(path: Path, value: onnx.ValueInfoProto) -> TensorForm:
    tensor = value.type.tensor_type
    free = [axis.dim_param for axis in tensor.shape.dim if axis.dim_param]
    if free:
        raise BundleError(
            f"{path}: {value.name} has the free axis {free[0]!r}; only {_BATCH!r} may be free. "
            f"Export the bundle again with this version of loopdit."
        )
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    return TensorForm(dtype, tuple(axis.dim_value for axis in tensor.shape.dim))


def _float_pictures(graph: onnx.GraphProto) -> None:
    casts: list[onnx.NodeProto] = []
    for value in graph.input:
        if value.type.tensor_type.elem_type != TensorProto.UINT8:
            continue
        cast = f"{value.name}.cast"
        for node in graph.node:
            for i, name in enumerate(node.input):
                if name == value.name:
                    node.input[i] = cast
        casts.append(
            helper.make_node("Cast", [value.name], [cast], name=cast, to=TensorProto.FLOAT)
        )
    for constant in graph.initializer:
        if constant.data_type == TensorProto.UINT8:
            floats = numpy_helper.to_array(constant).astype(np.float32)
            constant.CopyFrom(numpy_helper.from_array(floats, constant.name))
    _replace_nodes(graph, [*casts, *graph.node])
