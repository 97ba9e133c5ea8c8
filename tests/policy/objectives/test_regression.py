import torch
from torch import Tensor

from loopdit.policy.objectives.regression import Regression


def test_the_model_sees_neither_noise_nor_level_and_is_asked_once():
    seen: list[tuple[Tensor, Tensor]] = []

    def model(sample: Tensor, level: Tensor) -> Tensor:
        seen.append((sample, level))
        return torch.full_like(sample, 7.0)

    noise = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    chunk = Regression().sample(model, noise, 10)
    assert chunk.eq(7).all()
    assert len(seen) == 1
    assert all(not values.any() for values in seen[0])
    trained_on = Regression().noised(torch.ones(2, 4, 3), noise, Regression().levels(2, _seeded()))
    assert torch.equal(trained_on, seen[0][0])


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)
