"""The looped diffusion transformer: a few blocks applied K times, from observation to chunk.

Shapes: B batch, O observed steps, C cameras, N observation tokens (of all cameras and steps), H
action horizon, A action dim, F actions in flight, D width, K loops, L = K * blocks. Where O is one,
its axis is left out. Everything here is in normalised units; `looped_policy` owns raw ones.

Attention is one way: observation tokens attend to themselves, action tokens to all. So the
observation depends on neither the noise nor the time, and is encoded once per control step: its
keys and values for each (loop, block) are kept, and a denoising step runs the action tokens alone.
With `action_expert` these have a stack of their own, as long as the other and applied as often,
whose blocks attend to what the other's leave (pi0, arXiv 2410.24164).

The paper's dense canvas is the other topology: all tokens are one stream, at the sample's time, and
run in each denoising step. It is there to be compared with.

Any K from 1 to `max_loops` is an exit of the same pass: loop k of a deep pass is loop k of a
shallow one. Training supervises all exits at once and distils the deepest into the shallower
(arXiv 2604.09168), because drawing one K a step starves the shallow ones.

Actions in flight are those that will be executed before the chunk comes. They are the beginning of
the chunk, clean where the rest is noise, and the diffusion time enters each token by itself: a
token's condition is the mean over its actions, of which the committed ones are at the end of time
(training-time action conditioning, arXiv 2512.05964). So a chunk continues them, and joining it to
the one that is playing needs no guidance at run time.

A camera that is not there is masked: its tokens are attended to by nothing.

With history, each observed step becomes the same tokens by the same encoders, and learns its place
in time. A step that is not seen (history dropout, while training) keeps its place and loses its
content. Before an episode's second step the first observation is repeated, in training as on the
robot, and seen.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from loopdit.policy.block import AdaLNBlock
from loopdit.policy.encoders.images import make_encoder
from loopdit.policy.encoders.words import make_instruction_encoder
from loopdit.policy.fixed_point.injection import InputInjection
from loopdit.policy.looped_dit_config import DENSE, LoopedDiTConfig
from loopdit.policy.loops.truncation import cut
from loopdit.policy.objectives.objective import CLEAN

_TIME_FREQUENCIES = 64


class Inputs(NamedTuple):
    """One batch of observations in normalised units.

    frames: each camera's (B, O, 3, S, S). proprio (B, O, P). seen (B, O) bool: all steps where it
    is None. available (B, C) bool: all cameras where it is None. told, of a policy that is told its
    task: words (B, W) or the task's number (B,), int64. committed (B, F, A + 1), of one whose chunk
    begins with the actions in flight: those, oldest first, and 1 where there is one, else zeros.
    """

    frames: Sequence[Tensor]
    proprio: Tensor
    seen: Tensor | None = None
    available: Tensor | None = None
    told: Tensor | None = None
    committed: Tensor | None = None


class Context(NamedTuple):
    """An observation as the action tokens see it.

    keys, values (L, B, heads, N, d). mask (B, N) bool: tokens that may be attended to, all where
    it is None. committed as in `Inputs`. With the dense topology keys are the observation tokens as
    they enter the first loop, (K, B, 1, N, D), and values are not looked at.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor | None = None
    committed: Tensor | None = None


