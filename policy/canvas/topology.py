"""Which region of the canvas attends to which: a declared graph, and its mask.

A connection says that the tokens of its source query the keys and values of its target, so
information flows from target to source (the paper's section 7). The mask form made here is one
attention of all positions over all, in which a pair of positions may attend where any connection
joins them; `dispatch` runs the same graph as one cross-attention a connection.

What a weight w means in the mask form: log(w) is added to the logits, so a key counts in the
softmax as w keys would. Where several connections join the same pair, their weights add. Since a
softmax forgets what all its logits share, weights matter only relative to one another: the only
connection of a source may have any. Weight 0 is no connection.

Positions that no connection joins to anything attend to nothing, and get zeros (`attention`).

Shapes: N = T * H * W positions.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loopdit.errors import ConfigError
from loopdit.policy.canvas.layout import CanvasLayout


@dataclass(frozen=True)
class Connection:
    """The source's tokens attend to the target's.

    `offset`: a source token at time t sees the target at t + offset only, or at any of several
    offsets that a range lists; without one, at every time. A time is a slice of the grid.
    """

    source: str
    target: str
    weight: float = 1.0
    offset: int | range | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise ConfigError(
                f"the connection {self} has weight {self.weight}; it must be 0 or more."
            )

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}"

    def pairs(self, layout: CanvasLayout) -> Tensor:
        """Which source token sees which target token: (source tokens, target tokens) bool."""
        sources, targets = layout.positions(self.source), layout.positions(self.target)
        if self.offset is None:
            return sources.new_ones(len(sources), len(targets), dtype=torch.bool)
        times = layout.coordinates()[:, 0]
        ahead = times[targets][None, :] - times[sources][:, None]
        offsets = [self.offset] if isinstance(self.offset, int) else list(self.offset)
        return torch.isin(ahead, ahead.new_tensor(offsets))


@dataclass(frozen=True)
class CanvasTopology:
    """The connections of a canvas. The constructors below take the names of regions."""

    connections: tuple[Connection, ...]

    @classmethod
    def dense(cls, regions: Sequence[str]) -> "CanvasTopology":
        """Every region attends to every region: the paper's canvas."""
        return cls(_joined((source, target) for source in regions for target in regions))

    @classmethod
    def isolated(cls, regions: Sequence[str]) -> "CanvasTopology":
        """Every region attends to itself alone."""
        return cls(_joined((region, region) for region in regions))

    @classmethod
    def hub_and_spoke(cls, hub: str, spokes: Sequence[str]) -> "CanvasTopology":
        """The hub and each spoke attend to each other and to themselves; no spoke to another."""
        own = cls.isolated([hub, *spokes]).connections
        inward, outward = ((hub, spoke) for spoke in spokes), ((spoke, hub) for spoke in spokes)
        return cls(own + _joined(inward) + _joined(outward))

    @classmethod
    def causal_chain(cls, regions: Sequence[str]) -> "CanvasTopology":
        """Each region attends to itself and to the one before it."""
        before = zip(regions[1:], regions[:-1], strict=True)
        return cls(cls.isolated(regions).connections + _joined(before))

    @classmethod
    def causal_in_time(cls, regions: Sequence[str], steps: int) -> "CanvasTopology":
        """Each token attends to every region at its own time and before; T is `steps`."""
        past = range(1 - steps, 1)
        return cls(tuple(Connection(a, b, offset=past) for a in regions for b in regions))

    @classmethod
    def one_way(cls, inputs: Sequence[str], outputs: Sequence[str]) -> "CanvasTopology":
        """Inputs attend to inputs, outputs to all: inputs can be computed once for every output."""
        everything = [*inputs, *outputs]
        given = cls.dense(inputs).connections
        return cls(given + _joined((output, name) for output in outputs for name in everything))

    def require_known(self, layout: CanvasLayout) -> None:
        """Raise ConfigError for the first connection to or from a region the layout has not."""
        for connection in self.connections:
            for name in (connection.source, connection.target):
                if name not in layout.names:
                    raise ConfigError(
                        f"the topology's connection {connection} names region {name!r}, which "
                        f"the canvas has not. Its regions are: {', '.join(layout.names)}."
                    )

    def mask(self, layout: CanvasLayout) -> Tensor:
        """Which position (row) may attend to which (column): (N, N) bool."""
        return self.weights(layout) > 0

    def bias(self, layout: CanvasLayout) -> Tensor:
        """What is added to the logits: (N, N) float, -inf where nothing connects."""
        return self.weights(layout).log()

    def weights(self, layout: CanvasLayout) -> Tensor:
        """The summed weight of the connections that join each pair: (N, N) float."""
        self.require_known(layout)
        total = torch.zeros(len(layout), len(layout), device="cpu")
        for connection in self.connections:
            rows = layout.positions(connection.source)[:, None]
            columns = layout.positions(connection.target)[None, :]
            total[rows, columns] += connection.weight * connection.pairs(layout)
        return total

    def attention_bias(self, layout: CanvasLayout) -> Tensor | None:
        """The cheapest argument of `attend` with the same result.

        None where all attend to all alike, a bool mask where no weight differs from another, else
        the float bias: fast attention kernels take the first, and some the second.
        """
        weights = self.weights(layout)
        present = weights[weights > 0]
        if len(present.unique()) > 1:
            return weights.log()
        return None if len(present) == weights.numel() else weights > 0


def _joined(pairs: Iterable[tuple[str, str]]) -> tuple[Connection, ...]:
    return tuple(Connection(source, target) for source, target in pairs)


def _hub_and_spoke(layout: CanvasLayout) -> CanvasTopology:
    return CanvasTopology.hub_and_spoke(layout.names[0], layout.names[1:])


def _causal_in_time(layout: CanvasLayout) -> CanvasTopology:
    return CanvasTopology.causal_in_time(layout.names, layout.size[0])


# By name, for configurations. The hub is the first region and the chain goes in the layout's order.
TOPOLOGIES: dict[str, Callable[[CanvasLayout], CanvasTopology]] = {
    "dense": lambda layout: CanvasTopology.dense(layout.names),
    "isolated": lambda layout: CanvasTopology.isolated(layout.names),
    "hub_and_spoke": _hub_and_spoke,
    "causal_chain": lambda layout: CanvasTopology.causal_chain(layout.names),
    "causal_in_time": _causal_in_time,
    "one_way": lambda layout: CanvasTopology.one_way(layout.inputs, layout.outputs),
}


def topology_named(name: str, layout: CanvasLayout) -> CanvasTopology:
    """Raise ConfigError where no constructor has that name."""
    if name not in TOPOLOGIES:
        known = ", ".join(TOPOLOGIES)
        raise ConfigError(f"no canvas topology is named {name!r}. There are: {known}.")
    return TOPOLOGIES[name](layout)
