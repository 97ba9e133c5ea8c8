"""As many loops as an observation needs: stop when another one changes nothing.

Loop k is worth its time as long as the chunk it leads to differs from that of loop k - 1. So the
observation is encoded one loop at a time, its keys and values kept; after each, the chunk a_k is
guessed in one denoising step from the starting noise (every depth is an exit), and the first k with

    mean((a_k - a_(k-1))^2) < threshold        (normalised units, k >= 2)

is the depth at which the chunk is then denoised: RD-VLA's rule (arXiv 2602.07845), with a mean over
the chunk's numbers in the place of their sum, so that a threshold does not depend on the horizon.
Its "state" form asks the same of what the action tokens are given of the observation, the values
v_k of a loop: |v_k - v_(k-1)|^2 < threshold |v_(k-1)|^2, over the tokens that are attended to: not
those of a missing camera. It needs no guess.

Threshold 0 never stops, infinity stops at the second loop. Each observation of a batch stops by
itself. A batch is encoded until its last one stops, and denoised in groups of equal depth; at batch
1, as on a robot, nothing is computed in vain but the guesses before the last: where the sampler
begins with the same question (flow matching by Euler), the last guess is its first step.

Shapes: B batch, H action horizon, A action dim, K loops. Which threshold: `depth_calibration`.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from loopdit.errors import ConfigError
from loopdit.policy.looped_dit import Context
from loopdit.policy.looped_dit_config import ONE_WAY, depths_text
from loopdit.policy.looped_policy import DEFAULT_STEPS, LoopedPolicy
from loopdit.policy.stopping_rule import CHUNK, LEAST_LOOPS, StoppingRule, first_stop


class AdaptiveChunks(NamedTuple):
    """Raw actions (B, H, A), and the loops (B,) int64 that each of them took."""

    actions: Tensor
    loops: Tensor


class _Asked(NamedTuple):
    """What the model said (B, H, A) of the starting noise at times (B,)."""

    times: Tensor
    output: Tensor


class _Depth(NamedTuple):
    """After one loop: the observation so far, how much the loop changed (B,) where that is
    asked for and not the first, and what the model was asked to know it."""

    context: Context
    change: Tensor | None
    asked: _Asked | None


@torch.inference_mode()
def act_adaptively(
    policy: LoopedPolicy,
    observation: Mapping[str, Tensor],
    noise: Tensor,
    rule: StoppingRule,
    max_loops: int | None = None,
    steps: int = DEFAULT_STEPS,
    fresh: Tensor | None = None,
) -> AdaptiveChunks:
    """Like `LoopedPolicy.act` from noise (B, H, A), at the depth that `rule` finds.

    `max_loops` is the deepest, the policy's own where it is None. Raises ConfigError for a deeper
    one than was trained, and for a policy that cannot be encoded loop by loop.
    """
    deepest = policy.max_loops if max_loops is None else max_loops
    if deepest not in policy.depths:
        raise ConfigError(f"loops={deepest} was not trained: K = {depths_text(policy.depths)} was.")
    loops = torch.zeros(len(noise), dtype=torch.int64, device=noise.device)  # 0: goes on
    actions = torch.empty_like(noise)
    # The deepest loop is the last whatever it changes, and the second is where a change is known.
    compared = deepest - 1 if deepest > LEAST_LOOPS else 0
    depths = _depths(policy, observation, noise, rule.measure, deepest, compared, fresh)
    for k, depth in enumerate(depths, start=1):
        if k == deepest:
            stops = loops == 0
        elif depth.change is None or k < first_stop(policy.depths):
            continue
        else:
            stops = (loops == 0) & (depth.change < rule.threshold)
        rows = stops.nonzero()[:, 0]
        if len(rows):
            loops[rows] = k
            own = None if fresh is None else fresh[:, rows]
            actions[rows] = _denoised(policy, _rows(depth, rows), noise[rows], steps, own)
        if loops.all():
            break
    return AdaptiveChunks(actions, loops)


@torch.inference_mode()
def loop_changes(
    policy: LoopedPolicy,
    observation: Mapping[str, Tensor],
    noise: Tensor,
    measure: str = CHUNK,
    fresh: Tensor | None = None,
) -> Tensor:
    """What the rule compares with its threshold at each loop where it may stop, the last ones of
    the deepest's K: (B, K - 1) where every depth is trained."""
    deepest = policy.max_loops
    depths = _depths(policy, observation, noise, measure, deepest, deepest, fresh)
    changes = [depth.change for depth in depths if depth.change is not None]
    changes = changes[first_stop(policy.depths) - LEAST_LOOPS :]
    return torch.stack(changes, dim=1) if changes else noise.new_zeros(len(noise), 0)


