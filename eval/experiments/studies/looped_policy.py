"""The policy that we ship, without cameras, cloned from one runner's expert: our own experiments.

It is `LoopedPolicy` with its one-way attention and an exit after every loop, trained here on what
the runner senses. Errors are of the whole held-out chunk in units of the demonstrations' spread,
sampled from no noise: `error` at the deepest K in one denoising step, `error_k<K>` at each trained
K in one, `error_k<K>_s<S>` for each pair of `grid`. `constant_error` is the mean action's. In
closed loop, where `episodes` are asked for, `success` and `return` likewise
(envs/suites/locomotion says what success is).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from loopdit.command import option
from loopdit.datasets.spec import PROPRIO, PolicySpec
from loopdit.datasets.statistics import VectorStatistics
from loopdit.envs.suites.locomotion import Locomotion
from loopdit.errors import ConfigError
from loopdit.eval.experiments.studies.study import Outcome
from loopdit.eval.experiments.tasks.locomotion import (
    RecordingConfig,
    closed_loop,
    recorded,
    require_runners,
)
from loopdit.eval.experiments.training import StepsConfig, fit
from loopdit.eval.morphology.demonstrations import Windows, windows_of
from loopdit.policy.fixed_point.adapters import seeded
from loopdit.policy.looped_dit_config import LoopedDiTConfig
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.objectives.depth import DepthConfig, plan_depth

REVISION = 1


@dataclass(frozen=True)
class Options(StepsConfig):
    """Who is cloned by what, and what is asked of the clone."""

    runner: str = option("HalfCheetah-v5", "a body, by its task")
    recording: RecordingConfig = field(default_factory=RecordingConfig)
    policy: LoopedDiTConfig = option(LoopedDiTConfig(), "")
    depth: DepthConfig = option(DepthConfig(), "")
    held_out_windows: int = option(1024, "at most so many held-out steps are measured")
    grid: list[list[int]] = option([], "pairs [K, denoising steps] that are measured besides")
    episodes: int = option(0, "closed-loop episodes at each K and pair; 0: none")
    execute: int = option(4, "actions of a chunk that are played before the next one")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_runners([self.runner])
        self.depth.require_trains(self.policy.depths, self.steps)
        for pair in self.grid:
            if len(pair) != 2 or pair[0] not in self.policy.depths or pair[1] < 1:
                raise ConfigError(
                    f"grid has {pair}: give [K, steps] with K from {self.policy.min_loops} to "
                    f"{self.policy.max_loops}."
                )
        if not 1 <= self.execute <= self.policy.action_horizon:
            raise ConfigError(f"execute={self.execute} is not within a chunk.")


def run(options: Options, seed: int, device: torch.device) -> Outcome:
    """Record, train, measure."""
    runs = recorded(options.runner, options.recording)
    horizon = options.policy.action_horizon
    training, held_out = windows_of(runs.training, horizon), windows_of(runs.held_out, horizon)
    every = max(1, len(held_out.observations) // options.held_out_windows)
    held_out = held_out.at(torch.arange(0, len(held_out.observations), every))
    spec = _spec(options.runner)
    policy = seeded(lambda: LoopedPolicy(spec, options.policy), seed)
    policy.normalizer.fit(
        {
            PROPRIO: _statistics(training.observations),
            "action": _statistics(training.chunks[:, 0]),
        }
    )
    policy.to(device)
    curve: dict[str, list[float]] = {"step": [], "error": []}

    def look(steps: int) -> None:
        curve["step"].append(float(steps))
        curve["error"].append(_error(policy, held_out, policy.max_loops, 1))

    _train(options, policy, training, seed, look)
    policy.eval()
    metrics = {"constant_error": _constant_error(policy, training, held_out)}
    asked = [(f"_k{loops}", loops, 1) for loops in policy.depths]
    asked += [(f"_k{loops}_s{steps}", loops, steps) for loops, steps in options.grid]
    for name, loops, steps in asked:
        metrics[f"error{name}"] = _error(policy, held_out, loops, steps)
        if options.episodes:
            metrics |= _closed_loop(policy, options, name, loops, steps)
    deepest = f"_k{policy.max_loops}"
    metrics |= {
        name.removesuffix(deepest): value
        for name, value in metrics.items()
        if name.endswith(deepest)
    }
    return Outcome(metrics, curve, sum(parameter.numel() for parameter in policy.parameters()))


def _train(
    options: Options,
    policy: LoopedPolicy,
    training: Windows,
    seed: int,
    look: Callable[[int], object],
) -> None:
    generator = torch.Generator().manual_seed(seed)
    device = policy.normalizer.action_mean.device

    def gradients(step: int) -> Tensor:
        rows = torch.randint(len(training.observations), (options.batch,), generator=generator)
        windows = training.at(rows)
        uniform = float(torch.rand((), generator=generator))
        plan = plan_depth(options.depth, policy.depths, step, uniform)
        drawn = policy.draw(options.batch, generator)
        drawn = drawn._replace(
            noise=drawn.noise.to(device),
            times=drawn.times.to(device),
            proprio=drawn.proprio.to(device),
        )
        losses = policy.losses(
            {PROPRIO: windows.observations.to(device)},
            windows.chunks.to(device),
            windows.valid.bool().to(device),
            drawn,
            plan,
        )
        loss = losses.objective.mean()
        loss.backward()
        return loss.detach()

    fit(policy.parameters(), options, gradients, look)


def _error(policy: LoopedPolicy, held_out: Windows, loops: int, steps: int) -> float:
    said = _act(policy, held_out.observations, loops, steps)
    return _squared(policy, said - held_out.chunks, held_out.valid)


def _constant_error(policy: LoopedPolicy, training: Windows, held_out: Windows) -> float:
    weight = training.valid[..., None]
    mean = (training.chunks * weight).sum(0) / weight.sum(0)
    return _squared(policy, mean - held_out.chunks, held_out.valid)


def _squared(policy: LoopedPolicy, difference: Tensor, valid: Tensor) -> float:
    """Mean over the actions that are valid, in units of the spread."""
    units = difference / policy.normalizer.action_spread.cpu()
    return float((units.square().mean(-1) * valid).sum() / valid.sum())


def _act(policy: LoopedPolicy, observations: Tensor, loops: int, steps: int) -> Tensor:
    """Raw observations (B, P) on the CPU -> raw actions (B, H, A) there, from no noise."""
    device = policy.normalizer.action_mean.device
    noise = torch.zeros(
        len(observations), policy.horizon, policy.spec.action.shape[-1], device=device
    )
    return policy.act({PROPRIO: observations.to(device)}, noise, loops, steps).cpu()


def _closed_loop(
    policy: LoopedPolicy, options: Options, name: str, loops: int, steps: int
) -> Mapping[str, float]:
    def act(seen: np.ndarray) -> np.ndarray:
        return _act(policy, torch.from_numpy(seen), loops, steps).numpy()

    found = closed_loop(
        options.runner, act, options.episodes, options.execute, options.recording.episode_steps
    )
    return {
        f"success{name}": float(found.successes.mean()),
        f"return{name}": float(found.returns.mean()),
    }


def _spec(runner: str) -> PolicySpec:
    robot = Locomotion(runner)
    spec = PolicySpec(
        observations=(robot.proprio_spec,),
        action=robot.action_spec,
        action_frame=robot.action_frame,
        control_period_s=robot.control_period_s,
    )
    robot.close()
    return spec


def _statistics(values: Tensor) -> VectorStatistics:
    """values (M, size)."""
    found = values.double().numpy()
    columns = (
        found.mean(0),
        found.std(0),
        found.min(0),
        found.max(0),
        *np.quantile(found, [0.01, 0.99], axis=0),
    )
    return VectorStatistics(*(tuple(map(float, column)) for column in columns))
