"""The trained module's weights in the order, layout and scaling in which the kernels take them.

Shapes as in `looped_dit`. The order is that in which `cpu.cpp` and `cpu_camera.hpp` read them: a
list and not names, because it is passed to C.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from loopdit.deploy.backends.fused.sampler import inner_objective, modulations
from loopdit.errors import BundleError
from loopdit.policy.block import HEAD_SIZE, AdaLNBlock
from loopdit.policy.encoders.keypoints import KeypointEncoder
from loopdit.policy.encoders.patches import PatchEncoder
from loopdit.policy.encoders.pooled import PooledEncoder
from loopdit.policy.looped_dit import LoopedDiT
from loopdit.policy.looped_dit_config import ONE_WAY
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.objectives.objective import CLEAN

# By their place in cpu_camera.hpp's Encoder.
_ENCODERS = (KeypointEncoder, PooledEncoder, PatchEncoder)


class KernelWeights(NamedTuple):
    """A policy as the kernels take it.

    sizes: by the names of cpu.cpp's Sizes, without the precision. frames (C, 2) int32: each
    camera's height and width. tensors: float32, contiguous.
    """

    sizes: dict[str, int]
    frames: np.ndarray
    tensors: list[np.ndarray]


def require_supported(policy: LoopedPolicy) -> None:
    """Raise BundleError for a policy with a part that there is no kernel for."""
    inner_objective(policy)
    config = policy.config
    unknown = ""
    if config.topology != ONE_WAY:
        unknown = f"policy.topology={config.topology}"
    elif not all(isinstance(encoder, _ENCODERS) for encoder in policy.model.cameras):
        unknown = f"policy.encoder={config.encoder}"
    if unknown:
        raise BundleError(
            f"backend=fused has no kernel for {unknown}. Use backend=onnxruntime or torch."
        )


@torch.inference_mode()
def kernel_weights(policy: LoopedPolicy) -> KernelWeights:
    """Raises BundleError as `require_supported` does."""
    require_supported(policy)
    config, model, spec = policy.config, policy.model, policy.spec
    kind, detail = _encoder(model)
    sizes = {
        "width": config.width,
        "hidden": model.stack[0].feedforward_out.in_features,
        "blocks": config.blocks,
        "action_blocks": config.action_blocks,
        "loops": config.max_loops,
        "history": config.history,
        "cameras": len(model.cameras),
        "encoder": kind,
        "detail": detail,
        "proprio": spec.proprio.shape[-1],
        "instruction": int(model.instruction is not None),
        "horizon": config.action_horizon,
        "group": config.actions_per_token,
        "actions": spec.action.shape[-1],
        "injection": int(config.injection),
    }
    frames = np.array([camera.shape[-3:-1] for camera in spec.cameras], np.int32)
    tensors = [
        np.ascontiguousarray(tensor.detach().cpu().numpy(), np.float32)
        for tensor in _tensors(policy)
    ]
    return KernelWeights(sizes, frames.reshape(-1, 2), tensors)


def _encoder(model: LoopedDiT) -> tuple[int, int]:
    """Which of `_ENCODERS` the cameras have, and its detail: cells or pixels along a side."""
    for encoder in model.cameras:
        if isinstance(encoder, PooledEncoder):
            return 1, round(encoder.tokens**0.5)
        if isinstance(encoder, PatchEncoder):
            return 2, encoder.patch
    return 0, 0


def _tensors(policy: LoopedPolicy) -> Iterator[Tensor]:
    model, normalizer = policy.model, policy.normalizer
    for encoder in model.cameras:
        yield from _camera(encoder)
    yield _placed(model)
    bound = normalizer.proprio_bound
    yield normalizer.proprio_mean
    yield normalizer.proprio_spread
    yield torch.full_like(normalizer.proprio_mean, torch.inf) if bound is None else bound
    yield model.proprio.weight
    yield model.action_in.weight
    yield model.action_position + model.action_in.bias
    yield model.loop_embedding
    if model.injection is not None:
        yield model.injection.carry
    own = model.action_stack if policy.config.action_blocks else []
    for block in (*model.stack, *own):
        yield from _block(block)
    clean = torch.tensor([CLEAN])
    yield modulations(policy, clean, model.stack)
    yield modulations(policy, clean)
    yield model.out_norm.weight
    yield model.out_norm.bias
    yield model.action_out.weight
    yield model.action_out.bias


def _camera(encoder: nn.Module) -> Iterator[Tensor]:
    if isinstance(encoder, PatchEncoder):
        yield from _convolution(encoder.embed)
        return
    assert isinstance(encoder, KeypointEncoder | PooledEncoder)
    for layer in encoder.features:
        if isinstance(layer, nn.Conv2d):
            yield from _convolution(layer)
        elif isinstance(layer, nn.GroupNorm):
            yield layer.weight
            yield layer.bias
    yield encoder.project.weight


def _convolution(layer: nn.Conv2d) -> Iterator[Tensor]:
    yield layer.weight.permute(0, 2, 3, 1)  # a window's pixels in turn, each with its channels
    assert layer.bias is not None
    yield layer.bias


def _placed(model: LoopedDiT) -> Tensor:
    """What is added to the observation's tokens (N, D), but the task's: positions and biases."""
    parts: list[Tensor] = []
    for encoder, tokens in zip(model.cameras, model.camera_tokens, strict=True):
        own = torch.zeros(tokens, model.config.width)
        if isinstance(encoder, KeypointEncoder | PooledEncoder):
            own = own + encoder.project.bias
        if isinstance(encoder, PooledEncoder | PatchEncoder):
            own = own + encoder.position
        parts.append(own)
    parts.append(model.proprio.bias[None])
    placed = torch.cat(parts) + model.observation_position
    if model.history_position is None:
        return placed
    return (placed + model.history_position[:, None]).flatten(0, 1)


def _block(block: AdaLNBlock) -> Iterator[Tensor]:
    width = block.attention_out.in_features
    weights = block.queries_keys_values.weight.clone()
    weights[:width] *= HEAD_SIZE**-0.5  # the logits' scale
    yield weights
    yield block.attention_out.weight
    yield from block.feedforward_in.weight.chunk(2)  # what goes through the SiLU, what it opens
    yield block.feedforward_out.weight
