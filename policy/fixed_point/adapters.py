"""The loops of models in this package, as the map that this folder measures.

Shapes: B samples, N tokens, D width. Loops beyond those of the model repeat its last one.

A policy's states are its observation tokens: they depend on neither the noise nor the time, and
each denoising step reads them.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar, cast

import torch
from torch import Tensor

from loopdit.errors import ConfigError
from loopdit.policy.fixed_point.step import LoopedMap
from loopdit.policy.looped_dit_config import DENSE, ONE_WAY
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.loops.looped_block import LoopedBlock
from loopdit.policy.loops.looped_stack import LoopedStack
from loopdit.policy.loops.looped_unit import LoopedUnit
from loopdit.policy.loops.sharpening import sharpness
from loopdit.policy.objectives.objective import CLEAN

T = TypeVar("T")


def seeded(make: Callable[[], T], seed: int) -> T:
    """What `make` makes of weights drawn under `seed`; no one else's random numbers change."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def random_policy(policy: LoopedPolicy, seed: int) -> LoopedPolicy:
    """The same architecture before any training, that sees what `policy` sees: its normaliser."""
    fresh = seeded(lambda: LoopedPolicy(policy.spec, policy.config), seed)
    fresh.normalizer = policy.normalizer
    return fresh.eval().requires_grad_(False)


def observation_loops(policy: LoopedPolicy, observation: Mapping[str, Tensor]) -> LoopedMap:
    """The looped stack of `policy` on the tokens of a raw batched observation.

    Raises ConfigError for a dense policy, whose observation tokens see the noisy actions.
    """
    model = policy.model
    if policy.config.topology == DENSE:
        raise ConfigError(
            f"policy.topology={DENSE}: the loops of its observation tokens depend on the noise. "
            f"Measure a policy with policy.topology={ONE_WAY}."
        )
    with torch.no_grad():
        tokens, mask = model.observation_tokens(policy.normalized(observation))
    # With a gradient, where the policy is being trained: a step is a function of these, too.
    condition = model.condition(torch.full((1,), CLEAN, device=tokens.device))
    modulations = [block.modulate(condition) for block in model.stack]
    bias = None if mask is None else mask[:, None, None]

    def step(state: Tensor, loop: int) -> Tensor:
        if loop and model.injection is not None:
            state = model.injection(state, tokens)
        state = state + model.loop_embedding[min(loop, policy.max_loops - 1)]
        for block, modulation in zip(model.stack, modulations, strict=True):
            state, _ = block.run(state, modulation, bias=bias)
        return state

    return LoopedMap(step, tokens)


def stack_loops(
    stack: LoopedStack,
    tokens: Tensor,
    condition: Tensor,
    bias: Tensor | None = None,
    positions: Tensor | None = None,
    unit: int = 0,
) -> LoopedMap:
    """The loops of one unit of `stack`: of the whole stack, or of block `unit` where blocks are
    looped one by one, begun where those before it end.

    Arguments as of LoopedStack. What ends the loops is not part of them: exit gates, halting.
    Raises ConfigError for a unit that the stack has not.
    """
    units = cast(list[LoopedUnit], list(stack.units))
    if not 0 <= unit < len(units):
        raise ConfigError(f"unit={unit} is out of range: this model loops {len(units)} units.")
    with torch.no_grad():
        for earlier in units[:unit]:
            tokens, *_ = earlier(tokens, condition, stack.config.loops, bias, positions, None)
    blocks = cast(list[LoopedBlock], list(units[unit].blocks))
    injection = units[unit].injection
    loops = stack.config.loops

    def step(state: Tensor, loop: int) -> Tensor:
        loop = min(loop, loops - 1)
        beta = sharpness(loop, loops, stack.config.sharpest)
        if injection is not None:
            state = injection(state, tokens)
        for block in blocks:  # modulated here, so that a step has a gradient of its own
            modulation = block.block.modulate(condition)
            state = block(state, modulation, loop, bias, beta, positions)
        return state

    return LoopedMap(step, tokens.detach())
