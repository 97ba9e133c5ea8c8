import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from loopdit.errors import ConfigError
from loopdit.policy.objectives.objective import Objective, ObjectiveConfig
from loopdit.policy.objectives.registry import make_objective

KINDS = ["flow", "ddpm_eps", "ddpm_x0", "ddpm_v", "regression"]
CONFIGS = {
    **{kind: ObjectiveConfig(kind=kind, clip=0.0) for kind in KINDS},
    "heun": ObjectiveConfig(sampler="heun"),
    "ddpm": ObjectiveConfig(kind="ddpm_v", sampler="ddpm", clip=0.0),
}


@pytest.fixture(params=list(CONFIGS))
def objective(request: pytest.FixtureRequest) -> Objective:
    return make_objective(CONFIGS[request.param])


def drawn(steps: int, batch: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """A chunk, noise, and noise for each step."""
    generator = torch.Generator().manual_seed(0)
    chunk, noise = torch.randn(2, batch, 6, 4, generator=generator)
    return chunk, noise, torch.randn(steps, batch, 6, 4, generator=generator)


@pytest.mark.parametrize("steps", [1, 2, 5, 7, 10, 50])
def test_a_model_that_knows_the_chunk_is_followed_to_it_in_any_number_of_steps(
    objective: Objective, steps: int
):
    chunk, noise, fresh = drawn(steps)

    def knows(sample: Tensor, level: Tensor) -> Tensor:
        # The noise that this sample is made of, for what the model should say of it.
        start = objective.noised(chunk, torch.zeros_like(noise), level)
        scale = objective.noised(torch.zeros_like(chunk), torch.ones_like(noise), level)
        implied = (sample - start) / scale.clamp_min(1e-6)
        return objective.target(chunk, implied, level)

    reached = objective.sample(knows, noise, steps, fresh)
    # By eps at the noisiest level, rounding is blown up 2,000 times.
    torch.testing.assert_close(reached, chunk, rtol=1e-3, atol=2e-3)


def test_the_target_of_a_sample_says_its_chunk(objective: Objective):
    chunk, noise, _ = drawn(0)
    for level in (0.25, 0.5, 0.75, 0.99):
        levels = torch.full((3,), level)
        sample = objective.noised(chunk, noise, levels)
        target = objective.target(chunk, noise, levels)
        implied = objective.chunk(sample, target, levels)
        torch.testing.assert_close(implied, chunk, rtol=1e-4, atol=1e-4)
        assert objective.loss(objective.as_target(target), target).max() == 0


def test_levels_of_single_actions_are_those_of_whole_samples_row_by_row(objective: Objective):
    chunk, noise, _ = drawn(0)
    each = torch.linspace(0, 0.95, 6).expand(3, 6)
    together = objective.noised(chunk, noise, each), objective.target(chunk, noise, each)
    for action in range(6):
        whole = torch.full((3,), float(each[0, action]))
        alone = objective.noised(chunk, noise, whole), objective.target(chunk, noise, whole)
        for mixed, single in zip(together, alone, strict=True):
            torch.testing.assert_close(mixed[:, action], single[:, action])


def test_known_actions_are_shown_at_level_1_and_stay_as_they_are(objective: Objective):
    chunk, noise, fresh = drawn(5)
    known = torch.arange(6) < torch.tensor([0, 2, 6])[:, None]
    start = torch.where(known[..., None], chunk, noise)

    def model(sample: Tensor, level: Tensor) -> Tensor:
        assert level.shape == (3, 6)
        assert (level[known] == 1).all()
        assert (level[~known] < 1).all()
        torch.testing.assert_close(sample[known], chunk[known], rtol=0, atol=0)
        return 0.3 * sample.cumsum(1) + level[..., None]

    reached = objective.sample(model, start, 5, fresh, known)
    torch.testing.assert_close(reached[known], chunk[known], rtol=0, atol=0)
    assert reached.isfinite().all()
    assert (reached - start)[~known].abs().min() > 0


def test_no_known_action_is_the_same_as_not_saying_so(objective: Objective):
    _, noise, fresh = drawn(4)

    def model(sample: Tensor, level: Tensor) -> Tensor:
        level = level if level.ndim == 1 else level[:, 0]
        return torch.tanh(sample) + level[:, None, None]

    plain = objective.sample(model, noise, 4, fresh)
    told = objective.sample(model, noise, 4, fresh, torch.zeros(3, 6, dtype=torch.bool))
    torch.testing.assert_close(told, plain)


def test_known_actions_enter_training_clean(objective: Objective):
    chunk, noise, _ = drawn(0)
    level = torch.full((3, 6), 0.3)
    level[:, :2] = 1
    sample = objective.noised(chunk, noise, level)
    torch.testing.assert_close(sample[:, :2], chunk[:, :2], rtol=0, atol=0)


@pytest.mark.parametrize("steps", [1, 3, 8, 10])
def test_a_server_that_takes_one_step_after_another_samples_the_same_chunk(
    objective: Objective, steps: int
):
    """The times are computed as the back ends do it: t = i / steps, dt = 1 / steps."""
    _, noise, fresh = drawn(steps)

    def model(sample: Tensor, level: Tensor) -> Tensor:
        return torch.sin(sample) + level[:, None, None]

    sample, dt = noise, torch.full((3,), 1 / steps)
    for i in range(steps):
        sample = objective.step(model, sample, torch.full((3,), i / steps), dt, fresh[i])
    torch.testing.assert_close(sample, objective.sample(model, noise, steps, fresh))


def test_the_model_is_asked_as_often_as_announced(objective: Objective):
    for steps in (1, 2, 7):
        _, noise, fresh = drawn(steps)
        asked: list[Tensor] = []

        def model(sample: Tensor, level: Tensor, asked: list[Tensor] = asked) -> Tensor:
            asked.append(level)
            return sample

        objective.sample(model, noise, steps, fresh)
        assert len(asked) == objective.predictions(steps)


def test_training_levels_are_a_function_of_the_seed(objective: Objective):
    first, again = (objective.levels(1000, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert first.min() >= 0
    assert first.max() < 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"kind": "gan"}, "objective.kind=gan is unknown. Use flow, ddpm_eps,"),
        ({"sampler": "ddim"}, "objective.sampler=ddim does not go with kind=flow"),
        ({"kind": "regression", "sampler": "euler"}, "takes none"),
        ({"kind": "ddpm_v", "sampler": "heun"}, "takes ddim or ddpm"),
        ({"train_timesteps": 0}, "objective.train_timesteps=0"),
        ({"beta_schedule": "cubic"}, "objective.beta_schedule=cubic is unknown"),
        ({"clip": -1.0}, "objective.clip=-1.0"),
        ({"clip": float("nan")}, "objective.clip=nan"),
        ({"gripper": "guess"}, "objective.gripper=guess is unknown. Use regress or bce"),
        ({"gripper": "bce", "gripper_labels": []}, "gripper_labels beside it, which is empty"),
        ({"gripper_settled": 0.4}, "objective.gripper_settled=0.4"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(changed: dict[str, object], said: str):
    with pytest.raises(ConfigError, match=said.replace(".", r"\.")):
        replace(ObjectiveConfig(), **changed)  # pyright: ignore[reportArgumentType] - wrong on purpose


def test_each_kind_has_a_sampler_of_its_own():
    chosen = {kind: ObjectiveConfig(kind=kind).chosen_sampler for kind in KINDS}
    assert chosen == {
        "flow": "euler",
        "ddpm_eps": "ddim",
        "ddpm_x0": "ddim",
        "ddpm_v": "ddim",
        "regression": "",
    }


def test_steps_that_a_sampler_does_not_have_are_refused(objective: Objective):
    _, noise, _ = drawn(0)
    for ask in (objective.predictions, lambda n: objective.sample(lambda s, t: s, noise, n)):
        with pytest.raises(ConfigError, match="steps=0 must be"):
            ask(0)


def test_a_missing_diffusers_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    monkeypatch.setitem(sys.modules, "diffusers.schedulers.scheduling_ddpm", None)
    with pytest.raises(ConfigError, match="pip install diffusers"):
        make_objective(ObjectiveConfig(kind="ddpm_x0"))
    make_objective(ObjectiveConfig())
    make_objective(ObjectiveConfig(kind="regression"))
