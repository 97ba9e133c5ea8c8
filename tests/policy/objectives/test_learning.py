"""Each objective learns a mixture of two ways of doing a thing, told by a bit which thing.

A chunk goes along a direction (which the bit chooses) forwards or backwards, one as often as the
other, give or take 0.1; its last element is a gripper, open on the way forwards. Everything is
seeded. What the models do lies .07 and more inside every asserted bound: other draws of the n =
2,000 samples (1,000 a bit) would cross one less than once in 10^7 runs (Hoeffding).
"""

from functools import cache

import pytest
import torch
from torch import Tensor, nn

from loopdit.policy.objectives.gripper import with_gripper
from loopdit.policy.objectives.objective import Objective, ObjectiveConfig
from loopdit.policy.objectives.registry import make_objective

pytestmark = pytest.mark.system

H, A, SAMPLES, STEPS = 4, 3, 2_000, 10
GRIPPER = torch.tensor([False, False, True])
ENDS = torch.tensor([[0.0, 0.0, -1.0], [1.0, 1.0, 1.0]])
DIRECTIONS = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, -1.0, 1.0, -1.0]])


class TinyModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(H * A + 10, 96), nn.SiLU(), nn.Linear(96, 96), nn.SiLU(), nn.Linear(96, H * A)
        )

    def forward(self, sample: Tensor, level: Tensor, bit: Tensor) -> Tensor:
        angles = level[:, None] * torch.tensor([1.5, 3.0, 6.0, 12.0])
        features = [sample.flatten(1), angles.sin(), angles.cos(), level[:, None], bit[:, None]]
        return self.net(torch.cat(features, dim=1)).unflatten(1, (H, A))


def demonstrations(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Chunks and their bits."""
    bit, forwards = torch.randint(2, (2, count), generator=generator)
    way = 2.0 * forwards[:, None, None] - 1
    chunk = DIRECTIONS[bit][..., None] * way + 0.1 * torch.randn(count, H, A, generator=generator)
    return torch.where(GRIPPER, way, chunk), bit.float()


def objective_of(config: ObjectiveConfig) -> Objective:
    made = make_objective(config)
    return with_gripper(made, GRIPPER, ENDS) if config.gripper == "bce" else made


@cache
def trained(kind: str, gripper: str = "regress") -> TinyModel:
    objective = objective_of(ObjectiveConfig(kind=kind, gripper=gripper))
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model, steps = TinyModel(), 1_200
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        chunk, bit = demonstrations(256, generator)
        noise = torch.randn(chunk.shape, generator=generator)
        level = objective.levels(len(chunk), generator)
        output = model(objective.noised(chunk, noise, level), level, bit)
        loss = objective.loss(output, objective.target(chunk, noise, level)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model


def sampled(config: ObjectiveConfig, steps: int = STEPS) -> tuple[Tensor, Tensor]:
    """Chunks and their bits, from noise of spread 1."""
    model, generator = trained(config.kind, config.gripper), torch.Generator().manual_seed(1)
    bit = (torch.arange(SAMPLES) % 2).float()
    noise = torch.randn(SAMPLES, H, A, generator=generator)
    fresh = torch.randn(steps, SAMPLES, H, A, generator=generator)

    def predict(sample: Tensor, level: Tensor) -> Tensor:
        return model(sample, level, bit)

    with torch.no_grad():
        return objective_of(config).sample(predict, noise, steps, fresh), bit


def ways(chunk: Tensor, bit: Tensor) -> tuple[Tensor, float]:
    """Which way each chunk goes, 1 or -1, and the share of chunks that are near that way."""
    direction = DIRECTIONS[bit.long()][..., None]
    arm = chunk[..., ~GRIPPER]
    way = (arm * direction).mean((1, 2)).sign()
    off = (arm - direction * way[:, None, None]).square().mean((1, 2)).sqrt()
    return way, float((off < 0.35).float().mean())


@pytest.mark.parametrize("gripper", ["regress", "bce"])
@pytest.mark.parametrize(
    ("kind", "sampler"),
    [
        ("flow", "euler"),
        ("flow", "heun"),
        ("ddpm_eps", "ddim"),
        ("ddpm_eps", "ddpm"),
        ("ddpm_x0", "ddim"),
        ("ddpm_x0", "ddpm"),
        ("ddpm_v", "ddim"),
        ("ddpm_v", "ddpm"),
    ],
)
def test_both_ways_are_sampled_and_the_gripper_goes_with_the_arm(
    kind: str, sampler: str, gripper: str
):
    chunk, bit = sampled(ObjectiveConfig(kind=kind, sampler=sampler, gripper=gripper))
    way, near = ways(chunk, bit)
    assert near > 0.85
    for told in (0, 1):
        assert 0.3 < float((way[bit == told] > 0).float().mean()) < 0.7
    grip = chunk[..., GRIPPER]
    agreeing = (grip.sign() == way[:, None, None]).all(1).float().mean()
    assert agreeing > 0.9
    if gripper == "bce":
        assert set(grip.unique().tolist()) == {-1.0, 1.0}


def test_regression_says_the_mean_of_both_ways():
    chunk, _ = sampled(ObjectiveConfig(kind="regression"))
    assert chunk.abs().max() < 0.2


def test_by_eps_a_chunk_must_be_bounded_and_loosely_is_enough():
    _, unbounded = ways(*sampled(ObjectiveConfig(kind="ddpm_eps", clip=0.0)))
    _, tightly = ways(*sampled(ObjectiveConfig(kind="ddpm_eps", clip=1.0)))
    _, loosely = ways(*sampled(ObjectiveConfig(kind="ddpm_eps")))
    assert unbounded < 0.2
    assert tightly < loosely
