"""Per-token halting: a token that has halted is computed no further, and stays to be attended to.

After each loop an exit gate gives each token its probability to halt there, if it has not; the
cumulative probability c never falls (adaptive computation time, arXiv 1603.08983, per token as in
arXiv 1807.03819). A halted token keeps its state, and in each block the keys and values that it
last had, which are not computed again.

Two forms of one rule. `halt_softly` is differentiable and computes everything: a token's new state,
keys and values count with 1 - c and the old ones with c. `halt_and_skip` rounds c at a threshold
and gathers the tokens that go on out of projections, queries and feed-forward. Where every c is 0
or 1 they agree, whichever tokens halt when; training has to bring them there. The expected loops,
the sum of 1 - c, are the ponder cost in the one and the loops that were computed in the other.

The soft form compiles into one graph. The other's sizes depend on what it computes: it runs eagerly
and cannot be exported.

Shapes: B batch, N tokens, D width, n tokens that go on (of the sample with most of them: a batch
skips what all of its samples can). Knows nothing of what a loop computes.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from loopdit.policy.block import KeyValue
from loopdit.policy.loops.exit_gates import ExitGate
from loopdit.policy.loops.looped_block import Keep
from loopdit.policy.loops.rows import put_rows, take_rows

# One loop: tokens (B, n, D), loop, the rows (B, n) they are of all tokens (None: all), the blocks'
# keeps -> tokens (B, n, D).
Turn = Callable[[Tensor, int, Tensor | None, Sequence[Keep]], Tensor]


def halt_softly(
    turn: Turn, gate: ExitGate, tokens: Tensor, blocks: int, loops: int
) -> tuple[list[Tensor], Tensor]:
    """tokens (B, N, D) -> the tokens after each loop, and the expected loops (B, N)."""
    states: list[Tensor] = []
    halted = tokens.new_zeros(*tokens.shape[:2], 1)
    used = torch.zeros_like(halted)
    memories = [_Memory() for _ in range(blocks)]
    for loop in range(loops):
        used = used + (1 - halted)
        keeps = [memory.mixing(halted) for memory in memories]
        tokens = _mixed(turn(tokens, loop, None, keeps), tokens, halted)
        states.append(tokens)
        if loop + 1 < loops:
            halted = halted + (1 - halted) * gate(tokens)
    return states, used.squeeze(-1)


def halt_and_skip(
    turn: Turn,
    gate: ExitGate,
    tokens: Tensor,
    blocks: int,
    loops: int,
    halt_at: float,
) -> tuple[list[Tensor], Tensor]:
    """tokens (B, N, D) -> those after each loop that any is in, and each one's loops (B, N)."""
    states: list[Tensor] = []
    halted = tokens.new_zeros(*tokens.shape[:2], 1)
    used = torch.zeros_like(halted)
    memories = [_Memory() for _ in range(blocks)]
    for loop in range(loops):
        going = halted < halt_at if loop else torch.ones_like(halted, dtype=torch.bool)
        most = int(going.sum(1).max())
        if not most:
            break
        used = used + going
        rows = _first_rows(going, most)
        before = tokens if rows is None else take_rows(tokens, rows)
        own = going if rows is None else take_rows(going, rows)
        if own.all():
            own = None
        keeps = [memory.replacing(rows, own) for memory in memories]
        tokens = _replaced(tokens, turn(before, loop, rows, keeps), rows, own)
        states.append(tokens)
        # Of a token that has halted it stays at or above the threshold, whatever is added.
        halted = halted + (1 - halted) * gate(tokens)
    return states, used.squeeze(-1)


def _first_rows(going: Tensor, most: int) -> Tensor | None:
    """The rows (B, n) that go on, with others after them where a sample has fewer; None: all."""
    if most == going.shape[1]:
        return None
    order = going.squeeze(-1).byte().argsort(dim=1, descending=True, stable=True)
    return order[:, :most]


class _Memory:
    """The keys and values (B, heads, N, d) of all tokens in one block, as they last were."""

    def __init__(self) -> None:
        self._kept: KeyValue | None = None

    def mixing(self, halted: Tensor) -> Keep:
        """Old ones count with `halted` (B, N, 1)."""

        def keep(new: KeyValue) -> KeyValue:
            kept = self._kept or new
            share = halted[:, None]  # (B, 1, N, 1)
            self._kept = _mixed(new[0], kept[0], share), _mixed(new[1], kept[1], share)
            return self._kept

        return keep

    def replacing(self, rows: Tensor | None, own: Tensor | None) -> Keep:
        """New ones of `rows` (B, n; None: of all) where `own` (B, n, 1; None: everywhere)."""

        def keep(new: KeyValue) -> KeyValue:
            old = self._kept or new
            inside = None if own is None else own[:, None]  # (B, 1, n, 1)
            self._kept = (
                _replaced(old[0], new[0], rows, inside),
                _replaced(old[1], new[1], rows, inside),
            )
            return self._kept

        return keep


def _mixed(new: Tensor, old: Tensor, halted: Tensor) -> Tensor:
    """`new` at 0 and `old` at 1, both exactly."""
    return torch.lerp(new, old.to(new.dtype), halted.to(new.dtype))


def _replaced(old: Tensor, new: Tensor, rows: Tensor | None, own: Tensor | None) -> Tensor:
    """Old (B, ..., N, X) with the new (B, ..., n, X) of `rows` where `own` (B, ..., n, 1)."""
    old = old.to(new.dtype)
    if own is not None:
        new = torch.where(own, new, old if rows is None else take_rows(old, rows))
    return new if rows is None else put_rows(old, rows, new)
