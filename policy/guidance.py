"""Sampling a chunk that keeps to another one: real-time chunking by inpainting (arXiv 2506.07339).

For policies that were not trained to be told what is in flight. With the sample A at level tau (0
noise, 1 chunk), the chunk X that the model says it is on the way to, the velocity v of the flow,
the wanted chunk Y and how much of each action is wanted W:

    e  = W (Y - X)                 X = A + (1 - tau) v
    g  = (dX / dA)^T e             `full`; `identity` takes e itself, and v as constant
    v' = v + gw g                  gw = min(beta, (tau^2 + (1 - tau)^2) / (tau (1 - tau)))

Here the model says X and not v, so that is what is changed: X' = A + (1 - tau) v', which is
X + (1 - tau) gw g. So it goes around whatever predicts a chunk, an exported graph included, where
it is `identity`; `full` needs the gradient, so torch. `identity` is the default because it costs no
gradient. Which does better is a matter of the policy: on `stack` the full one did, 35 against 27
of 40 (docs/experiments/2026-11-28-delay.md); for another simulator the opposite was reported
(real-time-chunking-kinetix, issue 4).

The pull is soft, also where W is 1: whoever plays the chunk must play what was committed, and not
the chunk's own beginning.

Shapes: B batch, H action horizon, A action dim. Normalised units.
"""

import torch
from torch import Tensor

from loopdit.policy.objectives.objective import CLEAN, Predict, per_action

IDENTITY, FULL = "identity", "full"
JACOBIANS = (IDENTITY, FULL)
BETA = 5.0  # of the paper, for five steps


def guidance_weight(level: Tensor, beta: float = BETA) -> Tensor:
    """gw at levels of any shape in [0, 1]: `beta` at both ends, where the formula is infinite."""
    left = CLEAN - level
    # The denominator is 0 at both ends alone, and the numerator 1 there.
    raw = (level.square() + left.square()) / (level * left).clamp_min(1e-12)
    return raw.clamp(max=beta)


def guided(
    predict: Predict, wanted: Tensor, weight: Tensor, jacobian: str = IDENTITY, beta: float = BETA
) -> Predict:
    """`predict`, which says the clean chunk, pulled towards `wanted` (B, H, A) by `weight`
    (B, H, 1) or (B, H, A) in [0, 1].

    With FULL, what `predict` is made of must be open to autograd: no inference mode.
    """

    def pulled(sample: Tensor, level: Tensor) -> Tensor:
        if jacobian == FULL:
            said, pull = _by_gradient(predict, sample, level, wanted, weight)
        else:
            said = predict(sample, level)
            pull = weight * (wanted - said)
        strength = (CLEAN - level) * guidance_weight(level, beta)
        return said + per_action(strength) * pull

    return pulled


def _by_gradient(
    predict: Predict, sample: Tensor, level: Tensor, wanted: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        at = sample.detach().requires_grad_(True)
        # The model must be asked inside: asked before, there is no graph to `at`, and the gradient
        # would silently be the error itself.
        said = predict(at, level)
        error = (weight * (wanted - said)).detach()
        (pull,) = torch.autograd.grad(said, at, error)
    return said.detach(), pull
