"""A batch of windows as a policy's losses take it, on a device.

Shapes: B windows, H action horizon, A action dim. Raw units.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from loopdit.datasets.windows import Batch
from loopdit.policy.encoders.vocabulary import INSTRUCTION
from loopdit.policy.looped_dit_config import LoopedDiTConfig
from loopdit.policy.looped_policy import Draws
from loopdit.policy.training.in_flight import with_committed


class WindowTensors(NamedTuple):
    """What the policy is given, the actions (B, H, A) to learn, and which of them count (B, H)."""

    observation: dict[str, Tensor]
    actions: Tensor
    valid: Tensor


class WindowReader:
    """Makes tensors of batches whose windows come from episodes with these `instructions`."""

    def __init__(
        self, config: LoopedDiTConfig, instructions: Sequence[str], device: torch.device
    ) -> None:
        self._config = config
        self._device = device
        self._told: np.ndarray | None = None
        if config.vocabulary is not None:
            each = [config.vocabulary.told(config.instruction, said) for said in instructions]
            self._told = np.stack(each)

    def tensors(self, batch: Batch, draws: Draws, first: int, stop: int) -> WindowTensors:
        """The windows from `first` to below `stop`, of which `draws` has the rows."""

        def moved(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values[first:stop]).to(self._device, non_blocking=True)

        observation = {name: moved(values) for name, values in batch.observations.items()}
        if self._told is not None:
            observation[INSTRUCTION] = moved(self._told[batch.instruction])
        actions, valid = moved(batch.actions), moved(batch.valid)
        if self._config.in_flight:
            assert batch.executed is not None
            assert draws.committed is not None
            observation, actions, valid = with_committed(
                self._config, observation, actions, valid, moved(batch.executed), draws.committed
            )
        return WindowTensors(observation, actions, valid)
