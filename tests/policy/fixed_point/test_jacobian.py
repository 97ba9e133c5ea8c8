"""Norms of Jacobians against matrices that are known, and against finite differences."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import tanhshrink

from loopdit.policy.block import AdaLNBlock
from loopdit.policy.fixed_point.jacobian import jacobian_penalty, spectral_norm


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_norm_of_a_linear_map_is_its_largest_singular_value():
    """Each sample has a matrix of its own; the second one is far from normal."""
    matrices = torch.randn(3, 12, 12, generator=seeded(), dtype=torch.float64)
    matrices[1] = torch.diag(torch.full((11,), 5.0, dtype=torch.float64), diagonal=1)

    def function(state: Tensor) -> Tensor:
        return (matrices @ state.flatten(1)[..., None]).view_as(state) + 1.0

    state = torch.randn(3, 4, 3, generator=seeded(1), dtype=torch.float64)
    norms = spectral_norm(function, state, seeded(2), iterations=500, tolerance=1e-9)
    torch.testing.assert_close(norms, torch.linalg.matrix_norm(matrices, ord=2), rtol=1e-5, atol=0)


def test_the_norm_keeps_no_graph_of_the_functions_parameters():
    """With one, each of the iterations' graphs stays: 6 GB for the loops of one model."""
    weight = torch.nn.Parameter(torch.eye(4))
    norms = spectral_norm(lambda state: state @ weight, torch.ones(2, 3, 4), seeded())
    assert not norms.requires_grad
    torch.testing.assert_close(norms, torch.ones(2))


def test_the_norm_of_a_block_is_that_of_its_finite_differences():
    torch.manual_seed(0)
    block = AdaLNBlock(32).double().requires_grad_(False)
    condition = torch.randn(1, 1, 32, dtype=torch.float64)
    state = torch.randn(2, 3, 32, dtype=torch.float64)

    def function(tokens: Tensor) -> Tensor:
        return block(tokens, condition)[0]

    columns: list[Tensor] = []
    for index in range(3 * 32):
        change = torch.zeros(3 * 32, dtype=torch.float64)
        change[index] = 1e-6
        change = change.view(3, 32)
        difference = function(state + change) - function(state - change)
        columns.append(difference.flatten(1) / 2e-6)
    jacobians = torch.stack(columns, dim=-1)  # (B, n, n)
    norms = spectral_norm(function, state, seeded(), iterations=300, tolerance=1e-8)
    expected = torch.linalg.matrix_norm(jacobians, ord=2)
    torch.testing.assert_close(norms, expected, rtol=1e-4, atol=0)


def test_a_map_that_ignores_its_state_has_norm_zero():
    norms = spectral_norm(lambda state: 0 * state + 1, torch.ones(2, 3, 4), seeded())
    assert norms.tolist() == [0.0, 0.0]


def test_the_penalty_is_the_mean_square_of_the_exact_jacobian():
    """20,000 probes of one state; within six standard errors of the Jacobian written out."""
    matrix = torch.randn(6, 6, generator=seeded(), dtype=torch.float64)

    def function(state: Tensor) -> Tensor:
        return tanhshrink(state @ matrix)

    point = torch.randn(1, 2, 6, generator=seeded(1), dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(function, point).reshape(12, 12)
    count = 20_000
    estimate = jacobian_penalty(function, point.expand(count, -1, -1), seeded(2))
    exact = jacobian.square().sum() / 12
    # The variance of |v J|^2 for a normal v is twice the squared Frobenius norm of J J^T.
    error = (2 * (jacobian @ jacobian.T).square().sum() / count).sqrt() / 12
    assert abs(estimate - exact) < 6 * error
    assert error < 0.02 * exact


def test_more_probes_are_averaged():
    matrix = torch.eye(4)

    def function(state: Tensor) -> Tensor:
        return state @ matrix

    one, other = (jacobian_penalty(function, torch.ones(1, 1, 4), seeded(3), n) for n in (1, 400))
    assert abs(other - 1) < 0.25 < abs(one - 1)


def test_the_penalty_pulls_on_the_weights_and_not_on_the_state():
    weight = torch.nn.Parameter(torch.randn(5, 5, generator=seeded(), dtype=torch.float64))
    state = torch.zeros(20_000, 1, 5, dtype=torch.float64, requires_grad=True)
    jacobian_penalty(lambda h: h @ weight, state, seeded(1)).backward()
    assert state.grad is None
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, 2 * weight.detach() / 5, rtol=0.1, atol=0.02)


@pytest.mark.parametrize("tracked", [True, False])
def test_the_penalty_works_where_gradients_are_off_around_it(tracked: bool):
    with torch.set_grad_enabled(tracked):
        penalty = jacobian_penalty(lambda h: 2 * h, torch.ones(3, 2, 50), seeded())
    assert 2 < penalty < 6
