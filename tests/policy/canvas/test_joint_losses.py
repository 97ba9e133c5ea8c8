import math

import pytest
import torch
from torch import Tensor, nn

from loopdit.errors import ConfigError
from loopdit.policy.canvas.joint_losses import (
    METHODS,
    JointLoss,
    JointLossConfig,
    projected_sum,
)

NAMES = ("frames", "actions")


class Shared(nn.Module):
    """One shared vector, and one parameter of each modality's own."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Parameter(torch.zeros(2))
        self.own = nn.ParameterDict({name: nn.Parameter(torch.zeros(1)) for name in NAMES})

    def losses(self, gradients: dict[str, tuple[float, float]]) -> dict[str, Tensor]:
        """Linear losses with these gradients on what is shared, and 1 on what is their own."""
        return {
            name: self.shared @ torch.tensor(gradient) + self.own[name].sum() + 2
            for name, gradient in gradients.items()
        }


def shared_gradient(config: JointLossConfig, gradients: dict[str, tuple[float, float]]) -> Tensor:
    model = Shared()
    joint = JointLoss(NAMES, config)
    generator = torch.Generator().manual_seed(0)
    joint.backward(model.losses(gradients), model.parameters(), generator)
    for name in NAMES:
        own = model.own[name].grad
        assert own is not None
        torch.testing.assert_close(own, torch.tensor([config.weights.get(name, 1.0)]))
    assert model.shared.grad is not None
    return model.shared.grad


def test_the_sum_is_the_sum_with_its_weights():
    joint = JointLoss(NAMES, JointLossConfig(weights={"frames": 0.25}))
    losses = {"frames": torch.tensor(2.0), "actions": torch.tensor(3.0)}
    assert joint(losses).item() == pytest.approx(0.5 + 3.0)
    assert not list(joint.parameters())


def test_an_uncertainty_settles_at_the_loss_and_makes_it_count_one_half():
    """Of L / (2 e^s) + s / 2 the minimum is at s = log L, whatever L's unit."""
    joint = JointLoss(NAMES, JointLossConfig(method="uncertainty"))
    losses = {"frames": torch.tensor(20.0), "actions": torch.tensor(0.05)}
    assert joint.log_variances is not None
    assert joint(losses).item() == pytest.approx((20.0 + 0.05) / 2)
    optimizer = torch.optim.LBFGS(joint.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = joint(losses)
        total.backward()
        return total

    optimizer.step(closure)
    settled = joint.log_variances.detach()
    torch.testing.assert_close(settled, torch.tensor([20.0, 0.05]).log(), rtol=1e-3, atol=1e-3)
    expected = sum(0.5 + 0.5 * math.log(loss) for loss in (20.0, 0.05))
    assert joint(losses).item() == pytest.approx(expected, abs=1e-4)


def test_conflicting_gradients_lose_their_component_along_each_other():
    """(1, 0) and (-1, 1): each is projected on the other's normal plane, then they are added.

    (1, 0) - (-1/2) (-1, 1) = (1/2, 1/2), and (-1, 1) - (-1) (1, 0) = (0, 1).
    """
    gradients = {"frames": (1.0, 0.0), "actions": (-1.0, 1.0)}
    joined = shared_gradient(JointLossConfig(method="surgery"), gradients)
    torch.testing.assert_close(joined, torch.tensor([0.5, 1.5]))


@pytest.mark.parametrize("method", ["sum", "surgery"])
def test_gradients_that_agree_are_added(method: str):
    gradients = {"frames": (1.0, 0.0), "actions": (1.0, 1.0)}
    joined = shared_gradient(JointLossConfig(method=method), gradients)
    torch.testing.assert_close(joined, torch.tensor([2.0, 1.0]))


def test_surgery_weighs_the_losses_before_it_projects():
    config = JointLossConfig(method="surgery", weights={"frames": 3.0})
    joined = shared_gradient(config, {"frames": (1.0, 0.0), "actions": (-1.0, 1.0)})
    torch.testing.assert_close(joined, torch.tensor([1.5, 2.5]))  # 3 (1/2, 1/2) + (0, 1)


def test_of_two_gradients_what_is_left_of_each_points_against_neither():
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        pair = torch.randn(2, 5, generator=generator)
        joined = projected_sum(pair, generator)
        conflict = torch.dot(pair[0], pair[1]) < 0
        assert ((pair @ joined) >= -1e-5).all()
        if not conflict:
            torch.testing.assert_close(joined, pair.sum(0))


def test_surgery_takes_the_order_of_the_others_from_the_generator():
    """Of three, projections do not commute, so the order matters and a seed settles it."""
    gradients = torch.tensor([[1.0, 0.0], [-1.0, 0.2], [-0.5, -1.0]])
    results = {
        tuple(projected_sum(gradients, torch.Generator().manual_seed(seed)).tolist())
        for seed in range(20)
    }
    again = {
        tuple(projected_sum(gradients, torch.Generator().manual_seed(seed)).tolist())
        for seed in range(20)
    }
    assert len(results) > 1
    assert results == again


def test_an_extra_loss_is_added_unprojected_by_every_method():
    gradients = {"frames": (1.0, 0.0), "actions": (1.0, 0.0)}
    for method in ("sum", "surgery"):
        model = Shared()
        joint = JointLoss(NAMES, JointLossConfig(method=method))
        extra = -10 * model.shared[0]
        total = joint.backward(model.losses(gradients), model.parameters(), extra=extra)
        assert model.shared.grad is not None
        torch.testing.assert_close(model.shared.grad, torch.tensor([-8.0, 0.0]))
        assert total.item() == 4.0


@pytest.mark.parametrize("method", METHODS)
def test_an_extra_loss_may_be_a_constant(method: str):
    model = Shared()
    joint = JointLoss(NAMES, JointLossConfig(method=method))
    losses = model.losses({name: (1.0, 0.0) for name in NAMES})
    joint.backward(losses, model.parameters(), extra=torch.zeros(()))
    assert model.shared.grad is not None


def test_gradients_accumulate():
    model = Shared()
    joint = JointLoss(NAMES, JointLossConfig(method="surgery"))
    for _ in range(2):
        joint.backward(model.losses({n: (1.0, 2.0) for n in NAMES}), model.parameters())
    assert model.shared.grad is not None
    torch.testing.assert_close(model.shared.grad, torch.tensor([4.0, 8.0]))


def test_unknown_methods_and_weights_are_named():
    with pytest.raises(ConfigError, match=r"joint.method='best'.*sum, uncertainty, surgery"):
        JointLossConfig(method="best")
    with pytest.raises(ConfigError, match=r"joint.weights.frames=-1.0 must be 0 or more"):
        JointLossConfig(weights={"frames": -1.0})
    with pytest.raises(ConfigError, match=r"names 'speech'.*Predicted are: frames, actions"):
        JointLoss(NAMES, JointLossConfig(weights={"speech": 1.0}))
