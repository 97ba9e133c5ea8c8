"""What a training will need of memory, said before it begins; and what else would fit.

Weights, gradients and the optimizer are counted. What the forward pass keeps for the backward one
is not guessed: one block of the true size is run without memory (torch's FakeTensorMode, which has
shapes alone), and what autograd saves of one loop is added up. Peaks of kernels, of the allocator
and of the data beside it are a margin.

Shapes: B windows that are computed at once, T latent frames of C x h x w, S text tokens.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from loopdit.errors import ConfigError
from loopdit.policy.graft.config import ALL, BACKBONE, GraftConfig
from loopdit.policy.graft.graft import graft
from loopdit.policy.graft.looped_block import LOOP, NESTED, NO_CHECKPOINT

FP32, BF16 = "fp32", "bf16"
_BYTES = {FP32: 4, BF16: 2}
_GATHERED = 2  # blocks that are whole at once: one computes while the next is fetched
_MARGIN = 1.15  # of what is counted: allocator, kernels' workspaces, the batch itself
_MOST_PIECES = 1024


@dataclass(frozen=True)
class Work:
    """What one step computes. `transformer` is its configuration, `frozen` and `trained` numbers of
    parameters, `latents` (T, C, h, w), `rows` B, `passes` the K of each pass whose gradients a
    piece of the batch gathers, `shares` of how many processes the weights are spread over."""

    transformer: Mapping[str, Any]
    graft: GraftConfig
    frozen: int
    trained: int
    latents: tuple[int, int, int, int]
    rows: int
    passes: Sequence[int]
    precision: str = FP32
    checkpointing: str = NO_CHECKPOINT
    shares: int = 1


@dataclass(frozen=True)
class TrainingMemory:
    """In bytes. `optimizer`: gradients, AdamW's two moments and the weight average."""

    weights: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """With a margin."""
        return int(_MARGIN * (self.weights + self.optimizer + self.activations))

    def sentence(self) -> str:
        """For the screen."""
        parts = (("weights", self.weights), ("optimizer", self.optimizer))
        told = ", ".join(f"{name} {_gib(size)}" for name, size in parts)
        return f"memory: {_gib(self.total)} ({told}, activations {_gib(self.activations)})"


def training_memory(work: Work) -> TrainingMemory:
    """Of one process on one device."""
    saved = _saved(work)
    weights = work.frozen * _BYTES[work.precision] + 4 * work.trained
    optimizer = 4 * 4 * work.trained
    if work.shares > 1:
        block = saved.numbers * (4 if work.graft.freeze == ALL else _BYTES[work.precision])
        # What is in no block is whole throughout a step.
        outside = max(0, weights - int(work.transformer["num_layers"]) * block)
        weights = weights // work.shares + outside + _GATHERED * block
        optimizer //= work.shares
    return TrainingMemory(weights, optimizer, _activations(work, saved))


def require_fits(work: Work, batch: int, free: int, processes: int = 1) -> TrainingMemory:
    """What `work` takes. Raises ConfigError where `free` bytes are less, with the settings that
    would fit: `batch` windows in more pieces, checkpoints, half the bits, or weights spread over
    `processes`."""
    found = training_memory(work)
    if found.total <= free:
        return found
    said = f"this training needs {_gib(found.total)}, and {_gib(free)} are free."
    remedies = [
        text
        for text, other in _alternatives(work, batch, processes)
        if training_memory(other).total <= free
    ]
    if not remedies:
        raise ConfigError(
            f"{said} No setting of checkpoint, accumulate or precision fits: use fewer or smaller "
            f"frames (video.frames, video.height), graft.freeze=frozen, or more GPUs with "
            f"shard=true."
        )
    raise ConfigError(f"{said} It would fit with {' or '.join(remedies)}.")


