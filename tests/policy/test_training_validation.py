from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.policy.policies import SMALL, small_spec, small_store
from tests.policy.trainings import config, rows

from loopdit.datasets.statistics import compute_statistics
from loopdit.datasets.windows import WindowSampler
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.objectives.objective import ObjectiveConfig
from loopdit.policy.training.train import train
from loopdit.policy.training.validation import Validation

CPU = torch.device("cpu")


@pytest.fixture
def measured(tmp_path: Path) -> tuple[LoopedPolicy, WindowSampler, Validation, list[float]]:
    store = small_store(tmp_path / "data", episodes=10)
    torch.manual_seed(0)
    policy = LoopedPolicy(store.spec, SMALL).eval().requires_grad_(False)
    statistics = compute_statistics(store)
    policy.normalizer.fit(statistics)
    windows = sum(record.length for record in store.episodes)
    sampler = WindowSampler(store, SMALL.action_horizon, Validation.batch_size(windows), 0)
    mean = list(statistics["action"].mean)
    return policy, sampler, Validation(sampler, mean), mean


def test_the_constant_is_the_error_of_commanding_the_mean_action(
    measured: tuple[LoopedPolicy, WindowSampler, Validation, list[float]],
):
    policy, sampler, validation, mean = measured
    batch = sampler.batch(0)
    spread = policy.normalizer.action_spread.numpy()
    errors = ((batch.actions - np.array(mean, np.float32)) / spread) ** 2
    expected = errors.mean(-1)[batch.valid].mean()
    assert validation.measure(policy, CPU).constant_error == pytest.approx(expected, rel=1e-5)


def test_the_action_error_is_of_the_chunk_that_one_step_from_nothing_gives(
    measured: tuple[LoopedPolicy, WindowSampler, Validation, list[float]],
):
    policy, sampler, validation, _ = measured
    batch = sampler.batch(0)
    observation = {name: torch.from_numpy(values) for name, values in batch.observations.items()}
    target = policy.normalizer.chunk(torch.from_numpy(batch.actions))
    blank = torch.zeros_like(target)
    expected: list[float] = []
    for loops in (1, 2):
        context = policy.encode(observation, loops)
        chunk = policy.model.predict(blank, torch.zeros(len(blank)), context)
        errors = (chunk - target).square().mean(-1)[torch.from_numpy(batch.valid)]
        expected.append(float(errors.mean()))
    assert validation.measure(policy, CPU).action_error == pytest.approx(expected, rel=1e-4)


def test_measuring_twice_gives_the_same_and_leaves_global_randomness_alone(
    measured: tuple[LoopedPolicy, WindowSampler, Validation, list[float]],
):
    policy, _, validation, _ = measured
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    assert validation.measure(policy, CPU) == validation.measure(policy, CPU)
    assert torch.equal(torch.rand(1), expected)


def test_validation_is_in_the_metrics_at_its_steps_and_on_the_screen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    small_store(tmp_path / "data", episodes=24)
    train(config(tmp_path, steps=7, validate_every=3))
    found = rows(tmp_path / "out")
    assert [row["step"] for row in found if "validation" in row] == [3, 6, 7]
    validation = found[-1]["validation"]
    assert validation["action_error"].keys() == validation["loss"].keys() == {"1", "2"}
    said = capsys.readouterr().out
    error, constant = validation["action_error"]["2"], validation["constant_error"]
    assert "step 7  held out: action error K1=" in said
    assert f"K2={error:.3f}, a constant {constant:.3f}" in said


def test_a_policy_that_learned_is_better_than_a_constant_on_held_out_episodes(tmp_path: Path):
    # Without a camera: frames of noise in so few episodes would be learned by heart.
    small_store(tmp_path / "data", small_spec(cameras=0), episodes=60)
    train(config(tmp_path, steps=300, batch_size=32, validation=0.1, validate_every=300))
    found = rows(tmp_path / "out")[-1]["validation"]
    assert max(found["action_error"].values()) < 0.85 * found["constant_error"]


def test_where_one_step_is_no_guess_whole_chunks_are_sampled(
    measured: tuple[LoopedPolicy, WindowSampler, Validation, list[float]],
):
    trained, sampler, validation, _ = measured
    config = replace(trained.config, objective=ObjectiveConfig("ddpm_eps"))
    torch.manual_seed(0)
    policy = LoopedPolicy(trained.spec, config).eval()
    result = validation.measure(policy, CPU)
    batch = sampler.batch(0)
    noise = policy.draw(len(batch.actions), torch.Generator().manual_seed(0)).noise
    observation = {name: torch.from_numpy(values) for name, values in batch.observations.items()}
    target = policy.normalizer.chunk(torch.from_numpy(batch.actions))
    with torch.no_grad():
        chunk = policy.sample(policy.encode(observation, 2), noise, 10)
    expected = (chunk - target).square().mean(-1)[torch.from_numpy(batch.valid)].mean()
    assert result.action_error[1] == pytest.approx(float(expected), rel=1e-4)


def test_there_is_an_error_where_all_that_is_held_out_would_be_in_flight(tmp_path: Path):
    store = small_store(tmp_path / "data", episodes=1)
    policy = LoopedPolicy(store.spec, replace(SMALL, in_flight=3)).eval()
    for seed in range(8):  # one window each, some of them of the episode's last actions
        sampler = WindowSampler(store, SMALL.action_horizon, 1, seed, in_flight=3)
        result = Validation(sampler, [0.0, 0.0]).measure(policy, CPU)
        assert all(np.isfinite([result.constant_error, *result.loss, *result.action_error]))


def test_a_diffusion_of_few_timesteps_is_sampled_in_no_more(
    measured: tuple[LoopedPolicy, WindowSampler, Validation, list[float]],
):
    trained, _, validation, _ = measured
    config = replace(trained.config, objective=ObjectiveConfig("ddpm_eps", train_timesteps=4))
    result = validation.measure(LoopedPolicy(trained.spec, config).eval(), CPU)
    assert all(np.isfinite(result.action_error))
