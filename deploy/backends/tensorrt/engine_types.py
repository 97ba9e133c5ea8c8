"""That an engine computes in the precision it was asked for: read from the engine itself.

Versions of TensorRT before 11 let a builder choose among precisions by flags, 11 removed the flags,
and code that went on probing for them built float32 engines in silence. So what counts is neither
what we asked for nor what was in the graph, but what the engine says of itself.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from loopdit.deploy.backends.tensorrt.static_graph import TensorForm
from loopdit.errors import BundleError

PRECISIONS = ("fp32", "fp16", "bf16", "int8")

# The library's names of its types -> ours of precisions, and numpy's of what goes in and comes out.
_PRECISIONS = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "INT8": "int8"}
_NUMPY = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
}

# How an engine's description says a type: "Half" to a bare inspector, "... FP16 format ..." to one
# with an execution context. The order matters: "BFloat16" contains "Float16", that "Float".
_SAID = re.compile(
    "(?P<bf16>bf16|bfloat16)|(?P<fp16>fp16|half|float16)|(?P<fp8>fp8|float8)|(?P<fp4>fp4|float4)"
    "|(?P<int8>(?<!u)int8)|(?P<int4>(?<!u)int4)|(?P<fp32>fp32|float)",
    re.IGNORECASE,
)
_TYPE_FIELDS = {"Format/Datatype", "Format", "Datatype", "DataType", "Type"}


def our_dtype(dtype: Any) -> str:
    """One of PRECISIONS for a type of the library's, or its own name for another."""
    return _PRECISIONS.get(str(dtype.name), str(dtype.name))


def require_tensors(
    engine: Any, inputs: Mapping[str, TensorForm], outputs: Mapping[str, TensorForm], name: str
) -> None:
    """Raise BundleError unless the engine takes and makes exactly these tensors."""
    wanted = {**inputs, **outputs}
    found: dict[str, TensorForm] = {}
    for i in range(engine.num_io_tensors):
        tensor = engine.get_tensor_name(i)
        dtype = str(engine.get_tensor_dtype(tensor).name)
        shape = tuple(engine.get_tensor_shape(tensor))
        found[tensor] = TensorForm(_NUMPY.get(dtype, dtype), shape)
    for tensor in sorted({*wanted, *found}):
        # What a graph does not use, a library may leave out: nothing has to be given there.
        if tensor in inputs and tensor not in found:
            continue
        if wanted.get(tensor) != found.get(tensor):
            raise BundleError(
                f"the engine of {name} has {tensor} as {found.get(tensor)}, its graph as "
                f"{wanted.get(tensor)}. Use another backend=, and please report this."
            )


def require_precision(description: str, precision: str, name: str) -> None:
    """Raise BundleError unless an engine's description, JSON of its inspector, fits `precision`.

    float32 allows nothing lower anywhere; a lower precision must be there.
    """
    try:
        found = layer_types(description)
    except ValueError as error:
        raise BundleError(
            f"the engine of {name} does not say what it computes in ({error}). "
            f"Use another backend=, and please report this."
        ) from error
    lower = sorted(found - {"fp32"})
    if precision == "fp32" and lower:
        problem = f"computes in {', '.join(lower)} where float32 was asked for"
    elif precision != "fp32" and precision not in found:
        problem = f"nowhere computes in {precision} (its layers: {', '.join(sorted(found)) or '?'})"
    else:
        return
    raise BundleError(f"the engine of {name} {problem}. Use another backend= or precision=.")


def layer_types(description: str) -> set[str]:
    """The types of numbers that the layers in an engine inspector's JSON read, make or hold: of
    PRECISIONS, fp8, fp4 and int4. Integers that index and pictures are none of these.

    Raises ValueError for what is no JSON.
    """
    layers = json.loads(description).get("Layers", [])
    found: set[str] = set()
    _collect(layers, found)
    return found


def _collect(node: Any, found: set[str]) -> None:
    if isinstance(node, list):
        for item in node:
            _collect(item, found)
    elif isinstance(node, dict):
        for field, value in node.items():
            if field in _TYPE_FIELDS and isinstance(value, str):
                said = _SAID.search(value)
                if said is not None:
                    found.add(str(said.lastgroup))
            else:
                _collect(value, found)
