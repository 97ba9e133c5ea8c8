"""Small transformers of the real class, with inputs for them."""

import torch
from torch import Tensor, nn

from loopdit.policy.graft.backbone import TINY, named_transformer
from loopdit.policy.graft.config import GraftConfig
from loopdit.policy.graft.graft import Graft, graft

WIDTH = 48


def tiny_graft(**options: object) -> Graft:
    """A grafted tiny transformer, always with the same weights."""
    return graft(named_transformer(TINY, seed=0), GraftConfig(**options))  # pyright: ignore[reportArgumentType] - the options' own types


def video(batch: int = 2, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy latents (B, 3, 16, 8, 12), text (B, 8, 24) and timesteps (B,) of the tiny one."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(batch, 3, 16, 8, 12, generator=generator)
    text = torch.randn(batch, 8, 24, generator=generator)
    return latents, text, torch.randint(0, 1000, (batch,), generator=generator)


def halting_gates(grafted: Graft) -> list[nn.Linear]:
    """Of each block."""
    return [block.halting_gate.logit for block in grafted.blocks if block.halting_gate is not None]


def moved(grafted: Graft, seed: int = 1, spread: float = 0.3) -> Graft:
    """With everything trained somewhere else than where it starts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in grafted.trained().values():
            value.add_(spread * torch.randn(value.shape, generator=generator))
    return grafted