def free_memory(device: torch.device) -> int:
    """Bytes that could be allocated on the device now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    with open("/proc/meminfo") as file:
        rows = dict(line.split(":", 1) for line in file)
    return 1024 * int(rows["MemAvailable"].split()[0])


def _alternatives(work: Work, batch: int, processes: int) -> Iterable[tuple[str, Work]]:
    """What to say and the work it makes, the cheapest first; each kind once."""
    for checkpointing in (LOOP, NESTED):
        if work.checkpointing == NO_CHECKPOINT and work.graft.halting == "none":
            yield f"checkpoint={checkpointing}", replace(work, checkpointing=checkpointing)
    yield from _first(_pieces(work, batch), "")
    if work.precision == FP32:
        yield "precision=bf16", replace(work, precision=BF16)
    both = replace(work, precision=BF16)
    if work.graft.halting == "none":
        both = replace(both, checkpointing=NESTED)
    yield from _first(_pieces(both, batch), _words(work, both))
    if work.shares < processes:
        yield "shard=true", replace(work, shares=processes)
        every = replace(both, shares=processes)
        yield f"shard=true {_words(work, every)}".strip(), every


def _pieces(work: Work, batch: int) -> Iterable[tuple[int, Work]]:
    pieces = 2
    while pieces <= min(batch, _MOST_PIECES):
        rows = -(-batch // pieces)
        if rows < work.rows:
            yield pieces, replace(work, rows=rows)
        pieces *= 2


def _first(found: Iterable[tuple[int, Work]], words: str) -> Iterable[tuple[str, Work]]:
    """The last of them, which needs least, with `words` before it."""
    every = list(found)
    if every:
        pieces, work = every[-1]
        yield f"{words}accumulate={pieces}", work


def _words(before: Work, after: Work) -> str:
    said = [
        f"{name}={getattr(after, field)} "
        for name, field in (("precision", "precision"), ("checkpoint", "checkpointing"))
        if getattr(after, field) != getattr(before, field)
    ]
    return "".join(said)


def _activations(work: Work, saved: "_Saved") -> int:
    """What is kept at the worst moment: of all passes, and of the loop that is computed again."""
    one, loop, state, _ = saved
    blocks = int(work.transformer["num_layers"])
    looped = work.graft.looped == BACKBONE
    outside = one - loop
    kept: Callable[[int], int] = {
        NO_CHECKPOINT: lambda loops: blocks * loops * loop,
        LOOP: lambda loops: blocks * loops * state,
        NESTED: lambda loops: blocks * state,
    }[work.checkpointing if looped else NO_CHECKPOINT]
    again = {NO_CHECKPOINT: 0, LOOP: loop, NESTED: loop + max(work.passes) * state}
    return sum(outside + kept(loops) for loops in work.passes) + again[work.checkpointing]


class _Saved(NamedTuple):
    """Bytes: all that is saved with one block and one loop, of one loop, of a loop's input; and the
    numbers in a block's weights."""

    one: int
    loop: int
    state: int
    numbers: int


def _saved(work: Work) -> _Saved:
    sizes = json.dumps(dict(work.transformer), sort_keys=True)
    block = _Block(sizes, work.graft, work.latents, work.rows, work.precision)
    first, state, numbers = _saved_by_one_block(block, 1)
    if work.graft.looped != BACKBONE:
        return _Saved(first, first, state, numbers)
    second, _, _ = _saved_by_one_block(block, 2)
    return _Saved(first, second - first, state, numbers)


class _Block(NamedTuple):
    """What one block's work depends on: checkpoints and processes are counted from it. `sizes` is
    the transformer's configuration as JSON."""

    sizes: str
    graft: GraftConfig
    latents: tuple[int, int, int, int]
    rows: int
    precision: str


@cache  # the same for each remedy that is tried
def _saved_by_one_block(work: _Block, loops: int) -> tuple[int, int, int]:
    """Bytes of all that is saved, and of a loop's input; the numbers in the block's weights."""
    dtype = torch.bfloat16 if work.precision == BF16 else torch.float32
    kept: dict[int, Tensor] = {}
    with FakeTensorMode():
        sizes: dict[str, Any] = {**json.loads(work.sizes), "num_layers": 1}
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            transformer = CogVideoXTransformer3DModel(**sizes)
        finally:
            torch.set_default_dtype(before)
        wanted = max(loops, work.graft.loops)
        options = replace(work.graft, loops=wanted) if work.graft.looped == BACKBONE else work.graft
        grafted = graft(transformer, options).train()
        own = {p.untyped_storage()._cdata for p in grafted.parameters()}  # pyright: ignore[reportPrivateUsage] - the only name of a storage without memory

        def pack(tensor: Tensor) -> Tensor:
            key = tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage] - as above
            if key not in own:
                kept[key] = tensor
            return tensor

        latents = torch.empty(work.rows, *work.latents, dtype=dtype)
        words, width = int(sizes["max_text_seq_length"]), int(sizes["text_embed_dim"])
        text = torch.empty(work.rows, words, width, dtype=dtype)
        level = torch.zeros(work.rows, dtype=torch.int64)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            said = grafted(latents, text, level, loops if work.graft.looped == BACKBONE else None)
        tokens = said.hidden.shape[1] + words
        state = work.rows * tokens * said.hidden.shape[2] * said.hidden.element_size()
        numbers = sum(p.numel() for p in grafted.transformer.transformer_blocks.parameters())
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()), state, numbers


def _gib(size: int) -> str:
    return f"{size / 2**30:.3g} GiB"
