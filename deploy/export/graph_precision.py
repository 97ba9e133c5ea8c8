"""Rewrite a float32 graph so that its matrix products are computed in less.

    fp16, bf16   products take and give that precision; what they are made of is rounded to it
    int8         weights are whole numbers times a float32 scale for each output channel
                 (DequantizeLinear); all is computed in float32

A graph that has been rewritten has the inputs and outputs that it had, float32: whoever runs one
runs all. Everything but products stays float32: normalisation of what is observed and commanded,
layer norms, softmax, the residual stream, the sampler's step. So do products with a table of
positions (keypoints), because a position in 8 bits is a pixel off; what follows from constants
alone, which is computed once; and bf16 convolutions, which ONNX has only from opset 22 on. The
precision is in the graph's own types, as runtimes that are strongly typed want it.

Only the weights that products read are stored again, once for all graphs of a precision; all others
stay references to the float32 file.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import safetensors.torch
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass

from loopdit.deploy.bundle.manifest import BF16, FP16, INT8, weights_name
from loopdit.deploy.bundle.weights_file import WeightsFile

_FLOATS = {FP16: ir.DataType.FLOAT16, BF16: ir.DataType.BFLOAT16}
_NUMPY = {FP16: np.dtype(np.float16), BF16: np.dtype(ml_dtypes.bfloat16)}
_MATRICES = ("MatMul", "Gemm")
_PRODUCTS = {FP16: (*_MATRICES, "Conv"), BF16: _MATRICES, INT8: (*_MATRICES, "Conv")}
_SHAPE_OPS = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity")
_INT8_MOST = 127


def write_reduced(folder: Path, names: Iterable[str], precision: str) -> list[Path]:
    """Write the float32 graphs `names` of a bundle's folder in `precision`, and the weights that
    they have; returns their paths."""
    models = {name: ir.load(folder / name) for name in names}
    weights: dict[str, np.ndarray] = {}
    for model in models.values():
        weights |= lowered(model, precision)
    path = folder / weights_name(precision)
    safetensors.torch.save_file({n: _as_torch(array) for n, array in weights.items()}, path)
    stored = WeightsFile(path)
    paths: list[Path] = []
    for name, model in models.items():
        stored.share(model)
        paths.append(folder / f"{name.removesuffix('.onnx')}.{precision}.onnx")
        ir.save(model, paths[-1])
    return paths


def _as_torch(array: np.ndarray) -> torch.Tensor:
    if array.dtype == _NUMPY[BF16]:  # which torch does not take from numpy
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def lowered(model: ir.Model, precision: str) -> dict[str, np.ndarray]:
    """Rewrite a float32 `model` in place to fp16, bf16 or int8; returns the weights that it reads
    in that precision, by name, equal for equal names whatever the graph."""
    weights = _quantize(model) if precision == INT8 else _Rounding(model, precision).run()
    RemoveUnusedNodesPass()(model)
    return weights


def widened(model: ir.Model) -> None:
    """Rewrite a bf16 `model` in place so that a runtime without bf16 products computes what they
    give: float32 products of bf16 numbers, rounded to bf16. That is what hardware does, which sums
    in float32, up to the order of the sum."""
    for graph in _graphs(model):
        for node in list(graph):
            reads = [value for value in node.inputs if _is(value, ir.DataType.BFLOAT16)]
            writes = [value for value in node.outputs if _is(value, ir.DataType.BFLOAT16)]
            if node.op_type == "Cast" or not (reads or writes):
                continue
            wide = {v: _cast(v, ir.DataType.FLOAT, node) for v in reads if v is not None}
            inputs = [None if value is None else wide.get(value, value) for value in node.inputs]
            before = [_producer(cast) for cast in wide.values()]
            _replace(graph, node, inputs, before, ir.DataType.FLOAT, ir.DataType.BFLOAT16)


class _Rounding:
    """Rewrites the products of one model to fp16 or bf16."""

    def __init__(self, model: ir.Model, precision: str) -> None:
        self._model = model
        self._precision = precision
        self._type = _FLOATS[precision]
        self._weights: dict[str, np.ndarray] = {}
        # Values in low precision that are there already: of weights, and by graph of what is made.
        self._low_weights: dict[ir.Value, ir.Value] = {}
        self._low: dict[tuple[ir.Graph, ir.Value], ir.Value] = {}

    def run(self) -> dict[str, np.ndarray]:
        for graph, node in _products(self._model, self._precision):
            self._round(graph, node)
        return self._weights

    def _round(self, graph: ir.Graph, node: ir.Node) -> None:
        inputs: list[ir.Value | None] = []
        before: list[ir.Node] = []
        for value in node.inputs:
            if value is None:
                inputs.append(None)
                continue
            if _weight_of(value) is not None:
                inputs.append(self._low_weight(value))
                continue
            key = (graph, value)
            if key not in self._low:
                self._low[key] = _cast(value, self._type, node)
                before.append(_producer(self._low[key]))
            inputs.append(self._low[key])
        _replace(graph, node, inputs, before, self._type, ir.DataType.FLOAT)

    def _low_weight(self, value: ir.Value) -> ir.Value:
        """`value`, which follows from a weight by its shape alone, of the weight in low
        precision."""
        if value in self._low_weights:
            return self._low_weights[value]
        producer = value.producer()
        if producer is None:
            low = self._initializer(value)
        else:
            inputs = [self._low_weight(_some(producer.inputs[0])), *producer.inputs[1:]]
            node = ir.Node("", producer.op_type, inputs, producer.attributes.values())
            low = _named(node.outputs[0], value, self._type, self._precision)
            _graph_of(producer).insert_after(producer, node)
        self._low_weights[value] = low
        return low

    def _initializer(self, weight: ir.Value) -> ir.Value:
        assert weight.const_value is not None
        name = f"{weight.name}.{self._precision}"
        self._weights[name] = weight.const_value.numpy().astype(_NUMPY[self._precision])
        return _register(self._model.graph, name, self._weights[name], self._type)


def _quantize(model: ir.Model) -> dict[str, np.ndarray]:
    weights: dict[str, np.ndarray] = {}
    found: dict[ir.Value, int] = {}
    for _, node in _products(model, INT8):
        for value in _factors(node):
            weight = _weight_of(value)
            if weight is not None:
                found[weight] = _channel_axis(node, value)
    for weight, axis in found.items():
        assert weight.const_value is not None
        whole, scale = quantized(weight.const_value.numpy(), axis)
        names = (f"{weight.name}.int8", f"{weight.name}.scale")
        weights |= dict(zip(names, (whole, scale), strict=True))
        node = ir.Node(
            "",
            "DequantizeLinear",
            [
                _register(model.graph, names[0], whole, ir.DataType.INT8),
                _register(model.graph, names[1], scale, ir.DataType.FLOAT),
            ],
            [ir.AttrInt64("axis", axis)],
        )
        made = _named(node.outputs[0], weight, ir.DataType.FLOAT, "dequantized")
        weight.replace_all_uses_with(made)
        model.graph.insert_before(model.graph.node(0), node)
    return weights


def quantized(weight: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers int8 like `weight`, and their scales float32 along `axis`: the largest number
    of a channel is 127 of its scale, and zero stays zero."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.abs(weight).max(axis=others)
    scale = (np.where(largest > 0, largest, 1) / _INT8_MOST).astype(np.float32)
    along = scale.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
    whole = np.clip(np.rint(weight / along), -_INT8_MOST, _INT8_MOST)
    return whole.astype(np.int8), scale


def _channel_axis(node: ir.Node, value: ir.Value) -> int:
    """The axis of a weight that becomes the product's channels."""
    last = len(_shape(value)) - 1
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm" and node.attributes.get_int("transB", 0):
        return 0
    return 0 if value.producer() is not None else last  # transposed on its way, or as it is


