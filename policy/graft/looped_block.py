"""A CogVideoX block applied again and again: both of its streams, with embeddings and a gate.

    h <- g F(h + e, m + f, t) + (1 - g) h       of the video tokens h and the text tokens m
    m <- g F(h + e, m + f, t) + (1 - g) m       alike

e and f (D each) and g of every loop: 2 D + 1 numbers, the paper's. Its equation 3 has no gate and
no f; its counts have both. The start is that of `loops/looped_block.py`: with `identity` the first
gate is 2 sigmoid(0) = 1 and later ones are sigmoid(-6); with `paper` all are sigmoid(0) = 0.5,
which halves a pretrained block.

Takes the place of a block in `transformer_blocks`, with a block's signature, so that diffusers' own
forward runs it. What a pass asks of its loops comes in `attention_kwargs` under LOOPING.

Shapes: B batch, T text tokens, N video tokens, D width, P position numbers. Halting is of video
tokens: the few text tokens go on, since the block splits the streams by their lengths.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from loopdit.policy.fixed_point.injection import InputInjection
from loopdit.policy.graft.attention import Appended
from loopdit.policy.graft.config import IDENTITY, TOKEN, GraftConfig
from loopdit.policy.loops.exit_gates import ExitGate
from loopdit.policy.loops.halting import halt_and_skip, halt_softly
from loopdit.policy.loops.looped_block import Keep
from loopdit.policy.loops.rows import take_rows
from loopdit.policy.loops.sharpening import sharpness

LOOPING = "looping"
POSITION_NUMBERS = 3  # time, height, width

NO_CHECKPOINT, LOOP, NESTED = "none", "loop", "nested"

_CLOSED = -6.0


@dataclass
class Looping:
    """What one pass asks of its looped blocks, and what they tell.

    `loops` is K. `positions` (T + N, P) of a geometric graft. `mask` (T + N, T + N) bool, where
    tokens may not see all others. `checkpointing` is how the
    activations of a loop are kept for the backward pass: none (all of them), loop (each loop's
    input), nested (each block's input, and inside it each loop's while that block is computed
    again: as much whatever K is, for one more forward pass). `used`: each block adds the loops
    (B, N) that its video tokens took, of a graft that halts.
    """

    loops: int
    positions: Tensor | None = None
    mask: Tensor | None = None
    checkpointing: str = NO_CHECKPOINT
    used: list[Tensor] = field(default_factory=list[Tensor])


Streams = tuple[Tensor, Tensor]  # video (B, N, D), text (B, T, D)


class LoopedCogVideoXBlock(nn.Module):
    """A block and the parameters of its loops."""

    def __init__(self, block: CogVideoXBlock, config: GraftConfig) -> None:
        super().__init__()
        width: int = block.norm1.norm.normalized_shape[0]
        heads = block.attn1.heads
        self.config = config
        self.block = block
        self.hidden_embedding = nn.Parameter(torch.zeros(config.loops, width))
        self.encoder_embedding = nn.Parameter(torch.zeros(config.loops, width))
        self.gate_logit = nn.Parameter(torch.zeros(config.loops))
        if config.init == IDENTITY:
            nn.init.constant_(self.gate_logit[1:], _CLOSED)
        self.query_positions = None
        if config.geometric:
            self.query_positions = nn.Linear(POSITION_NUMBERS, heads * POSITION_NUMBERS)
            nn.init.zeros_(self.query_positions.weight)
            nn.init.zeros_(self.query_positions.bias)
        self.hidden_injection = InputInjection(width) if config.injection else None
        self.encoder_injection = InputInjection(width) if config.injection else None
        self.halting_gate = ExitGate(width, per_token=True) if config.halting == TOKEN else None

    def own_parameters(self) -> list[nn.Parameter]:
        """Those of the loops, without the block's."""
        return [value for name, value in self.named_parameters() if not name.startswith("block.")]

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        temb: Tensor,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
        attention_kwargs: dict[str, Any] | None = None,
    ) -> Streams:
        """See `CogVideoXBlock.forward`. All loops are run where nobody says how many."""
        rest = dict(attention_kwargs or {})
        looping: Looping = rest.pop(LOOPING, None) or Looping(self.config.loops)
        around = _Around(looping, temb, image_rotary_emb, self._appended(looping.positions), rest)
        streams = hidden_states, encoder_hidden_states
        if self.halting_gate is not None:
            return self._halted(self.halting_gate, streams, around)
        nested = looping.checkpointing == NESTED and looping.loops > 1
        if nested and torch.is_grad_enabled():
            return _checkpointed(self._looped, streams, around)
        return self._looped(streams, around)

    def gate(self, loop: int) -> Tensor:
        """g, a scalar."""
        gate = self.gate_logit[loop].sigmoid()
        return 2 * gate if loop == 0 and self.config.init == IDENTITY else gate

    def _looped(self, streams: Streams, around: "_Around") -> Streams:
        start = streams
        keeps_inputs = around.looping.checkpointing != NO_CHECKPOINT and torch.is_grad_enabled()
        for loop in range(around.looping.loops):
            turn = partial(self._loop, loop, start)
            streams = (
                _checkpointed(turn, streams, around) if keeps_inputs else turn(streams, around)
            )
        return streams

    def _loop(
        self,
        loop: int,
        start: Streams,
        streams: Streams,
        around: "_Around",
        keep: Keep | None = None,
    ) -> Streams:
        if self.hidden_injection is not None and self.encoder_injection is not None:
            streams = (
                self.hidden_injection(streams[0], start[0]).to(streams[0].dtype),
                self.encoder_injection(streams[1], start[1]).to(streams[1].dtype),
            )
        hidden, encoder = streams
        updated = self.block(
            hidden + self.hidden_embedding[loop].to(hidden.dtype),
            encoder + self.encoder_embedding[loop].to(encoder.dtype),
            around.temb,
            around.rotary,
            around.attention_kwargs(sharpness(loop, self.config.loops, self.config.sharpest), keep),
        )
        # A lerp, because it is exactly the block's at 1.
        gate = self.gate(loop)
        return (
            torch.lerp(hidden.to(updated[0].dtype), updated[0], gate.to(updated[0].dtype)),
            torch.lerp(encoder.to(updated[1].dtype), updated[1], gate.to(updated[1].dtype)),
        )

    def _halted(self, gate: ExitGate, streams: Streams, around: "_Around") -> Streams:
        """The loops of `loops/halting.py`, of the video tokens."""
        start, text = streams, streams[1]

        def turn(tokens: Tensor, loop: int, rows: Tensor | None, keeps: Sequence[Keep]) -> Tensor:
            nonlocal text
            of = start if rows is None else (take_rows(start[0], rows), start[1])
            near = around if rows is None else around.of_rows(rows, text.shape[1])
            tokens, text = self._loop(loop, of, (tokens, text), near, keeps[0])
            return tokens

        loops = around.looping.loops
        states, used = (
            halt_softly(turn, gate, streams[0], 1, loops)
            if self.training
            else halt_and_skip(turn, gate, streams[0], 1, loops, self.config.halt_at)
        )
        around.looping.used.append(used)
        return states[-1], text

    def _appended(self, positions: Tensor | None) -> Appended | None:
        """What a geometric block appends to queries and keys (1, heads, T + N, P)."""
        if self.query_positions is None:
            return None
        if positions is None:
            raise ValueError("a geometric block needs the positions of its tokens.")
        mapped = self.query_positions(positions).unflatten(-1, (-1, POSITION_NUMBERS))
        queries = mapped.transpose(0, 1)[None]
        return queries, positions.expand(1, queries.shape[1], -1, -1)