def _depths(
    policy: LoopedPolicy,
    observation: Mapping[str, Tensor],
    noise: Tensor,
    measure: str,
    deepest: int,
    compared: int,
    fresh: Tensor | None,
) -> Iterator[_Depth]:
    """One loop after the other, and the change that each of the first `compared` makes.

    What is known of the model's parts is known here alone.
    """
    if policy.config.topology != ONE_WAY:
        raise ConfigError(
            f"adaptive depth needs policy.topology={ONE_WAY}, where an observation is encoded loop "
            f"by loop; this policy has {policy.config.topology}."
        )
    inputs = policy.normalized(observation)
    keys: list[Tensor] = []
    values: list[Tensor] = []
    before: Tensor | None = None
    tokens, mask = policy.model.observation_tokens(inputs)
    encoded = policy.model.encode_loops(tokens, mask, deepest)
    for k, (loop_keys, loop_values) in enumerate(encoded, start=1):
        keys.append(loop_keys)
        values.append(loop_values)
        context = Context(torch.cat(keys), torch.cat(values), mask, inputs.committed)
        if k > compared:
            yield _Depth(context, None, None)
            continue
        change, asked = None, None
        if measure == CHUNK:
            # From the first loop on, since the action tokens' own state is not kept: against the
            # denoising that follows, k (k - 1) / 2 loops of a few tokens are little.
            state, asked = _guess(policy, context, noise, fresh)
            if before is not None:
                change = (state - before).square().flatten(1).mean(1)
        else:
            if mask is not None:  # (B, N)
                loop_values = loop_values * mask[:, None, :, None].to(loop_values.dtype)
            state = loop_values.transpose(0, 1).flatten(1)  # (B, blocks * heads * N * d)
            if before is not None:
                change = (state - before).square().sum(1) / before.square().sum(1)
        before = state
        yield _Depth(context, change, asked)


def _guess(
    policy: LoopedPolicy, context: Context, noise: Tensor, fresh: Tensor | None
) -> tuple[Tensor, _Asked]:
    """The chunk (B, H, A) in one denoising step, and what was asked for it."""
    asked: list[_Asked] = []

    def predict(sample: Tensor, times: Tensor) -> Tensor:
        output = policy.model.predict(sample, times, context)
        asked.append(_Asked(times, output))
        return output

    guess = policy.sample(context, noise, 1, None if fresh is None else fresh[:1], predict)
    return guess, asked[0]


def _denoised(
    policy: LoopedPolicy, depth: _Depth, noise: Tensor, steps: int, fresh: Tensor | None
) -> Tensor:
    """Raw actions (B, H, A)."""
    first = depth.asked  # the guess began from the same noise

    def predict(sample: Tensor, times: Tensor) -> Tensor:
        nonlocal first
        answered, first = first, None
        if answered is not None and torch.equal(times, answered.times):
            return answered.output
        return policy.model.predict(sample, times, depth.context)

    return policy.to_actions(policy.sample(depth.context, noise, steps, fresh, predict))


def _rows(depth: _Depth, rows: Tensor) -> _Depth:
    context, asked = depth.context, depth.asked
    return _Depth(
        context=Context(
            keys=context.keys[:, rows],
            values=context.values[:, rows],
            mask=None if context.mask is None else context.mask[rows],
            committed=None if context.committed is None else context.committed[rows],
        ),
        change=None,
        asked=None if asked is None else _Asked(asked.times[rows], asked.output[rows]),
    )