def _products(model: ir.Model, precision: str) -> list[tuple[ir.Graph, ir.Node]]:
    """Those to rewrite: of weights, or of two things that follow from the graph's inputs."""
    found: list[tuple[ir.Graph, ir.Node]] = []
    computed: set[ir.Value] = set()
    for graph in _graphs(model):
        computed.update(graph.inputs)
        for node in graph:
            follows = [value in computed for value in node.inputs if value is not None]
            if any(follows) or "body" in node.attributes:
                computed.update(node.outputs)
            if node.op_type in _PRODUCTS[precision] and any(follows):
                factors = _factors(node)
                if all(v in computed or _weight_of(v) is not None for v in factors):
                    found.append((graph, node))
    return found


def _factors(node: ir.Node) -> list[ir.Value]:
    """The two things that are multiplied; a third is added."""
    return [_some(value) for value in node.inputs[:2]]


def _weight_of(value: ir.Value) -> ir.Value | None:
    """The weight that a value is, or is by another shape; weights lie outside a stored graph."""
    while not value.is_initializer():
        producer = value.producer()
        if producer is None or producer.op_type not in _SHAPE_OPS:
            return None
        value = _some(producer.inputs[0])
    return value if isinstance(value.const_value, ir.ExternalTensor) else None


def _replace(
    graph: ir.Graph,
    node: ir.Node,
    inputs: list[ir.Value | None],
    before: list[ir.Node],
    made: ir.DataType,
    wanted: ir.DataType,
) -> None:
    """Put in a node's place: `before`, itself with other inputs, which makes values of the type
    `made`, and casts of those to `wanted`."""
    new = ir.Node("", node.op_type, inputs, node.attributes.values(), num_outputs=len(node.outputs))
    casts: list[ir.Value] = []
    for value, old in zip(new.outputs, node.outputs, strict=True):
        _named(value, old, made, made.name.lower())
        casts.append(_cast(value, wanted, node))
    nodes = [*before, new, *(_producer(cast) for cast in casts)]
    ir.convenience.replace_nodes_and_values(graph, node, [node], nodes, list(node.outputs), casts)


