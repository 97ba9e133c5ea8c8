"""The training loop's state and one step of it. Time enters as an argument.

Everything that chance decides in a step follows from (seed, step) and is drawn for the whole batch
before it is split: the same on one process as on several, in one piece as in `accumulate` pieces,
and after a resume, with no generator to be saved.
"""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from loopdit.datasets.windows import Batch
from loopdit.policy.checkpoint import CheckpointContent, TrainingState
from loopdit.policy.fixed_point.contraction import contraction_penalty, state_shape
from loopdit.policy.looped_policy import Draws, LoopedPolicy
from loopdit.policy.objectives.depth import DepthConfig, DepthPlan, ExitLosses, plan_depth
from loopdit.policy.training import non_finite
from loopdit.policy.training.augmentation import augmented, draw_chances
from loopdit.policy.training.config import TrainConfig
from loopdit.policy.training.in_flight import learned
from loopdit.policy.training.steps import (
    NotFinite,
    StepResult,
    average_decay,
    pieces,
    run_progress,
    scheduled_rate,
)
from loopdit.policy.training.window_tensors import WindowReader


class Trainer:
    """A policy, its weight average and its optimizer, on one process's device.

    Everything that a resumed run needs is in `state()` and the average's weights; with the same
    data and thread count a run that stopped and went on ends with the same weights as one that did
    not stop.
    """

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
        self._optimized = dict(self.policy.named_parameters())
        self._values: list[Tensor] = list(self.policy.parameters())
        self._averaged: list[Tensor] = list(self.average.parameters())
        self.optimizer = torch.optim.AdamW(
            self._optimized.values(),
            config.learning_rate,
            betas=(0.9, 0.95),
            weight_decay=config.weight_decay,
            fused=True,
        )
        self._losses = accelerator.prepare_model(
            _Losses(self.policy, config.depth, config.proprio_noise)
        )
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
    def learning_rate(self) -> float:
        """Of the step to come: linear warm-up, then a cosine down to a small share, over
        `progress`."""
        config = self.config
        return scheduled_rate(config.learning_rate, self.step, config.warmup_steps, self.progress)

    def train_step(self, batch: Batch, start: int = 0) -> StepResult:
        """One optimizer step on this process's windows, the rows from `start` on of the batch.

        Raises NotFinite, with the weights as they were.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        self.optimizer.zero_grad()
        objective, error = self._gradients(batch, start)
        gradients = [p.grad for p in self._optimized.values() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if not non_finite.is_finite(objective, norm):
            raise self._not_finite(batch, objective)
        if self.config.clip_norm:
            nn.utils.clip_grads_with_norm_(self._optimized.values(), self.config.clip_norm, norm)
        self.optimizer.step()
        self._update_average()
        self.step += 1
        return StepResult(error, norm)

    def state(self) -> TrainingState:
        """For `load_state`, beside the average; tensors are shared with the trainer."""
        tensors = {f"policy/{name}": value for name, value in self._optimized.items()}
        for name, parameter in self._optimized.items():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer/{key}/{name}"] = value
        numbers = {"step": self.step, "elapsed_s": self.elapsed_s}
        return TrainingState(numbers, tensors)

    def load_state(self, state: TrainingState, average: dict[str, Tensor]) -> None:
        """Go on from what `state` returned when the average's weights were `average`."""
        self.step = int(state.numbers["step"])
        self.elapsed_s = float(state.numbers["elapsed_s"])
        self.average.load_state_dict(average)
        self.policy.load_state_dict(average)  # the buffers, which never change
        with torch.no_grad():
            for name, parameter in self._optimized.items():
                parameter.copy_(state.tensors[f"policy/{name}"])
        places = {name: index for index, name in enumerate(self._optimized)}
        of_optimizer: dict[int, dict[str, Tensor]] = {}
        for path, value in state.tensors.items():
            whose, _, rest = path.partition("/")
            if whose == "optimizer":
                key, _, name = rest.partition("/")
                of_optimizer.setdefault(places[name], {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": of_optimizer, "param_groups": groups})

    def content(
        self, provenance: Mapping[str, Any], training: TrainingState | None
    ) -> CheckpointContent:
        """What a checkpoint of this moment holds; its tensors are the trainer's own."""
        return CheckpointContent.of(self.average, provenance, training)

    def require_finite_weights(self) -> None:
        """Raise NotFinite where the last step has spoilt the weights: they must not be saved."""
        spoilt = non_finite.spoilt_tensor(self._optimized)
        if spoilt is not None:
            raise NotFinite(f"the weight {spoilt}", [])

    def _gradients(self, batch: Batch, start: int) -> tuple[Tensor, Tensor]:
        """Fill the gradients; the objectives (pieces, exits run), the error (of each depth,)."""
        config, world = self.config, self.accelerator.num_processes
        mine = slice(start, start + len(batch.actions))
        every, chances, probe = self._chances()
        draws = every.rows(mine.start, mine.stop)
        plan = plan_depth(config.depth, self.policy.depths, self.step, self._uniform())
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
        digest = hashlib.sha256(f"{self.config.seed} {self.step}".encode()).digest()
        seed = int.from_bytes(digest[:7])
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

    def _uniform(self) -> float:
        """What chance decides about this step's depth: apart from the batch's, which stays the
        same whatever depths are trained."""
        digest = hashlib.sha256(f"{self.config.seed} {self.step} depth".encode()).digest()
        return int.from_bytes(digest[:6]) / 2**48

    def _over_processes(self, mine: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.accelerator.num_processes == 1:
            return mine
        return cast(Tensor, self.accelerator.reduce(mine.to(self.accelerator.device), "sum"))

    def _not_finite(self, batch: Batch, objective: Tensor) -> NotFinite:
        found = non_finite.spoilt_rows(batch)
        if found is not None:
            return NotFinite(*found)
        weight = non_finite.spoilt_tensor(self._optimized)
        if weight is not None:
            return NotFinite(f"the weight {weight}", [])
        loss = non_finite.spoilt_loss(objective.sum(0), self.policy.depths)
        if loss is not None:
            return NotFinite(loss, [])
        gradient = non_finite.spoilt_tensor(non_finite.gradients(self.policy))
        return NotFinite(f"the gradient of {gradient}", [])

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = average_decay(self.config.ema_decay, self.step)
        get_ema_multi_avg_fn(decay)(self._averaged, self._values, None)


class _Losses(nn.Module):
    """The losses as a module's forward: what accelerate wraps, and what is compiled."""

    def __init__(self, policy: LoopedPolicy, depth: DepthConfig, proprio_noise: float) -> None:
        super().__init__()
        self.policy = policy
        self._depth = depth
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
        distill, truncate = self._depth.distill, self._depth.truncate
        noise = self._proprio_noise
        losses = self.policy.losses(
            observation, actions, valid, draws, distill, noise, seen, plan, truncate
        )
        if probe is None:
            return losses, None
        return losses, contraction_penalty(self.policy, observation, plan.loops, probe)
