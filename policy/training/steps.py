"""What a training loop needs of whoever does its steps; and what those have in common.

Knows no model: `Trainer` trains looped policies, `graft/trainer` grafted ones.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol, cast

import torch
from accelerate import Accelerator
from torch import Tensor

from loopdit.datasets.windows import Batch
from loopdit.policy.checkpoint import CheckpointContent, TrainingState
from loopdit.policy.training.closed_loop import EvaluateConfig
from loopdit.policy.training.logs import LogConfig

_FINAL_LEARNING_RATE = 0.03  # share of the peak at the end of the cosine


@dataclass(frozen=True)
class StepResult:
    """What a step came to, on the device: the error of each exit to the demonstrations
    (of each depth,) over all processes' actions, the norm of the gradient before clipping, and
    other scalars by their names in metrics.jsonl."""

    error: Tensor
    gradient_norm: Tensor
    more: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])


class NotFinite(Exception):
    """A loss or a gradient is not a number. `rows` are the windows of the batch at fault, if any;
    nothing has been changed by the step."""

    def __init__(self, tensor: str, rows: list[int]) -> None:
        super().__init__(tensor)
        self.tensor = tensor
        self.rows = rows


class RunOptions(Protocol):
    """The options of a run that a loop goes by."""

    @property
    def batch_size(self) -> int:
        """Windows in a step, of all processes together."""
        ...

    @property
    def minutes(self) -> float:
        """When the run ends, 0 for no limit."""
        ...

    @property
    def steps(self) -> int:
        """When the run ends."""
        ...

    @property
    def learning_rate(self) -> float:
        """The schedule's peak."""
        ...

    @property
    def validate_every(self) -> int:
        """Steps between two validations."""
        ...

    @property
    def patience(self) -> int:
        """Validations without a smaller error that end the run, 0 for any."""
        ...

    @property
    def save_every_s(self) -> float:
        """Seconds between two checkpoints."""
        ...

    @property
    def workers(self) -> int:
        """Threads that read batches ahead."""
        ...

    @property
    def resume(self) -> bool:
        """Whether it goes on from a checkpoint."""
        ...

    @property
    def log(self) -> LogConfig:
        """What is told, and where."""
        ...

    @property
    def evaluate(self) -> EvaluateConfig:
        """Evaluation in closed loop beside the training."""
        ...


class StepTrainer(Protocol):
    """The state of a training, and one step of it."""

    accelerator: Accelerator
    step: int
    elapsed_s: float

    @property
    def config(self) -> RunOptions:
        """Its options."""
        ...

    @property
    def average(self) -> Any:
        """What is served, and what a validation measures."""
        ...

    @property
    def sharded(self) -> bool:
        """Whether weights are spread over the processes, all of which then take part in `content`
        and in what is measured of the average."""
        ...

    @property
    def depths(self) -> Sequence[int]:
        """Each K that is trained."""
        ...

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Of all that is trained."""
        ...

    @property
    def progress(self) -> float:
        """0 to 1: the larger share of steps and minutes that is used up."""
        ...

    def train_step(self, batch: Batch, start: int = 0) -> StepResult:
        """One optimizer step on this process's windows, the rows from `start` on of the batch.
        Raises NotFinite, with the weights as they were."""
        ...

    def state(self) -> TrainingState:
        """For `load_state`, beside the average's weights."""
        ...

    def load_state(self, state: TrainingState, average: dict[str, Tensor]) -> None:
        """Go on from what `state` returned when the average's weights were `average`."""
        ...

    def content(
        self, provenance: Mapping[str, Any], training: TrainingState | None
    ) -> CheckpointContent:
        """What a checkpoint of this moment holds; its tensors are the trainer's own."""
        ...

    def require_finite_weights(self) -> None:
        """Raise NotFinite where the last step has spoilt the weights: they must not be saved."""
        ...


def run_progress(config: RunOptions, step: int, elapsed_s: float) -> float:
    """0 to 1: the larger share of steps and minutes that is used up."""
    share = step / config.steps
    if config.minutes:
        share = max(share, elapsed_s / (60 * config.minutes))
    return min(1.0, share)


def scheduled_rate(peak: float, step: int, warmup_steps: int, progress: float) -> float:
    """Of the step to come: linear warm-up, then a cosine down to a small share."""
    warm = min(1.0, (step + 1) / max(1, warmup_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return peak * warm * (_FINAL_LEARNING_RATE + (1 - _FINAL_LEARNING_RATE) * cosine)


def average_decay(most: float, step: int) -> float:
    """Of a weight average after step `step`: a young one forgets faster, so that it never remembers
    the random start."""
    done = step + 1
    return min(most, (1 + done) / (10 + done))


def pieces(count: int, wanted: int) -> Iterator[tuple[int, int]]:
    """The borders of `count` windows in so many pieces of nearly equal size, none empty."""
    borders = [count * i // wanted for i in range(wanted + 1)]
    return ((a, b) for a, b in pairwise(borders) if b > a)


def step_seed(seed: int, step: int) -> int:
    """What all that chance decides in a step is drawn from, but for its depth."""
    return int.from_bytes(hashlib.sha256(f"{seed} {step}".encode()).digest()[:7])


def depth_chance(seed: int, step: int) -> float:
    """Uniform in [0, 1), which decides about a step's depth: apart from the batch's chance, which
    stays the same whatever depths are trained."""
    return int.from_bytes(hashlib.sha256(f"{seed} {step} depth".encode()).digest()[:6]) / 2**48


def over_processes(accelerator: Accelerator, mine: Tensor) -> Tensor:
    """The sum over all processes."""
    if accelerator.num_processes == 1:
        return mine
    return cast(Tensor, accelerator.reduce(mine.to(accelerator.device), "sum"))
