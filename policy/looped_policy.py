"""The policy as robots know it: raw observations in, raw action chunks out, at any depth.

Shapes: B batch, O observed steps (an axis where the policy has history), C cameras, H action
horizon, A action dim, F actions in flight, K loops, L = K * blocks. This float32 module is the
reference that every exported graph and every back end is compared with.

An observation is a mapping of the spec's tensors, batched. Beside them it has INSTRUCTION where the
policy is told its task (what `Vocabulary.told` makes of the instruction), and AVAILABLE (B, C) bool
where cameras may be missing. COMMITTED is in the spec of a policy that knows what is in flight.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor, nn

from loopdit.datasets.spec import (
    COMMITTED,
    FROM_COMMITTED,
    FROM_OBSERVATION,
    PROPRIO,
    PolicySpec,
    TensorSpec,
)
from loopdit.policy.encoders.absent_cameras import AVAILABLE
from loopdit.policy.encoders.pretrained import PretrainedEncoder
from loopdit.policy.encoders.vocabulary import INSTRUCTION
from loopdit.policy.looped_dit import Context, Inputs, LoopedDiT
from loopdit.policy.looped_dit_config import ROLLED, LoopedDiTConfig
from loopdit.policy.normalizer import Normalizer
from loopdit.policy.objectives.depth import DepthPlan, ExitLosses, objective_losses
from loopdit.policy.objectives.gripper import gripper_ends, gripper_mask, with_gripper
from loopdit.policy.objectives.objective import (
    BCE,
    CLEAN,
    DIFFUSIONS,
    Objective,
    Predict,
    noise_chunk,
)
from loopdit.policy.objectives.registry import make_objective
from loopdit.policy.prefix import is_committed, of_the_rest, with_prefix
from loopdit.policy.rolled_proprio import ProprioRoller

MASK = "mask"

# Euler steps of the sampler where nobody says otherwise.
DEFAULT_STEPS = 10
# Spread of the starting noise where nobody says otherwise. At 1 a chunk is a fair draw from what
# the policy believes, at 0 its best guess: on `lift` a fair draw fails a third of the starts early
# in training, and the best guess needs the fewest steps after it
# (docs/experiments/2026-11-23-lift.md). Where demonstrations choose between ways that must not be
# averaged, export with more.
DEFAULT_TEMPERATURE = 0.0


class Draws(NamedTuple):
    """What chance decides about a batch in training.

    The starting noise (B, H, A) and its times (B,), the noise on the proprio (B, O, P): standard
    normal and in [0, 1]. committed (B,) in [0, 1) decides how many actions are in flight, of a
    policy that is told of them. Drawn before the losses, so that a batch may be split after it.
    """

    noise: Tensor
    times: Tensor
    proprio: Tensor
    committed: Tensor | None = None

    def rows(self, start: int, stop: int) -> "Draws":
        """Those of the windows from `start` to below `stop`."""
        return Draws(*(None if values is None else values[start:stop] for values in self))  # pyright: ignore[reportArgumentType] - only the last may be None

    def blank(self) -> "Draws":
        """No noise, at time 0, on the same windows with the same actions in flight."""
        noise, times, proprio = (
            torch.zeros_like(values) for values in (self.noise, self.times, self.proprio)
        )
        return Draws(noise, times, proprio, self.committed)


class LoopedPolicy(nn.Module):
    """A normaliser around a looped DiT, for one spec.

    `spec` is of the policy: with the history and the actions in flight that `config` asks for,
    whatever it was given.
    """

    def __init__(self, spec: PolicySpec, config: LoopedDiTConfig) -> None:
        super().__init__()
        self.spec = policy_spec(spec, config)
        self.config = config
        self.normalizer = Normalizer(self.spec)
        self.roller: nn.Module | None = None
        if config.in_flight and config.told == ROLLED:
            self.roller = ProprioRoller(self.spec.recorded)
        self.model = LoopedDiT(
            config,
            [camera.shape[-2] for camera in spec.cameras],
            spec.proprio.shape[-1],
            spec.action.shape[-1],
        )

        backbones = [e for e in self.model.cameras if isinstance(e, PretrainedEncoder)]
        if backbones:  # so that a robot needs the checkpoint alone, and not the backbone's files
            self.config = replace(config, backbone=backbones[0].configuration)
        self._objective = make_objective(config.objective)
        if config.objective.gripper == BCE:
            mask = gripper_mask(self.spec, config.objective.gripper_labels)
            self.register_buffer("gripper_mask", mask, persistent=False)
            self.register_buffer("gripper_ends", gripper_ends(self.spec), persistent=False)

    @property
    def objective(self) -> Objective:
        """What the model is trained to say, and how chunks are sampled."""
        if self.config.objective.gripper != BCE:
            return self._objective
        ends = self.normalizer.chunk(self.get_buffer("gripper_ends"))
        settled = self.config.objective.gripper_settled
        return with_gripper(self._objective, self.get_buffer("gripper_mask"), ends, settled)

    @property
    def temperature(self) -> float:
        """Spread of the starting noise where nobody chooses."""
        return 1.0 if self.config.objective.kind in DIFFUSIONS else DEFAULT_TEMPERATURE

    @property
    def horizon(self) -> int:
        """Actions in a chunk, H."""
        return self.config.action_horizon

    @property
    def max_loops(self) -> int:
        """The deepest K."""
        return self.config.max_loops

    @property
    def depths(self) -> range:
        """Every K that it was trained for, and so can be asked for: the exits of a pass."""
        return self.config.depths

    @property
    def encode_inputs(self) -> tuple[TensorSpec, ...]:
        """What `encode` reads of an observation, without the batch axis."""
        read = [t for t in self.spec.observations if t.name != COMMITTED or not self.config.prefix]
        if self.config.optional_cameras:
            read.append(TensorSpec(AVAILABLE, (len(self.spec.cameras),), "bool"))
        if self.config.vocabulary is not None:
            shape = self.config.vocabulary.told_shape(self.config.instruction)
            read.append(TensorSpec(INSTRUCTION, shape, "int64"))
        return tuple(read)

    @property
    def denoise_inputs(self) -> tuple[str, ...]:
        """What `context` takes beside keys and values: MASK, which encoding makes, and COMMITTED,
        which is observed."""
        optional = MASK if self.config.optional_cameras else ""
        return tuple(n for n in (optional, COMMITTED if self.config.prefix else "") if n)

    def context(
        self, keys: Tensor, values: Tensor, mask: Tensor | None, committed: Tensor | None
    ) -> Context:
        """What denoising needs, of `encode`'s tensors and the raw actions in flight (B, F, A + 1)
        of a policy whose chunk begins with them."""
        return Context(keys, values, mask, self._told(committed))

    def encode(self, observation: Mapping[str, Tensor], loops: int) -> Context:
        """Raw batched observation -> what denoising needs of it, for K = `loops`."""
        return self.model.encode(self.normalized(observation), loops)

    def denoise_step(
        self,
        sample: Tensor,
        t: Tensor,
        dt: Tensor,
        context: Context,
        predict: Predict | None = None,
    ) -> Tensor:
        """One step of the sample (B, H, A) from time t (B,) to t + dt, normalised units.

        `predict` takes the model's place, as in `sample`.
        """
        predict = predict or self._predict(context)
        if context.committed is None:
            return self.objective.step(predict, sample, t, dt)
        level = torch.where(is_committed(context.committed, self.horizon), CLEAN, t[:, None])
        begun = with_prefix(sample, context.committed)
        return self.objective.step(of_the_rest(predict), begun, level, dt)

    def to_actions(self, sample: Tensor) -> Tensor:
        """A sample at time 1 (B, H, A) -> raw actions (B, H, A) within the spec's limits."""
        return self.normalizer.raw_chunk(sample)

    @torch.inference_mode()
    def act(
        self,
        observation: Mapping[str, Tensor],
        noise: Tensor,
        loops: int,
        steps: int = DEFAULT_STEPS,
        fresh: Tensor | None = None,
    ) -> Tensor:
        """Raw batched observation and noise (B, H, A) -> raw actions (B, H, A).

        `fresh` (steps, B, H, A) is the noise of a sampler that draws some at each step.
        """
        context = self.encode(observation, loops)
        sample = self.sample(context, noise, steps, fresh)
        return self.to_actions(sample)

    def sample(
        self,
        context: Context,
        noise: Tensor,
        steps: int,
        fresh: Tensor | None = None,
        predict: Predict | None = None,
    ) -> Tensor:
        """Noise (B, H, A) -> a chunk in normalised units.

        `predict` takes the model's place: samples (B, H, A) and times (B,) -> output (B, H, A).
        """
        if predict is None:
            predict = self._predict(context)
        if context.committed is None:
            return self.objective.sample(predict, noise, steps, fresh)
        known = is_committed(context.committed, self.horizon)
        begun = with_prefix(noise, context.committed)
        return self.objective.sample(of_the_rest(predict), begun, steps, fresh, known)

    def _predict(self, context: Context) -> Predict:
        return lambda sample, times: self.model.predict(sample, times, context)

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """For `count` windows, on the generator's device."""
        device = generator.device
        chunk = (count, self.horizon, *self.spec.action.shape)
        proprio = (count, *self.spec.proprio.shape)
        return Draws(
            noise=torch.randn(chunk, generator=generator, device=device),
            times=self._objective.levels(count, generator),
            proprio=torch.randn(proprio, generator=generator, device=device),
            committed=torch.rand(count, generator=generator, device=device)
            if self.config.in_flight
            else None,
        )

    def losses(
        self,
        observation: Mapping[str, Tensor],
        actions: Tensor,
        valid: Tensor,
        draws: Draws,
        plan: DepthPlan | None = None,
        *,
        seen: Tensor | None = None,
        proprio_noise: float = 0.0,
    ) -> ExitLosses:
        """Training losses of each exit, from raw observations and actions (B, H, A).

        valid (B, H) marks actions inside the episode; those that are committed are not learned
        from, because the policy is told them.
        `plan` says which loops are run and what they are taught: where it is None all of them, by
        the demonstrations alone.
        `seen` (B, O) bool hides past observations where it is false (see `training/augmentation`).
        `proprio_noise` (in normalised units) keeps the policy from reading its next action off
        its own pose to a precision that a real arm does not have.
        """
        loops, only, distill, truncate = plan or DepthPlan(self.max_loops)
        inputs = self.normalized(observation)._replace(seen=seen)
        if proprio_noise:
            inputs = inputs._replace(proprio=inputs.proprio + proprio_noise * draws.proprio)
        chunk = self.normalizer.chunk(actions)
        context = self.model.encode(inputs, loops, truncate)
        noised = noise_chunk(self.objective, chunk, draws.noise, draws.times)
        exits = self.model.exits(noised.sample, noised.level, context, truncate)
        supervised = islice(exits, self.depths[0] - 1, None)
        outputs = torch.stack([output.to(chunk.dtype) for output in supervised])  # from bf16, if so
        if inputs.committed is not None:
            valid = valid & ~is_committed(inputs.committed, self.horizon)
        exit_only = None if only is None else only - self.depths[0] + 1
        return objective_losses(self.objective, outputs, noised, valid, distill, exit_only)

    def normalized(self, observation: Mapping[str, Tensor]) -> Inputs:
        """What the model is given for a raw batched observation."""
        raw = [observation[camera.name] for camera in self.spec.cameras]
        available = None
        if self.config.optional_cameras:
            everything = raw[0].new_ones(raw[0].shape[0], len(raw), dtype=torch.bool)
            available = observation.get(AVAILABLE, everything)
            # Black before the encoders: whatever is in its place reaches no gradient either.
            there = [available[:, i].view(-1, *(1,) * (f.ndim - 1)) for i, f in enumerate(raw)]
            raw = [torch.where(t, f, torch.zeros_like(f)) for t, f in zip(there, raw, strict=True)]
        if self.config.history == 1:
            frames = [self.normalizer.frame(frame) for frame in raw]
        else:
            steps = (-1, self.config.history)
            frames = [self.normalizer.frame(f.flatten(0, 1)).unflatten(0, steps) for f in raw]
        proprio = observation[PROPRIO]
        if self.roller is not None:
            proprio = self.roller(proprio, observation[COMMITTED])
        return Inputs(
            frames=frames,
            proprio=self.normalizer.proprio(proprio),
            available=available,
            told=observation.get(INSTRUCTION),
            committed=self._told(observation.get(COMMITTED)),
        )

    def _told(self, committed: Tensor | None) -> Tensor | None:
        """Raw (B, F, A + 1) -> normalised; None where the chunk does not begin with them."""
        if not self.config.prefix or committed is None:
            return None
        there = committed[..., -1:]
        return torch.cat([there * self.normalizer.chunk(committed[..., :-1]), there], dim=-1)


def policy_spec(spec: PolicySpec, config: LoopedDiTConfig) -> PolicySpec:
    """The spec of a policy that is made for what `spec` records."""
    chunk_from = FROM_COMMITTED if config.told == ROLLED else FROM_OBSERVATION
    observed = spec.recorded.with_history(config.history)
    if config.optional_cameras:
        observed = observed.with_optional_cameras()
    return observed.with_committed(config.in_flight, chunk_from)
