"""How much one loop amplifies a small change of its state: two norms of its Jacobian.

Shapes: B samples, each with n = N * D numbers of state; J is a sample's (n, n) Jacobian. It is
never formed: both norms come from products of it with vectors.

`spectral_norm` is the local Lipschitz constant. Below 1, two nearby states come closer in this
loop; above 1 some pair of them does not, and yet the loops may converge: in the long run the
largest eigenvalue decides, and the norm is only never below it.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


def differentiable_attention() -> AbstractContextManager[object]:
    """Attention that can be differentiated twice, which the fused kernels cannot."""
    return sdpa_kernel(SDPBackend.MATH)


def spectral_norm(
    function: Callable[[Tensor], Tensor],
    state: Tensor,
    generator: torch.Generator,
    iterations: int = 50,
    tolerance: float = 1e-3,
) -> Tensor:
    """The largest singular value of each sample's J at `state` (B, ...) -> (B,).

    Power iteration on the transpose of J times J, until no sample's estimate changes by
    `tolerance` of itself. The estimate comes from below: what J does to one vector of length 1. It
    carries no gradient: one to the function's parameters would keep every iteration's graph.
    """
    with torch.no_grad(), differentiable_attention():
        value, transposed = _linearised(function, state)
        # What `transposed` makes of a vector is linear in it, so its own derivative is J. Forward
        # mode says the same, and on its first use warns of torch's own deprecated scripts.
        _, forward = _linearised(transposed, torch.zeros_like(value))
        direction = _unit(torch.randn(state.shape, generator=generator).to(state))
        norm = torch.zeros(len(state), dtype=state.dtype, device=state.device)
        for _ in range(iterations):
            image = forward(direction)
            before, norm = norm, image.flatten(1).norm(dim=1)
            if bool(((norm - before).abs() <= tolerance * norm).all()):
                break
            direction = _unit(transposed(image))
    return norm


def jacobian_penalty(
    function: Callable[[Tensor], Tensor],
    state: Tensor,
    generator: torch.Generator | None = None,
    probes: int = 1,
) -> Tensor:
    """The mean over samples of |J|^2 / n at `state` (B, ...), |J| the Frobenius norm: a scalar
    with a gradient to the function's parameters.

    Jacobian regularisation (arXiv 2106.14342): Hutchinson's estimate, unbiased, from `probes`
    normal vectors v: |J|^2 is the mean of |v J|^2. The penalty at `state` is of the map, not of how
    the state came to be, so no gradient flows into `state`.
    """
    total = torch.zeros((), dtype=state.dtype, device=state.device)
    for _ in range(probes):
        probe = torch.randn(state.shape, generator=generator).to(state)
        total = total + probed_penalty(function, state, probe)
    return total / probes


def probed_penalty(function: Callable[[Tensor], Tensor], state: Tensor, probe: Tensor) -> Tensor:
    """`jacobian_penalty` by one standard normal `probe`, of the shape of state and image."""
    state = state.detach().requires_grad_()
    with torch.enable_grad(), differentiable_attention():
        value = function(state)
        (product,) = torch.autograd.grad(value, state, probe, create_graph=True)
        return product.square().mean()


def _linearised(
    function: Callable[[Tensor], Tensor], point: Tensor
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The function's value, and what the transpose of its J there makes of a vector."""
    value, transposed = cast(tuple[Tensor, Any], torch.func.vjp(function, point))
    return value, lambda image: transposed(image)[0]


def _unit(vectors: Tensor) -> Tensor:
    """Each sample's to length 1; zeros stay zeros."""
    lengths = vectors.flatten(1).norm(dim=1).clamp_min(torch.finfo(vectors.dtype).tiny)
    return vectors / lengths.view(-1, *[1] * (vectors.ndim - 1))
