"""Where each tensor's bytes lie inside `model.safetensors`, so that ONNX graphs can point at them.

The file is an 8-byte little-endian length, a JSON header of that length with each tensor's byte
range, then the tensors one after another, each aligned to its own element at least. ONNX external
data is (file, offset, length): any tensor of the file will do as it is.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir


@dataclass(frozen=True)
class StoredTensor:
    """One tensor's place in the file, in bytes from its start."""

    name: str
    offset: int
    length: int


class WeightsFile:
    """The tensors of one safetensors file, found again by their contents."""

    def __init__(self, path: Path) -> None:
        self.path = path
        content = path.read_bytes()
        header_length = int.from_bytes(content[:8], "little")
        start = 8 + header_length
        header: dict[str, dict[str, list[int]]] = json.loads(content[8:start])
        self._places: dict[tuple[int, bytes], StoredTensor] = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            first, last = (start + offset for offset in entry["data_offsets"])
            key = (last - first, hashlib.sha256(content[first:last]).digest())
            self._places.setdefault(key, StoredTensor(name, first, last - first))

    def find(self, value: np.ndarray) -> StoredTensor | None:
        """The stored tensor with exactly these bytes, None where there is none."""
        content = value.tobytes()
        return self._places.get((len(content), hashlib.sha256(content).digest()))

    def share(self, model: ir.Model) -> int:
        """Make every initializer of a graph beside this file that is in it a reference to it.

        Returns the bytes that stay inside: constants that are no weights, and references to other
        files, which stay as they are, count nothing.
        """
        inline = 0
        for value in model.graph.initializers.values():
            tensor = value.const_value
            assert tensor is not None
            if isinstance(tensor, ir.ExternalTensor):
                continue
            array = tensor.numpy()
            # Shapes are int64, and stay where runtimes look for them.
            stored = self.find(array) if array.ndim and array.dtype != np.int64 else None
            if stored is None:
                inline += array.nbytes
                continue
            value.const_value = ir.ExternalTensor(
                self.path.name,
                stored.offset,
                stored.length,
                tensor.dtype,
                shape=ir.Shape(array.shape),
                name=value.name or stored.name,
                base_dir=self.path.parent,
            )
        return inline
