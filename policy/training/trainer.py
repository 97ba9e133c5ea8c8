"""The training loop's state and one step of it. Time enters as an argument."""

import copy
import math
from typing import Any

import torch
from torch import Tensor

from loopdit.datasets.windows import Batch
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.training.config import TrainConfig

_FINAL_LEARNING_RATE = 0.03  # share of the peak at the end of the cosine
_MAX_GRADIENT_NORM = 1.0


class Trainer:
    """A policy, its weight average, its optimizer and its random state.

    Everything that a resumed run needs is in `state()`; with the same data and thread count a run
    that stopped and went on ends with the same weights as one that did not stop.
    """

    def __init__(self, policy: LoopedPolicy, config: TrainConfig, device: torch.device) -> None:
        self.config = config
        self.device = device
        self.step = 0
        self.elapsed_s = 0.0
        self.policy = policy.to(device)
        self.average = copy.deepcopy(self.policy).requires_grad_(False).eval()
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self.optimizer = torch.optim.AdamW(
            self.policy.parameters(),
            config.learning_rate,
            betas=(0.9, 0.95),
            weight_decay=config.weight_decay,
            fused=True,
        )

    @property
    def progress(self) -> float:
        """0 to 1: the larger share of steps and minutes that is used up."""
        share = self.step / self.config.steps
        if self.config.minutes:
            share = max(share, self.elapsed_s / (60 * self.config.minutes))
        return min(1.0, share)

    def train_step(self, batch: Batch) -> Tensor:
        """One optimizer step; returns each exit's error to the demonstrations, (max_loops,)."""
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * self._schedule()
        losses = self.policy.losses(
            {name: torch.from_numpy(v).to(self.device) for name, v in batch.observations.items()},
            torch.from_numpy(batch.actions).to(self.device),
            torch.from_numpy(batch.valid).to(self.device),
            self.generator,
            config.distill,
            config.proprio_noise,
        )
        self.optimizer.zero_grad()
        losses.objective.mean().backward()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), _MAX_GRADIENT_NORM)
        self.optimizer.step()
        self.step += 1
        self._update_average()
        return losses.error

    def state(self) -> dict[str, Any]:
        """Plain tensors and numbers, for `load_state`."""
        return {
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "policy": self.policy.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.step = state["step"]
        self.elapsed_s = state["elapsed_s"]
        self.policy.load_state_dict(state["policy"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())

    def _schedule(self) -> float:
        """Linear warm-up, then a cosine down to a small share, over `progress`."""
        warm = min(1.0, (self.step + 1) / max(1, self.config.warmup_steps))
        cosine = 0.5 * (1 + math.cos(math.pi * self.progress))
        return warm * (_FINAL_LEARNING_RATE + (1 - _FINAL_LEARNING_RATE) * cosine)

    @torch.no_grad()
    def _update_average(self) -> None:
        # A young average forgets faster, so that it never remembers the random start.
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        for average, value in zip(self.average.parameters(), self.policy.parameters(), strict=True):
            average.lerp_(value, 1 - decay)