def _cast(value: ir.Value, wanted: ir.DataType, node: ir.Node) -> ir.Value:
    """What a new Cast makes, which is in no graph yet; its name is its own by the `node` that it is
    made for."""
    cast = ir.Node("", "Cast", [value], [ir.AttrInt64("to", int(wanted))])
    return _named(cast.outputs[0], value, wanted, f"{wanted.name.lower()}_{node.outputs[0].name}")


def _named(value: ir.Value, like: ir.Value, dtype: ir.DataType, suffix: str) -> ir.Value:
    value.name, value.shape, value.type = f"{like.name}.{suffix}", like.shape, ir.TensorType(dtype)
    return value


def _register(graph: ir.Graph, name: str, array: np.ndarray, dtype: ir.DataType) -> ir.Value:
    value = ir.Value(
        name=name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(dtype),
        const_value=ir.Tensor(array, dtype, name=name),
    )
    graph.register_initializer(value)
    return value


def _graphs(model: ir.Model) -> Iterator[ir.Graph]:
    """The graph and the bodies of its loops."""
    yield model.graph
    yield from model.graph.subgraphs()


def _graph_of(node: ir.Node) -> ir.Graph:
    assert isinstance(node.graph, ir.Graph)
    return node.graph


def _is(value: ir.Value | None, dtype: ir.DataType) -> bool:
    return value is not None and value.dtype == dtype


def _shape(value: ir.Value) -> tuple[object, ...]:
    return () if value.shape is None else tuple(value.shape)


def _some(value: ir.Value | None) -> ir.Value:
    assert value is not None
    return value


def _producer(value: ir.Value) -> ir.Node:
    node = value.producer()
    assert node is not None
    return node
