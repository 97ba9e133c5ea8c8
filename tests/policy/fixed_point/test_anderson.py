"""Accelerated fixed points against linear solves and against plain iteration."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from loopdit.errors import ConfigError
from loopdit.policy.fixed_point.anderson import AndersonConfig, solve

Function = Callable[[Tensor], Tensor]
WIDTH = 10


def affine(norms: list[float], seed: int = 0) -> tuple[Function, Tensor, Tensor]:
    """h -> M h + b with a spectral norm for each sample; also its fixed points and a start."""
    generator = torch.Generator().manual_seed(seed)
    matrices = torch.randn(len(norms), WIDTH, WIDTH, generator=generator, dtype=torch.float64)
    scale = torch.tensor(norms, dtype=torch.float64) / torch.linalg.matrix_norm(matrices, ord=2)
    matrices = matrices * scale[:, None, None]
    shift = torch.randn(len(norms), WIDTH, 1, generator=generator, dtype=torch.float64)
    solution = torch.linalg.solve(torch.eye(WIDTH) - matrices, shift)
    start = torch.randn(len(norms), 2, WIDTH // 2, generator=generator, dtype=torch.float64)

    def function(state: Tensor) -> Tensor:
        return (matrices @ state.flatten(1)[..., None] + shift).view_as(state)

    return function, solution.view_as(start), start


def perceptron(seed: int) -> tuple[Function, Tensor]:
    """h -> W2 tanh(W1 h) + b, contractive by its weights' norms, in float32."""
    generator = torch.Generator().manual_seed(seed)
    inner, outer = torch.randn(2, 16, 16, generator=generator)
    inner = 1.4 * inner / torch.linalg.matrix_norm(inner, ord=2)
    outer = 0.68 * outer / torch.linalg.matrix_norm(outer, ord=2)
    shift = torch.randn(6, 4, 16, generator=generator)
    start = 3 * torch.randn(6, 4, 16, generator=generator)
    return lambda state: torch.tanh(state @ inner) @ outer + shift, start


def test_it_reaches_the_solution_of_the_linear_system_in_fewer_steps_than_plain_iteration():
    function, solution, start = affine([0.99, 0.9, 0.7])
    config = AndersonConfig(tolerance=1e-8, max_steps=2000)
    fast, plain = solve(function, start, config), solve(function, start, config.plain())
    for found in (fast, plain):
        assert found.converged.all()
        assert (found.residual <= 1e-8).all()
        torch.testing.assert_close(found.state, solution, rtol=0, atol=1e-6)
    assert (fast.steps < plain.steps).all()
    assert fast.steps[0] * 2 < plain.steps[0]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("memory", [1, 3, 5])
def test_no_tolerance_takes_it_more_than_a_step_longer_than_plain_iteration(memory: int, seed: int):
    linear, _, linear_start = affine([0.98, 0.9, 0.5], seed)
    saved = 0
    for function, start in ((linear, linear_start), perceptron(seed)):
        for tolerance in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5):
            config = AndersonConfig(memory=memory, tolerance=tolerance, max_steps=2000)
            fast, plain = solve(function, start, config), solve(function, start, config.plain())
            assert fast.converged.all()
            assert plain.converged.all()
            assert (fast.steps <= plain.steps + 1).all(), (tolerance, fast.steps, plain.steps)
            saved += int((plain.steps - fast.steps).sum())
    assert saved > 0


def test_the_residual_told_is_that_of_the_state_it_came_from():
    """By hand, from the steps: the answer is f of a state whose update has this size."""
    function, start = perceptron(1)
    one = solve(function, start, AndersonConfig(tolerance=0.0, max_steps=1))
    first = function(start)
    assert torch.equal(one.state, first)
    expected = (first - start).flatten(1).norm(dim=1) / first.flatten(1).norm(dim=1)
    torch.testing.assert_close(one.residual, expected)
    many = solve(function, start, AndersonConfig(tolerance=0.0, max_steps=15))
    assert torch.equal(many.residual, many.residuals.amin(dim=0))


def test_it_finds_the_fixed_point_that_plain_iteration_runs_away_from():
    function, solution, start = affine([4.0])
    config = AndersonConfig(memory=WIDTH, tolerance=1e-9, max_steps=200)
    found = solve(function, start, config)
    assert found.converged.all()
    torch.testing.assert_close(found.state, solution, rtol=0, atol=1e-6)
    assert not solve(function, start, config.plain()).converged.any()


def test_without_memory_it_is_the_loop_itself():
    function, start = perceptron(0)
    found = solve(function, start, AndersonConfig(memory=0, tolerance=0.0, max_steps=4))
    assert torch.equal(found.state, function(function(function(function(start)))))
    assert found.steps.tolist() == [4] * 6


def test_a_sample_ends_when_it_has_arrived_and_does_not_depend_on_the_others():
    function, _, start = affine([0.95, 0.3])
    together = solve(function, start, AndersonConfig(tolerance=1e-8, max_steps=500))
    assert together.steps[1] < together.steps[0]
    assert together.residuals[int(together.steps[1]) :, 1].isnan().all()
    # The same two, the easy one begun elsewhere: the hard one's way is the same.
    moved = torch.stack([start[0], start[1] + 5])
    again = solve(function, moved, AndersonConfig(tolerance=1e-8, max_steps=500))
    assert again.steps[0] == together.steps[0]
    torch.testing.assert_close(again.state[0], together.state[0], rtol=0, atol=1e-10)


def test_collinear_updates_fall_back_to_plain_steps_and_still_arrive():
    """All differences point one way, so that any two of them make a singular least squares."""
    direction = torch.ones(1, 2, 3) / 6**0.5

    def function(state: Tensor) -> Tensor:
        along = (state * direction).sum((1, 2), keepdim=True)
        return (0.7 * along + 0.2 * along.sin() + 0.1) * direction

    found = solve(function, torch.zeros(4, 2, 3), AndersonConfig(tolerance=1e-5, max_steps=100))
    assert found.converged.all()
    torch.testing.assert_close(function(found.state), found.state, rtol=0, atol=1e-4)


def test_a_state_that_only_grows_is_not_called_arrived():
    found = solve(lambda h: h + 1, torch.ones(2, 3, 4), AndersonConfig(max_steps=40).plain())
    assert not found.converged.any()
    found = solve(lambda h: h + 1, torch.ones(2, 3, 4), AndersonConfig(max_steps=40))
    assert not found.converged.any()


def test_states_that_are_no_numbers_end_without_an_answer():
    found = solve(lambda h: 1e30 * h.square(), torch.ones(2, 3, 4), AndersonConfig(max_steps=9))
    assert not found.converged.any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"memory": -1}, "memory=-1"),
        ({"damping": 0.0}, "damping=0.0"),
        ({"damping": 1.5}, "damping=1.5"),
        ({"tolerance": float("nan")}, "tolerance=nan"),
        ({"max_steps": 0}, "max_steps=0"),
    ],
)
def test_impossible_settings_are_refused_by_name(options: dict[str, float], words: str):
    with pytest.raises(ConfigError, match=words):
        AndersonConfig(**options)  # pyright: ignore[reportArgumentType] - what a command line gives
