"""A bundle's weights as a torch module, in float32 or with its products in half the bits.

What every back end made of torch runs. In fp16 and bf16 the transformer's matrix products and
attention are computed in that precision, and their weights are stored so, rounded once. What is
observed and commanded is normalised in float32, and cameras are encoded in it: a position in 8 bits
is a pixel off. So are layer norms, the residual stream and the sampler's step.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from loopdit.deploy.bundle.bundle import Bundle
from loopdit.policy.checkpoint import load_policy
from loopdit.policy.looped_dit import Context
from loopdit.policy.looped_policy import LoopedPolicy

NOISE = "noise"  # beside an observation's tensors
_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def torch_policy(bundle: Bundle, precision: str, device: str = "cpu") -> LoopedPolicy:
    """The policy on `device` ("cpu" or "cuda"), to be asked and not trained."""
    policy = load_policy(bundle.path).eval().requires_grad_(False).to(device)
    if precision in _DTYPES:
        _lower(policy, _DTYPES[precision], device)
    return policy


class Denoise(Protocol):
    """How a context and noise become a chunk, on the device that both are on."""

    def prepared(self, batch: int, steps: int) -> Any:
        """What a call reads and works in beside its arguments. Who captures a call keeps it."""
        ...

    def __call__(
        self, policy: LoopedPolicy, context: Context, noise: Tensor, prepared: Any
    ) -> Tensor:
        """Noise (B, H, A) -> raw actions (B, H, A). Not for two calls at once."""
        ...


class StepByStep:
    """See `Denoise`: the module itself, one `denoise_step` after the other."""

    def __init__(self, device: str) -> None:
        self._device = device

    def prepared(self, batch: int, steps: int) -> tuple[Tensor, Tensor]:
        """See `step_times`."""
        return step_times(batch, steps, self._device)

    def __call__(
        self,
        policy: LoopedPolicy,
        context: Context,
        noise: Tensor,
        prepared: tuple[Tensor, Tensor],
    ) -> Tensor:
        """See `denoised`."""
        return denoised(policy, context, noise, prepared)


def whole_chunk(
    policy: LoopedPolicy,
    given: Mapping[str, Tensor],
    loops: int,
    prepared: Any,
    denoise: Denoise,
) -> Tensor:
    """An observation's tensors and its noise -> raw actions (B, H, A), on any device.

    Free of copies to the host and of choices on values, so that it can be captured.
    """
    context = policy.encode({n: t for n, t in given.items() if n != NOISE}, loops)
    return denoise(policy, context, given[NOISE], prepared)


def denoised(
    policy: LoopedPolicy, context: Context, noise: Tensor, times: tuple[Tensor, Tensor]
) -> Tensor:
    """Noise (B, H, A) -> raw actions (B, H, A), in a step for each of `step_times`."""
    sample, (starts, dt) = noise, times
    for t in starts:
        sample = policy.denoise_step(sample, t, dt, context)
    return policy.to_actions(sample)


def step_times(batch: int, steps: int, device: str) -> tuple[Tensor, Tensor]:
    """When each step begins (steps, B), and how long it is (B,)."""
    starts = torch.arange(steps, device=device)[:, None].expand(-1, batch) / steps
    return starts.contiguous(), torch.full((batch,), 1 / steps, device=device)


def _lower(policy: LoopedPolicy, dtype: torch.dtype, device: str) -> None:
    model = policy.model
    in_float32 = {id(module) for camera in model.cameras for module in camera.modules()}
    for module in model.modules():
        if isinstance(module, nn.Linear) and id(module) not in in_float32:
            module.to(dtype)
    for camera in model.cameras:
        camera.forward = _in_autocast(camera.forward, device, None)
    model.encode = _in_autocast(model.encode, device, dtype)
    model.predict = _in_autocast(model.predict, device, dtype)


def _in_autocast(
    call: Callable[..., Any], device: str, dtype: torch.dtype | None
) -> Callable[..., Any]:
    """`call` with its products in `dtype`, in float32 where that is None."""

    def called(*arguments: Any) -> Any:
        # Without its cache: the weights need no cast, and a captured CUDA graph must own what it
        # reads.
        with torch.autocast(device, dtype, enabled=dtype is not None, cache_enabled=False):
            return call(*arguments)

    return called
