"""The steps of a small training."""

import pytest
import torch
from torch import Tensor, nn

from loopdit.errors import ConfigError
from loopdit.eval.experiments.studies.study import NotFinite
from loopdit.eval.experiments.training import StepsConfig, fit


def line() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(1, 1)


def weight_of(model: nn.Linear) -> nn.Parameter:
    assert isinstance(model.weight, nn.Parameter)
    return model.weight


def test_a_line_is_fitted_and_looked_at_evenly_to_the_end():
    model = line()
    looks: list[int] = []
    x = torch.linspace(-1, 1, 8)[:, None]

    def gradients(step: int) -> Tensor:
        loss = (model(x) - (3 * x + 1)).square().mean()
        loss.backward()
        return loss.detach()

    config = StepsConfig(steps=1000, learning_rate=0.05, looks=4)
    fit(model.parameters(), config, gradients, looks.append)
    assert model.weight.item() == pytest.approx(3, abs=0.05)
    assert model.bias.item() == pytest.approx(1, abs=0.05)
    assert looks == [250, 500, 750, 1000]


def test_the_first_step_is_a_small_one_and_later_ones_are_as_long_as_asked():
    """Adam's first step is as long as its rate, whatever the gradient."""
    model = line()
    before = model.weight.item()

    def gradients(step: int) -> Tensor:
        loss = model.weight.sum()
        loss.backward()
        return loss.detach()

    fit([weight_of(model)], StepsConfig(steps=1, learning_rate=0.1), gradients)
    assert before - model.weight.item() == pytest.approx(0.1, rel=0.02)
    model = line()
    fit([weight_of(model)], StepsConfig(steps=40, learning_rate=0.1), gradients)
    # Warm for 2 of 40 steps, the first at half the rate.
    assert before - model.weight.item() == pytest.approx(0.1 * 39.5, rel=0.05)


@pytest.mark.parametrize(("bad_at", "told_at"), [(0, 1), (20, 21), (5, 21)])
def test_what_is_no_number_is_an_error_that_names_the_step(bad_at: int, told_at: int):
    model = line()

    def gradients(step: int) -> Tensor:
        loss = model.weight.sum() * (float("nan") if step >= bad_at else 1.0)
        loss.backward()
        return loss.detach()

    with pytest.raises(NotFinite, match=f"the loss of step {told_at} is nan"):
        fit([weight_of(model)], StepsConfig(steps=50), gradients)


@pytest.mark.parametrize("bad", [{"steps": 0}, {"batch": 0}, {"looks": 0}, {"learning_rate": 0.0}])
def test_a_training_of_nothing_is_refused(bad: dict[str, float]):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        StepsConfig(**bad)  # pyright: ignore[reportArgumentType] - steps are whole in the cases
