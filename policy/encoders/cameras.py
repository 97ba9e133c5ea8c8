"""The tokens of several cameras, some of which may be missing, and which of them may be seen.

Shapes: B observations, C cameras, N the tokens of all cameras, D width. A missing camera is masked:
whatever is in the place of its frame (black, noise, not a number) reaches neither an output nor a
gradient. What attends to the tokens must use the mask: an empty token is not the same as none.

How a robot says that it lacks a camera: `absent_cameras`.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor


def encode_cameras(
    encoders: Iterable[Callable[[Tensor], Tensor]],
    frames: Sequence[Tensor],
    available: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Each camera's frames (B, 3, S, S) -> tokens (B, N, D), camera by camera, and a mask (B, N)
    bool, true for those that may be attended to.

    `available` (B, C) bool says which cameras there are; all of them where it is None. Sizes may
    differ from camera to camera. Tokens of missing cameras are zeros.
    """
    tokens: list[Tensor] = []
    masks: list[Tensor] = []
    for i, (encoder, camera) in enumerate(zip(encoders, frames, strict=True)):
        if available is None:
            encoded = encoder(camera)  # (B, n, D)
            there = torch.ones(len(camera), dtype=torch.bool, device=camera.device)
        else:
            there = available[:, i]
            # Before the encoder too: a gradient would carry on what is not a number.
            encoded = encoder(torch.where(there[:, None, None, None], camera, 0.0))
            encoded = torch.where(there[:, None, None], encoded, 0.0)
        tokens.append(encoded)
        masks.append(there[:, None].expand(-1, encoded.shape[1]))
    return torch.cat(tokens, 1), torch.cat(masks, 1)


def drop_cameras(available: Tensor, chances: Tensor, dropout: float) -> Tensor:
    """Which cameras are left (B, C) bool when each is hidden with chance `dropout`, in training.

    `chances` (B, C) in [0, 1), drawn for the whole batch as those of `training/augmentation` are.
    An observation keeps at least one of the cameras that it has, that of the largest chance.
    """
    drawn = torch.where(available, chances, -1.0)
    largest = drawn == drawn.amax(1, keepdim=True)
    return available & (largest | (chances >= dropout))
