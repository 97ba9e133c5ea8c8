"""A canvas topology as one cross-attention a connection, in place of one masked attention.

What a connection's weight means here: a factor on its output. A position's result is the weighted
sum over the connections that it is a source of, each with a softmax of its own. So this and the
mask form (`topology`) are the same function only where every source has a single connection, of
weight 1; a source of two connections here splits its attention by connection and adds up, and there
shares one softmax over all their keys. A position that no connection starts from gets zeros, and
so does one whose connections reach nothing at its time.

Work is that of the pairs that are connected, rounded up to whole regions: an offset in time is a
mask within its connection.

Shapes: B batch, N positions, d numbers a head.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from loopdit.policy.attention import attend
from loopdit.policy.canvas.layout import CanvasLayout
from loopdit.policy.canvas.topology import CanvasTopology


class _Operation(NamedTuple):
    """One connection: whose queries, whose keys and values, and which pairs if not all."""

    sources: str
    targets: str
    pairs: str | None
    weight: float


class DispatchedAttention(nn.Module):
    """Takes the place of `attend` in a block; has indices and no parameters."""

    def __init__(self, topology: CanvasTopology, layout: CanvasLayout) -> None:
        super().__init__()
        topology.require_known(layout)
        buffers = {name: f"region_{i}" for i, name in enumerate(layout.names)}
        for name, buffer in buffers.items():
            self._keep(buffer, layout.positions(name))
        self.operations: list[_Operation] = []
        for i, connection in enumerate(topology.connections):
            if not connection.weight:
                continue
            pairs = connection.pairs(layout)
            name = None if bool(pairs.all()) else f"pairs_{i}"
            if name is not None:
                self._keep(name, pairs)
            source, target = buffers[connection.source], buffers[connection.target]
            self.operations.append(_Operation(source, target, name, connection.weight))

    def forward(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        bias: Tensor | None = None,
        sharpness: float | Tensor = 1.0,
    ) -> Tensor:
        """queries, keys, values (B, heads, N, d) -> (B, heads, N, d).

        There is no bias beside the topology: it is here to be called as `attend` is.
        """
        if bias is not None:
            raise ValueError("the topology is dispatched: it takes no bias or mask besides.")
        result = queries.new_zeros(*queries.shape[:-1], values.shape[-1])
        for operation in self.operations:
            sources = self.get_buffer(operation.sources)
            targets = self.get_buffer(operation.targets)
            pairs = None if operation.pairs is None else self.get_buffer(operation.pairs)
            attended = attend(
                queries[:, :, sources], keys[:, :, targets], values[:, :, targets], pairs, sharpness
            )
            result = result.index_add(2, sources, operation.weight * attended)
        return result

    def _keep(self, name: str, tensor: Tensor) -> None:
        self.register_buffer(name, tensor.to(torch.get_default_device()), persistent=False)
