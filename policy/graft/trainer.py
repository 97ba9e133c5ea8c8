"""A graft policy's training: its state, and one step of it. Time enters as an argument.

What is trained has an optimizer and a running average; the video model's frozen weights have
neither, so that a step needs little more memory than a forward and a backward pass. Everything that
chance decides in a step follows from (seed, step), for the whole batch before it is split, as in
`training/trainer`.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from loopdit.datasets.video.latent_windows import LATENTS
from loopdit.datasets.windows import Batch
from loopdit.policy.checkpoint import CheckpointContent, TrainingState
from loopdit.policy.graft.checkpoint import graft_content
from loopdit.policy.graft.graft_policy import GraftPolicy
from loopdit.policy.graft.losses import (
    GraftDraws,
    GraftLosses,
    LossConfig,
    draw,
    graft_losses,
)
from loopdit.policy.graft.memory import BF16
from loopdit.policy.graft.sharding import gathered, spread, whole_content
from loopdit.policy.graft.train_config import GraftTrainConfig
from loopdit.policy.objectives.depth import DepthPlan, plan_depth
from loopdit.policy.training import non_finite
from loopdit.policy.training.optimization import Optimization
from loopdit.policy.training.processes import joined_model
from loopdit.policy.training.shares import share_of
from loopdit.policy.training.steps import (
    NotFinite,
    StepResult,
    average_decay,
    depth_chance,
    over_processes,
    pieces,
    run_progress,
    step_seed,
)

_VIDEO = "video_loss"


class GraftTrainer:
    """A policy, the average of what is trained in it, and its optimizer, on one device, or
    `sharded`: spread over the devices of all processes."""

    def __init__(
        self,
        policy: GraftPolicy,
        config: GraftTrainConfig,
        accelerator: Accelerator,
        instructions: Sequence[str],
    ) -> None:
        self.config = config
        self.accelerator = accelerator
        self.step = 0
        self.elapsed_s = 0.0
        self.sharded = config.shard
        self.policy = policy.to(accelerator.device).train()
        if (
            accelerator.num_processes == 1 or self.sharded
        ):  # DDP wants all of a module on its device
            policy.encoder.cpu()  # latents are made already
        if config.precision == BF16:
            _halve_frozen(policy)
        self._losses = _Losses(policy, config.losses)
        if self.sharded:
            spread(self._losses, policy, accelerator)
        else:
            self._losses = joined_model(accelerator, self._losses)
        self._optimization = Optimization(policy.trained(), config)
        self.average = Average(policy, config.precision == BF16, self._losses)
        self._generator = torch.Generator(accelerator.device)
        self._reader = LatentReader(policy, instructions)

    @property
    def depths(self) -> range:
        """Each K that is trained."""
        return self.policy.depths

    @property
    def progress(self) -> float:
        """0 to 1: the larger share of steps and minutes that is used up."""
        return run_progress(self.config, self.step, self.elapsed_s)

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Of all that is trained."""
        return self._optimization.optimizer

    def train_step(self, batch: Batch, start: int = 0) -> StepResult:
        """One optimizer step on this process's windows, the rows from `start` on of the batch.

        Raises NotFinite, with the weights as they were.
        """
        config, optimization = self.config, self._optimization
        optimization.begin(self.step, self.progress)
        objective, error, video = self._gradients(batch, start)
        norm = optimization.norm()
        if not non_finite.is_finite(objective, norm):
            raise optimization.not_finite(batch, None)
        optimization.take(norm)
        self.average.update(average_decay(config.ema_decay, self.step))
        self.step += 1
        return StepResult(error, norm, {_VIDEO: video} if config.video_weight else {})

    def state(self) -> TrainingState:
        """For `load_state` once they are whole, beside the average; tensors are shared with the
        trainer."""
        numbers = {"step": self.step, "elapsed_s": self.elapsed_s}
        return TrainingState(numbers, self._optimization.tensors())

    def load_state(self, state: TrainingState, average: dict[str, Tensor]) -> None:
        """Go on from what `state` returned when the checkpoint's weights were `average`."""
        self.step = int(state.numbers["step"])
        self.elapsed_s = float(state.numbers["elapsed_s"])
        self.average.load(average)
        self._optimization.load(state.tensors)

    def content(
        self, provenance: Mapping[str, Any], training: TrainingState | None
    ) -> CheckpointContent:
        """What a checkpoint of this moment holds; its tensors are the trainer's own, or gathered on
        the main process."""
        found = graft_content(self.policy, self.average.values, provenance, training)
        return whole_content(found, self.accelerator.is_main_process) if self.sharded else found

    def require_finite_weights(self) -> None:
        """Raise NotFinite where the last step has spoilt the weights: they must not be saved."""
        spoilt = non_finite.spoilt_tensor(self._optimization.weights)
        if self.sharded:  # all must raise where one must
            found = torch.tensor(float(spoilt is not None))
            elsewhere = float(self._over_processes(found)) > 0
            spoilt = spoilt or ("of another process" if elsewhere else None)
        if spoilt is not None:
            raise NotFinite(f"the weight {spoilt}", [])

    def _gradients(self, batch: Batch, start: int) -> tuple[Tensor, Tensor, Tensor]:
        """Fill the gradients; the objective, the error (of each depth,), the video's loss."""
        config, world = self.config, self.accelerator.num_processes
        count = len(batch.actions)
        draws = self._draws().rows(start, start + count)
        plan = plan_depth(
            config.depth, self.depths, self.step, depth_chance(config.seed, self.step)
        )
        valid = torch.from_numpy(batch.valid)
        total = float(self._over_processes(valid.sum().float())) or 1.0
        device = self.accelerator.device
        objective = torch.zeros((), device=device)
        error, video = torch.zeros(len(self.depths), device=device), torch.zeros((), device=device)
        for first, last in pieces(count, config.accumulate):
            with self._alone(last == count):
                with self.accelerator.autocast():
                    found: GraftLosses = self._losses(
                        *self._reader.tensors(batch, first, last), draws.rows(first, last), plan
                    )
                # The video's loss is a mean over windows, the actions' over those that count.
                of_windows = (last - first) / config.batch_size
                of_actions = float(valid[first:last].sum()) / total
                piece = found.actions * of_actions + found.others * of_windows
                self.accelerator.backward(piece * world)  # processes take the mean
            objective += piece.detach()
            error += found.error_of(self.depths) * of_actions
            video += found.video.mean() * of_windows if config.video_weight else 0.0
        return objective, self._over_processes(error), self._over_processes(video)

    def _draws(self) -> GraftDraws:
        """For all windows of the step's batch."""
        seed = step_seed(self.config.seed, self.step)
        self._generator.manual_seed(seed)
        torch.manual_seed(seed)  # for layers that draw by themselves
        return draw(self.policy, self.config.batch_size, self._generator)

    def _alone(self, last: bool) -> AbstractContextManager[None]:
        """Gradients of all but the last piece stay in the process; not where they are sharded,
        since whole ones would need the memory that is saved."""
        if last or self.sharded:
            return nullcontext()
        return self.accelerator.no_sync(self._losses)

    def _over_processes(self, mine: Tensor) -> Tensor:
        return over_processes(self.accelerator, mine)


