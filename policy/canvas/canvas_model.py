"""The canvas denoiser of the paper (v1, v2): every modality on one grid, looped blocks over it.

A canvas is a mapping from a region's name to its values: (B, n, size) floats in normalised units,
or (B, n) int64 ids of words (`modalities`). Output regions are noised and predicted. What is given,
the input regions, passes the noising and the sampling as the same tensor, to the bit.

Each token is what its region's embedder makes of the value, plus the learned position of its place
on the grid; positions of no region are their position alone. All pass the looped blocks under the
topology's attention, and the output regions' tokens pass a norm and their kind's head.

The diffusion level is told to all tokens alike, as in the paper, or to outputs alone with inputs at
their own level, 1 (`input_level=clean`).

Shapes: B batch, N = T * H * W positions, D width. Knows neither where the values come from nor how
the losses of the modalities are joined (`joint_losses`).
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from loopdit.errors import ConfigError, SpecMismatch
from loopdit.policy.attention import attend
from loopdit.policy.block import AdaLNBlock
from loopdit.policy.canvas.config import CanvasModelConfig
from loopdit.policy.canvas.dispatch import DispatchedAttention
from loopdit.policy.canvas.layout import CanvasLayout, v1_layout
from loopdit.policy.canvas.modalities import embedders, heads
from loopdit.policy.canvas.topology import CanvasTopology, topology_named
from loopdit.policy.loops.looped_stack import LoopedStack
from loopdit.policy.objectives.objective import CLEAN, ObjectiveConfig
from loopdit.policy.objectives.registry import make_objective

Canvas = Mapping[str, Tensor]


class CanvasOutput(NamedTuple):
    """What the model says of a noised canvas: of each output region (B, n, size), in the terms of
    its objective; and of its loops: their cost (scalar), and how many each token used (B, N)."""

    predicted: dict[str, Tensor]
    ponder: Tensor
    loops_used: Tensor
    states: list[Tensor] | None


class CanvasLosses(NamedTuple):
    """By output region, scalars: what training minimises, and the mean squared error of the clean
    values that are predicted, which compares between objectives and carries no gradient. `ponder`
    is added to the joined loss."""

    objective: dict[str, Tensor]
    error: dict[str, Tensor]
    ponder: Tensor
    loops_used: Tensor


class CanvasDraws(NamedTuple):
    """What chance decides about a batch: noise of each output region, and the levels (B,)."""

    noise: dict[str, Tensor]
    level: Tensor


class CanvasModel(nn.Module):
    """See the module. `topology` in place of the config's name: one of your own."""

    frequencies: Tensor
    bias: Tensor | None
    coordinates: Tensor | None
    given: Tensor

    def __init__(
        self,
        config: CanvasModelConfig | None = None,
        layout: CanvasLayout | None = None,
        topology: CanvasTopology | None = None,
    ) -> None:
        super().__init__()
        self.config = config = CanvasModelConfig() if config is None else config
        self.layout = layout = v1_layout() if layout is None else layout
        self.topology = topology_named(config.topology, layout) if topology is None else topology
        self.topology.require_known(layout)
        self.objective = make_objective(ObjectiveConfig(kind=config.objective))
        width = config.width
        self.embedders = embedders(config.modalities, width)
        self.position = nn.Parameter(0.02 * torch.randn(len(layout), width))
        self.level = nn.Sequential(
            nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 2 * width), nn.SiLU()
        )
        self.attention = (
            DispatchedAttention(self.topology, layout) if config.execution == "dispatch" else None
        )
        self.stack = LoopedStack(self._block, config.blocks, width, config.loops)
        self.out_norm = nn.LayerNorm(width)
        self.heads = heads(config.modalities, width)
        self._require_kinds()
        masked = self.attention is None
        self._keep("bias", self.topology.attention_bias(layout) if masked else None)
        for i, name in enumerate(layout.names):  # a buffer's name may have no dot, a region's may
            self._keep(f"positions_{i}", layout.positions(name))
        # In [-1, 1] along each axis.
        extent = layout.coordinates().amax(0).clamp(min=1)
        around = layout.coordinates() / extent * 2 - 1
        self._keep("coordinates", around if config.geometric else None)
        self._keep("given", layout.is_output().logical_not()[:, None])
        half = math.ceil(width / 2)
        exponents = torch.arange(half, device="cpu") / max(1, half - 1)
        self._keep("frequencies", 1000 * torch.exp(-math.log(1e4) * exponents))

    def forward(
        self, canvas: Canvas, level: Tensor, loops: int | None = None, keep_states: bool = False
    ) -> CanvasOutput:
        """What is predicted of a noised canvas at its level (B,); `loops`: all where none is given.

        `keep_states` keeps what the loops made of all tokens, for diagnostics.
        """
        out = self.stack(
            self.tokens(canvas),
            self.condition(level),
            loops=loops,
            bias=self.bias,
            positions=self.coordinates,
            keep_states=keep_states,
        )
        normed = self.out_norm(out.tokens)
        predicted = {
            name: self.heads[self.layout.region(name).kind](normed[:, self._positions(name)])
            for name in self.layout.outputs
        }
        return CanvasOutput(predicted, out.ponder, out.loops_used, out.states)

    def tokens(self, canvas: Canvas) -> Tensor:
        """The canvas that the first block sees: (B, N, D), each content added to its position."""
        self._require(canvas, self.layout.names)
        parts = [self.embedders[r.kind](canvas[r.name]) for r in self.layout.regions]
        content = torch.cat(parts, dim=1)
        placed = content.new_zeros(len(content), *self.position.shape)
        places = torch.cat([self._positions(name) for name in self.layout.names])
        return placed.index_copy(1, places, content) + self.position

    def condition(self, level: Tensor) -> Tensor:
        """Levels (B,) -> (B, 1, 2 D), or (B, N, 2 D) where inputs are told their own."""
        told = self._level(level)[:, None]
        if self.config.input_level == "shared":
            return told
        return torch.where(self.given, self._level(torch.full_like(level[:1], CLEAN)), told)

    def noised(self, canvas: Canvas, noise: Canvas, level: Tensor) -> dict[str, Tensor]:
        """The canvas with its output regions at a level (B,); the input regions as they are."""
        noisy = {
            name: self.objective.noised(canvas[name], noise[name], level)
            for name in self.layout.outputs
        }
        return {**canvas, **noisy}

    def loss(self, canvas: Canvas, draws: CanvasDraws, loops: int | None = None) -> CanvasLosses:
        """How far the model's word on a noised canvas is from the truth, by output region."""
        self._require(canvas, self.layout.names)
        level = draws.level
        noisy = self.noised(canvas, draws.noise, level)
        out = self(noisy, level, loops)
        objective: dict[str, Tensor] = {}
        error: dict[str, Tensor] = {}
        for name, predicted in out.predicted.items():
            target = self.objective.target(canvas[name], draws.noise[name], level)
            objective[name] = self.objective.loss(predicted, target).mean()
            clean = self.objective.chunk(noisy[name], predicted.detach(), level)
            error[name] = (clean - canvas[name]).square().mean()
        return CanvasLosses(objective, error, out.ponder, out.loops_used)

    def draw(self, count: int, generator: torch.Generator) -> CanvasDraws:
        """Random numbers for `count` canvases, on the generator's device."""
        noise = {
            name: torch.randn(
                count, *self._shape(name), generator=generator, device=generator.device
            )
            for name in self.layout.outputs
        }
        return CanvasDraws(noise, self.objective.levels(count, generator))

    @torch.no_grad()
    def sample(
        self,
        canvas: Canvas,
        noise: Canvas,
        steps: int,
        loops: int | None = None,
        fresh: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The canvas with its output regions made from noise; the inputs are the given tensors.

        `canvas` needs no output regions. `fresh` (steps, B, 1, numbers of all outputs) is for
        objectives that draw noise at each step.
        """
        outputs = self.layout.outputs
        self._require(canvas, self.layout.inputs)
        shapes = [self._shape(name) for name in outputs]
        sizes = [math.prod(shape) for shape in shapes]
        given = {name: canvas[name] for name in self.layout.inputs}

        def apart(joined: Tensor) -> dict[str, Tensor]:
            pieces = joined[:, 0].split(sizes, dim=1)
            return {
                name: piece.unflatten(1, shape)
                for name, piece, shape in zip(outputs, pieces, shapes, strict=True)
            }

        def together(parts: Canvas) -> Tensor:
            """(B, 1, numbers of all outputs), as one action chunk of an objective."""
            return torch.cat([parts[name].flatten(1) for name in outputs], dim=1)[:, None]

        def predict(joined: Tensor, level: Tensor) -> Tensor:
            return together(self({**given, **apart(joined)}, level, loops).predicted)

        made = self.objective.sample(predict, together(noise), steps, fresh)
        return {**canvas, **apart(made)}

    def _block(self) -> AdaLNBlock:
        width = self.config.width
        geometric = 3 if self.config.geometric else 0
        attention = attend if self.attention is None else self.attention
        return AdaLNBlock(width, self.config.heads, 2 * width, geometric, attention)

    def _level(self, level: Tensor) -> Tensor:
        """(B,) -> (B, 2 D)."""
        angles = level[:, None] * self.frequencies
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1)
        return self.level(waves[:, : self.config.width])

    def _positions(self, name: str) -> Tensor:
        return self.get_buffer(f"positions_{self.layout.names.index(name)}")

    def _shape(self, name: str) -> tuple[int, ...]:
        """Of a region's values, without the batch."""
        region = self.layout.region(name)
        if region.kind == "text":
            return (len(region),)
        return len(region), getattr(self.config.modalities, region.kind)

    def _require(self, canvas: Canvas, names: tuple[str, ...]) -> None:
        for name in names:
            if name not in canvas:
                raise SpecMismatch(
                    f"the canvas lacks region {name!r}; it has: {', '.join(canvas) or 'none'}."
                )
            shape, expected = tuple(canvas[name].shape), self._shape(name)
            if shape[1:] != expected:
                raise SpecMismatch(
                    f"region {name!r} of the canvas has shape {shape}; the model's layout and "
                    f"modalities say (B, {', '.join(map(str, expected))})."
                )

    def _require_kinds(self) -> None:
        for region in self.layout.regions:
            known = self.heads if region.name in self.layout.outputs else self.embedders
            if region.kind not in known:
                use = "predicted" if known is self.heads else "embedded"
                raise ConfigError(
                    f"region {region.name!r} is of kind {region.kind!r}, which cannot be {use}. "
                    f"Use {', '.join(known)}."
                )

    def _keep(self, name: str, tensor: Tensor | None) -> None:
        """A buffer on torch's default device that is no part of the weights."""
        moved = None if tensor is None else tensor.to(torch.get_default_device())
        self.register_buffer(name, moved, persistent=False)