class LoopedDiT(nn.Module):
    """An action chunk from an observation and a noisy chunk, at every depth 1..`max_loops`.

    `cameras` has the side of each camera's frames in pixels.
    """

    frequencies: Tensor
    history_position: nn.Parameter | None

    def __init__(
        self, config: LoopedDiTConfig, cameras: Sequence[int], proprio_dim: int, action_dim: int
    ) -> None:
        super().__init__()
        width = config.width
        self.config = config
        encoders = [
            make_encoder(
                config.encoder, width, size, config.encoder_frozen, config.backbone or None
            )
            for size in cameras
        ]
        self.cameras = nn.ModuleList(encoders)
        self.proprio = nn.Linear(proprio_dim, width)
        self.instruction = (
            None
            if config.vocabulary is None
            else make_instruction_encoder(config.instruction, width, config.vocabulary)
        )
        self.camera_tokens = [encoder.tokens for encoder in encoders]
        tokens = sum(self.camera_tokens) + 1
        self.observation_position = nn.Parameter(0.02 * torch.randn(tokens, width))
        # Oldest first. Without history there is none, nor a random number drawn for it.
        self.history_position = (
            nn.Parameter(0.02 * torch.randn(config.history, width)) if config.history > 1 else None
        )
        group = config.actions_per_token
        self.action_in = nn.Linear(group * action_dim, width)
        self.action_position = nn.Parameter(
            0.02 * torch.randn(config.action_horizon // group, width)
        )
        self.time = nn.Sequential(
            nn.Linear(2 * _TIME_FREQUENCIES, 2 * width),
            nn.SiLU(),
            nn.Linear(2 * width, width),
            nn.SiLU(),
        )
        exponents = torch.arange(_TIME_FREQUENCIES) / (_TIME_FREQUENCIES - 1)
        self.register_buffer("frequencies", 1000 * torch.exp(-math.log(1e4) * exponents))
        self.loop_embedding = nn.Parameter(torch.zeros(config.max_loops, width))
        self.blocks = nn.ModuleList(AdaLNBlock(width) for _ in range(config.blocks))
        self.action_blocks = nn.ModuleList(AdaLNBlock(width) for _ in range(config.action_blocks))
        self.injection = InputInjection(width) if config.injection else None
        self.out_norm = nn.LayerNorm(width)
        self.action_out = nn.Linear(width, group * action_dim)

    def encode(self, inputs: Inputs, loops: int, truncate: int = 0) -> Context:
        """The observation's keys and values for K = `loops`, and what denoising needs besides.

        `truncate`: how many of the last loops carry gradient, 0 for all; those before them are
        computed without a graph, and what the first loop is given gets the gradient in their place.
        """
        tokens, mask = self.observation_tokens(inputs)
        if self.config.topology == DENSE:
            kept = tokens[None, :, None].expand(loops, -1, -1, -1, -1)
            return Context(kept, kept, mask, inputs.committed)
        keys, values = zip(*self.encode_loops(tokens, mask, loops, truncate), strict=True)
        return Context(torch.cat(keys), torch.cat(values), mask, inputs.committed)

    def encode_loops(
        self, tokens: Tensor, mask: Tensor | None, loops: int, truncate: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Keys and values (blocks, B, heads, N, d) of one loop after the other, from what
        `observation_tokens` made."""
        condition = self.condition(torch.full((1,), CLEAN, device=tokens.device))
        bias = None if mask is None else mask[:, None, None]
        modulations = [block.modulate(condition) for block in self.stack]
        first, from_loop = tokens, loops - truncate if truncate else 0
        for loop in range(loops):
            made: list[tuple[Tensor, Tensor]] = []
            with _graph(loop >= from_loop):
                tokens = self._loop_input(tokens, first, loop, from_loop)
                for block, modulation in zip(self.stack, modulations, strict=True):
                    tokens, key_value = block.run(tokens, modulation, bias=bias)
                    made.append(key_value)
            keys, values = zip(*made, strict=True)
            yield torch.stack(keys), torch.stack(values)

    def predict(self, sample: Tensor, times: Tensor, context: Context) -> Tensor:
        """What the model says of `sample` (B, H, A) at `times` (B,): (B, H, A).

        With flow matching it is the chunk that the sample is on the way to. K is how many loops
        `context` was encoded for.
        """
        *_, output = self.exits(sample, times, context)
        return output

    def exits(
        self, sample: Tensor, times: Tensor, context: Context, truncate: int = 0
    ) -> Iterator[Tensor]:
        """What `predict` gives at each depth 1, 2, ... that `context` was encoded for."""
        tokens, condition, bias = self.action_tokens(sample, times, context)
        dense = self.config.topology == DENSE
        observed = context.keys.shape[3] if dense else 0
        if dense and condition.shape[1] > 1:  # a token's own, where actions are committed
            noisy = self.condition(times).expand(-1, observed, -1)
            condition = torch.cat([noisy, condition], dim=1)
        stack = self.action_stack
        modulations = [block.modulate(condition) for block in stack]
        if dense:  # one stream, all of it at the sample's time
            tokens = torch.cat([context.keys[0, :, 0], tokens], dim=1)
        first, depth = tokens, 1 if dense else len(self.blocks)
        loops = context.keys.shape[0] // depth
        from_loop = loops - truncate if truncate else 0
        for loop in range(loops):
            with _graph(loop >= from_loop):
                tokens = self._loop_input(tokens, first, loop, from_loop)
                for i, (block, modulation) in enumerate(zip(stack, modulations, strict=True)):
                    at = loop * depth + i
                    kept = None if dense else (context.keys[at], context.values[at])
                    tokens, _ = block.run(tokens, modulation, kept, bias)
                output = self.action_output(tokens[:, observed:])
            yield output

    def action_tokens(
        self, sample: Tensor, times: Tensor, context: Context
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """What the first loop is given of a sample: tokens (B, H / group, D), their condition
        (B, 1 or H / group, D), and the bias of their attention (B, 1, 1, N + H / group) or None."""
        sample, condition = self._with_committed(sample, times, context.committed)
        group = self.config.actions_per_token
        grouped = sample.unflatten(1, (-1, group)).flatten(2)  # (B, H / group, group * A)
        tokens = self.action_in(grouped) + self.action_position
        bias = None
        if context.mask is not None:
            own = context.mask.new_ones(sample.shape[0], tokens.shape[1])
            bias = torch.cat([context.mask, own], 1)[:, None, None]
        return tokens, condition, bias

    def action_output(self, tokens: Tensor) -> Tensor:
        """What the model says (B, H, A) by the tokens (B, H / group, D) that a loop leaves."""
        output = self.action_out(self.out_norm(tokens))
        return output.unflatten(-1, (self.config.actions_per_token, -1)).flatten(1, 2)

    @property
    def stack(self) -> list[AdaLNBlock]:
        """The blocks of one loop, as the observation's tokens go through them."""
        return cast(list[AdaLNBlock], list(self.blocks))

    @property
    def action_stack(self) -> list[AdaLNBlock]:
        """Those of the action tokens: with the dense topology, and without an action expert, the
        same."""
        return cast(list[AdaLNBlock], list(self.action_blocks)) or self.stack

    def _loop_input(self, tokens: Tensor, first: Tensor, loop: int, from_loop: int) -> Tensor:
        """What loop `loop` is given: gradient is cut before loop `from_loop`."""
        if loop and loop == from_loop:
            tokens = cut(tokens, first)
        if loop and self.injection is not None:
            tokens = self.injection(tokens, first)
        return tokens + self.loop_embedding[loop]

    def observation_tokens(self, inputs: Inputs) -> tuple[Tensor, Tensor | None]:
        """(B, N, D), the tokens of the oldest step first and the task's last; the mask (B, N)."""
        if self.history_position is None:
            parts = [encoder(frames) for encoder, frames in self._framed(inputs)]
            parts.append(self.proprio(inputs.proprio)[:, None])
            tokens = torch.cat(parts, dim=1) + self.observation_position
        else:
            steps = (-1, self.config.history)
            parts = [
                encoder(frames.flatten(0, 1)).unflatten(0, steps)
                for encoder, frames in self._framed(inputs)
            ]
            parts.append(self.proprio(inputs.proprio)[:, :, None])
            seen = torch.cat(parts, dim=2)  # (B, O, N / O, D)
            if inputs.seen is not None:
                seen = seen * inputs.seen[..., None, None].to(seen.dtype)
            placed = seen + self.observation_position + self.history_position[:, None]
            tokens = placed.flatten(1, 2)
        mask = self._mask(inputs.available)
        if self.instruction is not None:
            assert inputs.told is not None, "a policy that is told its task needs to be told"
            tokens = torch.cat([tokens, self.instruction(inputs.told)], dim=1)
            if mask is not None:
                mask = torch.cat([mask, mask.new_ones(mask.shape[0], 1)], dim=1)
        return tokens, mask

    def _framed(self, inputs: Inputs) -> Iterator[tuple[nn.Module, Tensor]]:
        return zip(self.cameras, inputs.frames, strict=True)

    def _mask(self, available: Tensor | None) -> Tensor | None:
        """(B, C) -> (B, N) without the task's token."""
        if available is None:
            return None
        each = [available[:, [i]].expand(-1, n) for i, n in enumerate(self.camera_tokens)]
        step = torch.cat([*each, available.new_ones(available.shape[0], 1)], dim=1)
        return step.repeat(1, self.config.history)

    def _with_committed(
        self, sample: Tensor, times: Tensor, committed: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The sample with what is committed in its place, and the condition (B, 1 or N, D)."""
        noisy = self.condition(times)
        if committed is None:
            return sample, noisy
        rest = self.config.action_horizon - committed.shape[1]
        padded = functional.pad(committed, (0, 0, 0, rest))  # (B, H, A + 1)
        known = padded[..., -1:]  # (B, H, 1)
        sample = torch.where(known > 0, padded[..., :-1], sample)
        share = known.unflatten(1, (-1, self.config.actions_per_token)).mean(2)  # (B, H / group, 1)
        clean = self.condition(torch.full_like(times, CLEAN))
        return sample, torch.lerp(noisy, clean, share)

    def condition(self, times: Tensor) -> Tensor:
        """Times (B,) -> condition (B, 1, D): one for all tokens of a sample."""
        angles = times[:, None] * self.frequencies
        return self.time(torch.cat([angles.sin(), angles.cos()], dim=-1))[:, None]


def _graph(kept: bool) -> AbstractContextManager[None]:
    """Where not `kept`, what is computed inside is not recorded for gradients."""
    return nullcontext() if kept else torch.no_grad()