class Average:
    """The running average of what is trained in a policy, which can take its place for a while.

    `halved`: the rest of the video model is in bf16, and what is asked of it is computed in that.
    `root`: the module of all weights, which may be sharded.
    """

    def __init__(self, policy: GraftPolicy, halved: bool, root: nn.Module) -> None:
        self.policy = policy
        self._halved = halved
        self._root = root
        self.values = {n: p.detach().clone() for n, p in policy.trained().items()}

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Take in the policy's weights."""
        own: list[Any] = list(self.values.values())
        get_ema_multi_avg_fn(decay)(own, list(self.policy.trained().values()), None)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Take the values of a checkpoint."""
        for name, value in self.values.items():
            value.copy_(share_of(weights[name], value))

    @contextmanager
    @torch.no_grad()
    def in_place(self) -> Generator[GraftPolicy]:
        """The policy with these weights, in eval mode; as it was when the block ends."""
        trained = self.policy.trained()
        before = {name: value.detach().clone() for name, value in trained.items()}
        mode = self.policy.training
        try:
            for name, value in trained.items():
                value.copy_(self.values[name])
            device = self.policy.served_noise.device.type
            half = torch.autocast(device, torch.bfloat16, enabled=self._halved)
            with gathered(self._root), half:
                yield self.policy.eval()
        finally:
            for name, value in trained.items():
                value.copy_(before[name])
            self.policy.train(mode)


class LatentTensors(NamedTuple):
    """Latents (B, T, C, h, w), tasks (B,), raw actions (B, H, A), which of them count (B, H)."""

    latents: Tensor
    task: Tensor
    actions: Tensor
    valid: Tensor


class LatentReader:
    """Makes tensors of batches whose windows come from episodes with these `instructions`."""

    def __init__(self, policy: GraftPolicy, instructions: Sequence[str]) -> None:
        vocabulary = policy.config.vocabulary
        self._tasks = np.array([vocabulary.task(said) for said in instructions], np.int64)
        self._device = policy.served_noise.device

    def tensors(self, batch: Batch, first: int, stop: int) -> LatentTensors:
        """The windows from `first` to below `stop`."""

        def moved(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values[first:stop]).to(self._device, non_blocking=True)

        return LatentTensors(
            moved(batch.observations[LATENTS]),
            moved(self._tasks[batch.instruction]),
            moved(batch.actions),
            moved(batch.valid),
        )


class _Losses(nn.Module):
    """The losses as a module's forward, which is what accelerate wraps."""

    def __init__(self, policy: GraftPolicy, config: LossConfig) -> None:
        super().__init__()
        self.policy = policy
        self._config = config

    def forward(
        self,
        latents: Tensor,
        task: Tensor,
        actions: Tensor,
        valid: Tensor,
        draws: GraftDraws,
        plan: DepthPlan,
    ) -> GraftLosses:
        """See `graft_losses`."""
        config = self._config
        return graft_losses(self.policy, latents, task, actions, valid, draws, config, plan)


def _halve_frozen(policy: GraftPolicy) -> None:
    """What is not trained of the video model in bf16, which it computes in anyway."""
    for parameter in policy.graft.transformer.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)
