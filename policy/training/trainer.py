"""The training loop's state and one step of it. Time enters as an argument.

Everything that chance decides in a step follows from (seed, step) and is drawn for the whole batch
before it is split: the same on one process as on several, in one piece as in `accumulate` pieces,
and after a resume, with no generator to be saved.
"""

import copy
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from loopdit.datasets.windows import Batch
from loopdit.policy.checkpoint import CheckpointContent, TrainingState
from loopdit.policy.fixed_point.contraction import contraction_penalty, state_shape
from loopdit.policy.looped_policy import Draws, LoopedPolicy
from loopdit.policy.objectives.depth import DepthPlan, ExitLosses, plan_depth
from loopdit.policy.training import non_finite
from loopdit.policy.training.augmentation import augmented, draw_chances
from loopdit.policy.training.config import TrainConfig
from loopdit.policy.training.in_flight import learned
from loopdit.policy.training.optimization import Optimization
from loopdit.policy.training.processes import joined_model
from loopdit.policy.training.steps import (
    StepResult,
    average_decay,
    depth_chance,
    over_processes,
    pieces,
    run_progress,
    step_seed,
)
from loopdit.policy.training.window_tensors import WindowReader


class Trainer:
    """A policy, its weight average and its optimizer, whole on each process's device.

    Everything that a resumed run needs is in `state()` and the average's weights; with the same
    data and thread count a run that stopped and went on ends with the same weights as one that did
    not stop.
    """

    sharded = False

    def __init__(
        self,
        policy: LoopedPolicy,
        config: TrainConfig,
        accelerator: Accelerator,
        instructions: Sequence[str] = (),
    ) -> None:
        self.config = config
        self.accelerator = accelerator
        self.step = 0
        self.elapsed_s = 0.0
        self.policy = policy.to(accelerator.device)
        self.average = copy.deepcopy(self.policy).requires_grad_(False).eval()
        self._optimization = Optimization(dict(self.policy.named_parameters()), config)
        self._values: list[Tensor] = list(self.policy.parameters())
        self._averaged: list[Tensor] = list(self.average.parameters())
        self._losses = joined_model(accelerator, _Losses(self.policy, config.proprio_noise))
        self._generator = torch.Generator(accelerator.device)
        self._reader = WindowReader(policy.config, instructions, accelerator.device)

    @property
    def progress(self) -> float:
        """0 to 1: the larger share of steps and minutes that is used up."""
        return run_progress(self.config, self.step, self.elapsed_s)

    @property
    def depths(self) -> range:
        """Each K that is trained."""
        return self.policy.depths

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Of all weights."""
        return self._optimization.optimizer

    def train_step(self, batch: Batch, start: int = 0) -> StepResult:
        """One optimizer step on this process's windows, the rows from `start` on of the batch.

        Raises NotFinite, with the weights as they were.
        """
        optimization = self._optimization
        optimization.begin(self.step, self.progress)
        objective, error = self._gradients(batch, start)
        norm = optimization.norm()
        if not non_finite.is_finite(objective, norm):
            loss = non_finite.spoilt_loss(objective.sum(0), self.policy.depths)
            raise optimization.not_finite(batch, loss)
        optimization.take(norm)
        self._update_average()
        self.step += 1
        return StepResult(error, norm)

    def state(self) -> TrainingState:
        """For `load_state`, beside the average; tensors are shared with the trainer."""
        numbers = {"step": self.step, "elapsed_s": self.elapsed_s}
        return TrainingState(numbers, self._optimization.tensors())

    def load_state(self, state: TrainingState, average: dict[str, Tensor]) -> None:
        """Go on from what `state` returned when the average's weights were `average`."""
        self.step = int(state.numbers["step"])
        self.elapsed_s = float(state.numbers["elapsed_s"])
        self.average.load_state_dict(average)
        self.policy.load_state_dict(average)  # the buffers, which never change
        self._optimization.load(state.tensors)

    def content(
        self, provenance: Mapping[str, Any], training: TrainingState | None
    ) -> CheckpointContent:
        """What a checkpoint of this moment holds; its tensors are the trainer's own."""
        return CheckpointContent.of(self.average, provenance, training)

    def require_finite_weights(self) -> None:
        """Raise NotFinite where the last step has spoilt the weights: they must not be saved."""
        self._optimization.require_finite_weights()

    def _gradients(self, batch: Batch, start: int) -> tuple[Tensor, Tensor]:
        """Fill the gradients; the objectives (pieces, exits run), the error (of each depth,)."""
        config, world = self.config, self.accelerator.num_processes
        mine = slice(start, start + len(batch.actions))
        every, chances, probe = self._chances()
        draws = every.rows(mine.start, mine.stop)
        plan = plan_depth(
            config.depth, self.policy.depths, self.step, depth_chance(config.seed, self.step)
        )
        chances = chances[mine] if chances is not None else None
        # (B,) actions of each window that count
        counted = learned(self.policy.config, batch.valid, draws.committed)
        total = float(self._over_processes(torch.tensor(float(counted.sum())))) or 1.0
        objectives: list[Tensor] = []
        errors: list[Tensor] = []
        for first, last in pieces(len(batch.actions), config.accumulate):
            whole = last == len(batch.actions)
            with nullcontext() if whole else self.accelerator.no_sync(self._losses):
                some = draws.rows(first, last)
                observation, actions, valid = self._reader.tensors(batch, some, first, last)
                own = chances[first:last] if chances is not None else None
                seen = augmented(
                    config.augment,
                    self.policy.spec,
                    observation,
                    own,
                    self.policy.normalizer.proprio_mean,
                )
                losses, contraction = self._losses(
                    seen.observations,
                    actions,
                    valid,
                    some,
                    seen.seen,
                    plan,
                    None if probe is None else probe[mine][first:last],
                )
                # Each piece's losses are means over its own actions, and the penalty over its
                # windows.
                share = float(counted[first:last].sum()) / total
                objective = losses.objective.mean() * (share * world)  # DDP takes the mean
                if contraction is not None:
                    windows = (last - first) / config.batch_size
                    objective = objective + contraction * (config.depth.contract * windows * world)
                self.accelerator.backward(objective)
            objectives.append(losses.objective.detach())
            errors.append(self._of_all_depths(losses.error) * share)
        return torch.stack(objectives), self._over_processes(torch.stack(errors).sum(0))

    def _chances(self) -> tuple[Draws, Tensor | None, Tensor | None]:
        """Of the losses, of the augmentation and of the penalty on what the last loop amplifies,
        (B, N, D) standard normal, for all windows of the step's batch."""
        seed = step_seed(self.config.seed, self.step)
        self._generator.manual_seed(seed)
        torch.manual_seed(seed)  # for layers that draw by themselves
        count, spec = self.config.batch_size, self.policy.spec
        draws = self.policy.draw(count, self._generator)
        vocabulary = self.policy.config.vocabulary
        words = 0 if vocabulary is None else vocabulary.length
        chances = draw_chances(self.config.augment, spec, count, self._generator, words)
        if not self.config.depth.contract:
            return draws, chances, None
        shape, device = (count, *state_shape(self.policy)), self._generator.device
        return draws, chances, torch.randn(shape, generator=self._generator, device=device)

    def _of_all_depths(self, error: Tensor) -> Tensor:
        """(exits run,) -> (of each depth,): one that was not run counts as the deepest that was."""
        missing = len(self.policy.depths) - len(error)
        return torch.cat([error, error[-1:].expand(missing)])

    def _over_processes(self, mine: Tensor) -> Tensor:
        return over_processes(self.accelerator, mine)

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = average_decay(self.config.ema_decay, self.step)
        get_ema_multi_avg_fn(decay)(self._averaged, self._values, None)


class _Losses(nn.Module):
    """The losses as a module's forward: what accelerate wraps, and what is compiled."""

    def __init__(self, policy: LoopedPolicy, proprio_noise: float) -> None:
        super().__init__()
        self.policy = policy
        self._proprio_noise = proprio_noise

    def forward(
        self,
        observation: dict[str, Tensor],
        actions: Tensor,
        valid: Tensor,
        draws: Draws,
        seen: Tensor | None,
        plan: DepthPlan,
        probe: Tensor | None,
    ) -> tuple[ExitLosses, Tensor | None]:
        """And the penalty on what the last loop amplifies, where there is a `probe` of it."""
        losses = self.policy.losses(
            observation, actions, valid, draws, plan, seen=seen, proprio_noise=self._proprio_noise
        )
        if probe is None:
            return losses, None
        return losses, contraction_penalty(self.policy, observation, plan.loops, probe)
