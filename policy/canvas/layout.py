"""Which region of the canvas is where: boxes on a T x H x W grid, some of them to be predicted.

A position's flat index is (t * H + y) * W + x. Positions of no region exist too: they carry their
learned position alone, and nothing connects them unless they are given a region.

Knows names, kinds and places; neither widths nor what a kind is made of (`modalities`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod

import torch
from torch import Tensor

from loopdit.errors import ConfigError

Place = tuple[int, int, int]

# Said at each tensor, because a model may be made under another default device, such as `meta`,
# whose tensors have no numbers to go by.
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Region:
    """A box of the grid for one modality; its tokens go by t, then y, then x."""

    name: str
    kind: str
    t: range
    y: range
    x: range

    def places(self) -> Iterator[Place]:
        """Its (t, y, x), in the order of its tokens."""
        return product(self.t, self.y, self.x)

    def __len__(self) -> int:
        return len(self.t) * len(self.y) * len(self.x)


@dataclass(frozen=True)
class CanvasLayout:
    """The grid, its regions, and the names of those that are noised and predicted."""

    size: Place
    regions: tuple[Region, ...]
    outputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise ConfigError(f"the canvas is {self._size()}; each side must be at least 1.")
        taken: dict[Place, str] = {}
        for region in self.regions:
            if self.names.count(region.name) > 1:
                raise ConfigError(f"two regions of the canvas are named {region.name!r}.")
            self._require_room(region)
            for t, y, x in region.places():
                if other := taken.get((t, y, x)):
                    raise ConfigError(
                        f"regions {other!r} and {region.name!r} of the canvas overlap at "
                        f"(t={t}, y={y}, x={x})."
                    )
                taken[t, y, x] = region.name
        for name in self.outputs:
            self.region(name)

    def __len__(self) -> int:
        return prod(self.size)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all regions, in their order."""
        return tuple(region.name for region in self.regions)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the regions that are given and never noised."""
        return tuple(name for name in self.names if name not in self.outputs)

    def region(self, name: str) -> Region:
        """Raise ConfigError where there is none of that name."""
        for region in self.regions:
            if region.name == name:
                return region
        raise ConfigError(
            f"the canvas has no region {name!r}. Its regions are: {', '.join(self.names)}."
        )

    def positions(self, name: str) -> Tensor:
        """The flat indices (n,) int64 of a region's tokens, in their order."""
        _, height, width = self.size
        places = self.region(name).places()
        flat = [(t * height + y) * width + x for t, y, x in places]
        return torch.tensor(flat, device=_CPU)

    def coordinates(self) -> Tensor:
        """Of every position, in the order of flat indices: (N, 3) int64 of (t, y, x)."""
        sides = (torch.arange(side, device=_CPU) for side in self.size)
        return torch.cartesian_prod(*sides)

    def is_output(self) -> Tensor:
        """Of every position: (N,) bool, true where it is noised and predicted."""
        mask = torch.zeros(len(self), dtype=torch.bool, device=_CPU)
        for name in self.outputs:
            mask[self.positions(name)] = True
        return mask

    def _require_room(self, region: Region) -> None:
        if not len(region):
            raise ConfigError(f"region {region.name!r} of the canvas is empty.")
        for axis, limit in zip("tyx", self.size, strict=True):
            along: range = getattr(region, axis)
            if min(along) < 0 or max(along) >= limit:
                raise ConfigError(
                    f"region {region.name!r} leaves the canvas of {self._size()}: its {axis} goes "
                    f"from {min(along)} to {max(along)}, the grid's from 0 to {limit - 1}."
                )

    def _size(self) -> str:
        return " x ".join(map(str, self.size)) + " (T x H x W)"


def v1_layout() -> CanvasLayout:
    """The 5 x 4 x 6 canvas of the paper's toy scale: 120 positions, 80 of them visual.

    The paper gives these counts; the places are our choice. The first slice is the instruction,
    so that everything later in time may see it. Then come four frames of 4 x 5 patches, two
    observed and two to predict, with a column beside each: what was sensed or rewarded then, and
    the three actions commanded until the next frame.
    """
    past, future = range(1, 3), range(3, 5)
    rows, patches, beside = range(4), range(5), range(5, 6)
    return CanvasLayout(
        size=(5, 4, 6),
        regions=(
            Region("text", "text", range(1), rows, range(6)),
            Region("frames", "visual", past, rows, patches),
            Region("proprio", "proprio", past, range(1), beside),
            Region("actions", "action", past, range(1, 4), beside),
            Region("future_frames", "visual", future, rows, patches),
            Region("reward", "reward", future, range(1), beside),
            Region("future_actions", "action", future, range(1, 4), beside),
        ),
        outputs=("future_frames", "reward", "future_actions"),
    )