@dataclass(frozen=True)
class _Around:
    """What all loops of a block have in common, apart from the parameters."""

    looping: Looping
    temb: Tensor
    rotary: tuple[Tensor, Tensor] | None
    appended: Appended | None
    rest: dict[str, Any]

    def attention_kwargs(self, beta: float, keep: Keep | None) -> dict[str, Any] | None:
        """For the block's attention: nothing where nothing differs from diffusers' own."""
        mask = self.looping.mask
        more: dict[str, Any] = {"appended": self.appended, "keep": keep, "attention_mask": mask}
        said = {name: value for name, value in more.items() if value is not None}
        if beta != 1:
            said["sharpness"] = beta
        return {**self.rest, **said} or None

    def of_rows(self, rows: Tensor, text: int) -> "_Around":
        """With the positions of all text tokens and of the video's `rows` (B, n) alone."""
        if self.appended is None:
            return self
        own = tuple(
            torch.cat(
                [
                    part[:, :, :text].expand(len(rows), -1, -1, -1),
                    take_rows(part[:, :, text:].expand(len(rows), -1, -1, -1), rows),
                ],
                dim=2,
            )
            for part in self.appended
        )
        return _Around(self.looping, self.temb, self.rotary, (own[0], own[1]), self.rest)


def _checkpointed(function: Any, streams: Streams, around: _Around) -> Streams:
    return checkpoint(
        lambda hidden, encoder: function((hidden, encoder), around), *streams, use_reentrant=False
    )
