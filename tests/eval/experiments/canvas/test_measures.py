"""Each measure, against what it says worked out by hand."""

from itertools import pairwise

import pytest
import torch
from tests.eval.experiments.canvas.models import model_of
from torch import Tensor

from loopdit.eval.experiments.canvas.errors import best_guess, constant_errors, region_errors
from loopdit.eval.experiments.canvas.measures.registry import MEASURES
from loopdit.eval.experiments.canvas.measures.trained import Trained
from loopdit.eval.experiments.tasks.registry import task_named
from loopdit.policy.canvas.canvas_model import CanvasModel
from loopdit.policy.loops.config import LoopConfig
from loopdit.policy.loops.looped_block import LoopedBlock


def trained(task: str = "contacts", loops: LoopConfig | None = None, count: int = 6) -> Trained:
    config = LoopConfig(loops=3, init="paper") if loops is None else loops

    def fresh(seed: int) -> CanvasModel:
        return model_of(config, blocks=2, seed=seed, task=task)

    chosen = task_named(task)
    held_out = chosen.canvases(count, 9, "held_out")
    return Trained(fresh(5).eval(), chosen, held_out, fresh, iterations=3)


def test_measuring_has_draws_of_its_own_and_leaves_the_model_as_it_was():
    found = trained()
    found.model.train()
    torch.manual_seed(1)
    first = region_errors(found.model, found.held_out)
    torch.manual_seed(2)
    assert region_errors(found.model, found.held_out) == first
    assert found.model.training


def test_a_constant_predictor_says_the_mean_of_what_was_trained_on():
    training = {"a": torch.tensor([[[1.0]], [[3.0]]])}
    measured = {"a": torch.tensor([[[2.0]], [[5.0]]])}
    assert constant_errors(training, measured, ("a",)) == {"a": pytest.approx(4.5)}


def test_f1_is_that_of_the_signs():
    found = trained(count=20)
    said = best_guess(found.model, found.held_out, "contact").flatten() > 0
    truth = found.held_out["contact"].flatten() > 0
    true, false = int((said & truth).sum()), int((said & ~truth).sum())
    missed = int((~said & truth).sum())
    precision, recall = true / max(1, true + false), true / max(1, true + missed)
    expected = 2 * precision * recall / max(1e-9, precision + recall)
    measured = MEASURES["f1"](found)
    assert measured["f1"] == pytest.approx(expected)
    # Who always says 1 misses none, and is right as often as there is one.
    right = float(truth.float().mean())
    assert measured["chance_f1"] == pytest.approx(2 * right * 1 / (right + 1))


def test_the_gate_ratio_is_of_output_tokens_over_given_ones():
    """With gates that are the same for all tokens it is 1, and each loop's mean is its gate."""
    found = trained()
    with torch.no_grad():
        for module in found.model.modules():
            if isinstance(module, LoopedBlock):
                module.gate_weight.zero_()
                module.gate_bias.copy_(torch.tensor([0.0, -2.0, -4.0]))
    metrics = MEASURES["loop_gates"](found)
    assert metrics["gate_ratio"] == pytest.approx(1.0, abs=1e-6)
    expected = torch.tensor([0.0, -2.0, -4.0]).sigmoid().tolist()
    assert [metrics[f"gate_{k}"] for k in (1, 2, 3)] == pytest.approx(expected)


def test_cutting_a_loop_degrades_only_where_regions_attend_to_each_other():
    found = trained()
    before = region_errors(found.model, found.held_out)
    metrics = MEASURES["cross_modal"](found)
    assert set(metrics) == {"degradation_loop_1", "degradation_loop_2", "degradation_loop_3"} | {
        "last_loop_share"
    }
    assert all(metrics[f"degradation_loop_{k}"] != 1.0 for k in (1, 2, 3))
    assert region_errors(found.model, found.held_out) == before  # and it is put back
    isolated = trained()
    isolated.model.bias = _isolated(isolated)
    cut = MEASURES["cross_modal"](isolated)
    assert all(value == pytest.approx(1.0) for value in cut.values())


def _isolated(found: Trained) -> Tensor:
    given = found.model.given.squeeze(-1)
    return given[:, None] == given[None, :]


def test_fixed_point_numbers_have_the_random_weights_beside_them():
    found = trained()
    metrics = MEASURES["fixed_point"](found)
    again = MEASURES["fixed_point"](found)
    assert metrics == again
    assert 0 < metrics["cosine_last"] <= 1 + 1e-6
    assert metrics["null_cosine_last"] != metrics["cosine_last"]
    assert found.curve["loop"] == [1, 2, 3, 4, 5, 6]
    assert all(len(column) == 6 for column in found.curve.values())


def test_loops_used_are_within_what_there_is_and_gaps_are_differences():
    found = trained("moving_shapes", LoopConfig(loops=3, exits="token", ponder=0.01), count=3)
    metrics = MEASURES["exits"](found)
    assert 1 <= metrics["loops_used"] <= 3
    assert -1 <= metrics["loops_error_spearman"] <= 1
    assert abs(metrics["loops_gap_scenes"]) < 2


def test_levels_and_depths_are_the_errors_there():
    found = trained()
    metrics = MEASURES["levels"](found) | MEASURES["depths"](found)
    at = region_errors(found.model, found.held_out, level=0.5)["contact"]
    assert metrics["error_noise_0.5"] == at
    two = region_errors(found.model, found.held_out, loops=2)["contact"]
    assert metrics["total_loss_k2"] == two
    assert metrics["total_loss_k3"] == region_errors(found.model, found.held_out)["contact"]


def test_the_ratio_of_levels_is_of_the_last_over_the_first():
    metrics = MEASURES["splits"](trained("collisions"))
    expected = metrics["level_4_guess_error"] / metrics["level_1_guess_error"]
    assert metrics["last_first_ratio"] == pytest.approx(expected)


def test_a_canvas_stops_where_one_more_loop_hardly_changes_what_is_said():
    found = trained(count=12)
    model, canvas, truth = found.model, found.held_out, found.held_out["contact"]
    said = [best_guess(model, canvas, "contact", loops) for loops in (1, 2, 3)]
    changes = [((b - a) ** 2).flatten(1).mean(1).tolist() for a, b in pairwise(said)]
    metrics = MEASURES["stopping"](found)
    for threshold in (0.1, 0.01, 0.001, 0.0001):
        loops, errors = 0, 0.0
        for i in range(12):
            stop = next((k for k in (1, 2) if changes[k - 1][i] < threshold), 2)
            loops += stop + 1
            errors += float(((said[stop][i] - truth[i]) ** 2).mean())
        assert metrics[f"stop_loops_{threshold}"] == pytest.approx(loops / 12)
        assert metrics[f"stop_error_{threshold}"] == pytest.approx(errors / 12, rel=1e-4)
