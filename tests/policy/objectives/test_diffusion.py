"""Against the closed forms of diffusion and against diffusers' own schedulers."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from loopdit.errors import ConfigError
from loopdit.policy.objectives.diffusion import (
    Diffusion,
    alpha_table,
    clean_and_noise,
    ddim_step,
    ddpm_step,
)
from loopdit.policy.objectives.objective import ObjectiveConfig
from loopdit.policy.objectives.registry import make_objective

T = 100
SCHEDULE = "squaredcos_cap_v2"
TYPES = {"ddpm_eps": "epsilon", "ddpm_x0": "sample", "ddpm_v": "v_prediction"}
ALPHAS = alpha_table(T, SCHEDULE)


def theirs(scheduler: Any, kind: str, clip: float, steps: int) -> Any:
    made = scheduler(
        num_train_timesteps=T,
        beta_schedule=SCHEDULE,
        prediction_type=TYPES[kind],
        clip_sample=clip > 0,
        clip_sample_range=clip or 1.0,
        timestep_spacing="trailing",
    )
    made.set_timesteps(steps)
    return made


def level_of(timestep: int) -> Tensor:
    """The level of a timestep, for a batch of 2; -1 is the clean chunk."""
    return torch.full((2,), (T - 1 - timestep) / T)


def drawn(seed: int = 0) -> tuple[Tensor, Tensor]:
    sample, output = torch.randn(2, 2, 8, 3, generator=torch.Generator().manual_seed(seed))
    return sample, output


def test_levels_go_from_the_noisiest_timestep_to_none():
    assert len(ALPHAS) == T + 1
    assert ALPHAS[-1] == 1
    assert ALPHAS[0] < 1e-6
    assert (ALPHAS.diff() > 0).all()
    scheduler = theirs(DDPMScheduler, "ddpm_x0", 0.0, T)
    for timestep in range(T):
        row = round(float(level_of(timestep)[0]) * T)
        assert ALPHAS[row] == scheduler.alphas_cumprod[timestep]


@pytest.mark.parametrize("kind", TYPES)
def test_noise_and_velocity_are_diffusers(kind: str):
    chunk, noise = drawn()
    objective = Diffusion(kind, ALPHAS)
    scheduler = theirs(DDPMScheduler, kind, 0.0, T)
    for timestep in (0, 1, 37, 98, 99):
        steps = torch.full((2,), timestep)
        level = level_of(timestep)
        sample = scheduler.add_noise(chunk, noise, steps)
        torch.testing.assert_close(objective.noised(chunk, noise, level), sample)
        velocity = scheduler.get_velocity(chunk, noise, steps)
        expected = {"ddpm_eps": noise, "ddpm_x0": chunk, "ddpm_v": velocity}[kind]
        torch.testing.assert_close(objective.target(chunk, noise, level), expected)


@given(
    angle=st.floats(0.05, 1.5), chunk=st.floats(-5, 5), noise=st.floats(-5, 5)
)  # a = sin^2: signal sin, spread cos
def test_each_output_implies_the_chunk_and_the_noise(angle: float, chunk: float, noise: float):
    at = torch.tensor(angle, dtype=torch.float64)
    signal, spread = at.sin(), at.cos()
    x0, eps = (torch.tensor(value, dtype=torch.float64) for value in (chunk, noise))
    sample = signal * x0 + spread * eps
    outputs = {"ddpm_eps": eps, "ddpm_x0": x0, "ddpm_v": signal * eps - spread * x0}
    for kind, output in outputs.items():
        found = clean_and_noise(kind, sample, output, signal**2)
        torch.testing.assert_close(torch.stack(found), torch.stack([x0, eps]), rtol=0, atol=1e-8)


@pytest.mark.parametrize("clip", [0.0, 0.7])
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 6, 7, 9, 10, 16, 20, 25, 50, 99, 100])
def test_a_ddim_step_is_diffusers_to_1e5(kind: str, steps: int, clip: float):
    """DDIMScheduler steps by T // steps from wherever it is, so that is compared."""
    scheduler = theirs(DDIMScheduler, kind, clip, steps)
    for i, timestep in enumerate(scheduler.timesteps.tolist()):
        sample, output = drawn(i)
        before = max(timestep - T // steps, -1)
        mine = ddim_step(kind, ALPHAS, sample, output, level_of(timestep), level_of(before), clip)
        expected = scheduler.step(output, timestep, sample).prev_sample
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("steps", [1, 2, 4, 5, 10, 20, 25, 50, 100])
def test_sampling_by_ddim_is_diffusers_where_the_steps_divide_the_timesteps(kind: str, steps: int):
    noise, _ = drawn()
    scheduler = theirs(DDIMScheduler, kind, 2.0, steps)
    objective = Diffusion(kind, ALPHAS, clip=2.0)
    asked: list[float] = []

    def model(sample: Tensor, level: Tensor) -> Tensor:
        asked.append(float(level[0]))
        return torch.tanh(2 * sample) + level[:, None, None]

    mine = objective.sample(model, noise, steps)
    sample = noise
    for timestep, level in zip(scheduler.timesteps.tolist(), asked, strict=True):
        assert level == pytest.approx(float(level_of(timestep)[0]), abs=1e-6)
        output = torch.tanh(2 * sample) + level
        sample = scheduler.step(output, timestep, sample).prev_sample
    torch.testing.assert_close(mine, sample, rtol=1e-4, atol=1e-5 * steps)


@pytest.mark.parametrize("clip", [0.0, 0.7])
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("steps", [1, 3, 7, 10, 50, 100])
def test_a_ddpm_step_is_diffusers_given_its_noise(kind: str, steps: int, clip: float):
    """DDPMScheduler's next timestep is that of its list, for any number of steps."""
    scheduler = theirs(DDPMScheduler, kind, clip, steps)
    timesteps = [*scheduler.timesteps.tolist(), -1]
    for i, (timestep, before) in enumerate(pairwise(timesteps)):
        sample, output = drawn(i)
        fresh = torch.randn(sample.shape, generator=torch.Generator().manual_seed(9))
        mine = ddpm_step(
            kind, ALPHAS, sample, output, level_of(timestep), level_of(before), fresh, clip
        )
        generator = torch.Generator().manual_seed(9)
        expected = scheduler.step(output, timestep, sample, generator=generator).prev_sample
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-5)


