"""A penalty, in training, on how much the last loop amplifies what it is given.

Shapes: B samples, N observation tokens, D width, K loops.

With input injection the loops of a policy can have a fixed point that depends on the observation
alone (`injection`). A weight of the mean squared norm of the last loop's Jacobian, in the losses,
makes that loop bring near states nearer (arXiv 2106.14342, estimated with one probe a sample; the
arm "both" of scripts/bench_injection.py). It is of the loops of the observation, which
`python -m loopdit.policy.fixed_point` measures, and not of the action tokens'.

It costs the tokens and all loops once more, and two passes back through the last; in float32,
whatever the losses are computed in.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from loopdit.policy.fixed_point.adapters import observation_loops
from loopdit.policy.fixed_point.jacobian import probed_penalty
from loopdit.policy.fixed_point.step import at_loop
from loopdit.policy.looped_policy import LoopedPolicy


def state_shape(policy: LoopedPolicy) -> tuple[int, int]:
    """N and D of the state of a policy's observation."""
    tokens, width = policy.model.observation_position.shape
    told = policy.model.instruction is not None
    return tokens * policy.config.history + told, width


def contraction_penalty(
    policy: LoopedPolicy, observation: Mapping[str, Tensor], loops: int, probe: Tensor
) -> Tensor:
    """|J|^2 / (N D), the mean over samples, of loop K = `loops` on a raw batched observation.

    A scalar, at least 0, with a gradient to the shared stack and the injection but not to what made
    the tokens. `probe` (B, N, D) is standard normal. 0 with one loop, which has no input to mix in.
    Raises ConfigError for a dense policy.
    """
    if loops < 2:
        return probe.new_zeros(())
    with torch.autocast(probe.device.type, enabled=False):
        looped = observation_loops(policy, observation)
        state = looped.start
        with torch.no_grad():
            for loop in range(loops - 1):
                state = looped.step(state, loop)
        return probed_penalty(at_loop(looped.step, loops - 1), state, probe)