@given(steps=st.integers(1, T))
def test_the_model_is_asked_at_trained_levels_and_a_step_ends_where_the_next_starts(steps: int):
    objective = Diffusion("ddpm_x0", ALPHAS)
    dt = torch.full((1,), 1 / steps)
    starts = [objective.snapped(torch.full((1,), i / steps)) for i in range(steps + 1)]
    ends = [objective.snapped(torch.full((1,), i / steps) + dt) for i in range(steps)]
    assert torch.equal(torch.cat(starts[1:]), torch.cat(ends))
    rows = torch.cat(starts) * T
    torch.testing.assert_close(rows, rows.round())
    assert starts[0] == 0
    assert ends[-1] == 1


def test_every_timestep_is_trained_alike():
    n, objective = 200_000, Diffusion("ddpm_eps", ALPHAS)
    levels = objective.levels(n, torch.Generator().manual_seed(0))
    counts = torch.bincount((levels * T).round().long(), minlength=T)
    assert len(counts) == T
    # Binomial(n, 1 / T): 100 counts, each within 7 standard deviations but once in 10^9 runs.
    assert (counts - n / T).abs().max() < 7 * (n / T) ** 0.5


def test_fresh_noise_that_is_missing_is_asked_for():
    objective = Diffusion("ddpm_v", ALPHAS, sampler="ddpm")
    assert objective.needs_fresh_noise
    with pytest.raises(ConfigError, match="sampler=ddpm draws noise"):
        objective.sample(lambda sample, level: sample, drawn()[0], 5)


def test_more_steps_than_timesteps_are_refused():
    objective = make_objective(ObjectiveConfig(kind="ddpm_v", train_timesteps=20))
    with pytest.raises(
        ConfigError, match=r"steps=21 .* from 1 to 20, the policy's train_timesteps"
    ):
        objective.sample(lambda sample, level: sample, drawn()[0], 21)


def test_a_schedule_that_never_reaches_noise_is_refused():
    with pytest.raises(ConfigError, match=r"train_timesteps=100 has 60% of the chunk left"):
        make_objective(ObjectiveConfig(kind="ddpm_v", beta_schedule="linear"))
    make_objective(ObjectiveConfig(kind="ddpm_v", beta_schedule="linear", train_timesteps=1000))


def test_the_schedule_is_in_no_weights_file():
    assert not Diffusion("ddpm_v", ALPHAS).state_dict()
