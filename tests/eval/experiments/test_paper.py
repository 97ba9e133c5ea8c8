from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.power import TTestIndPower
from torch import nn

import loopdit
from loopdit.eval.experiments.paper.check import Check, number, printed
from loopdit.eval.experiments.paper.counts import trainable
from loopdit.eval.experiments.paper.grid import grid_tables, largest_d
from loopdit.eval.experiments.paper.recompute import paper_checks, paper_tables
from loopdit.eval.experiments.paper.rounding import Printed, reach


@pytest.fixture(scope="module")
def checks() -> dict[str, Check]:
    return {check.id: check for check in paper_checks()}


def grid_values(table: str, leaving_out: str = "") -> pd.DataFrame:
    """Three values with each cell's printed mean and standard deviation: m - s, m, m + s."""
    section = printed()["exp26"]
    rows = [
        {"loops": loops, "freeze": freeze, "y": float(mean) + sign * float(std)}
        for loops, means, stds in zip(
            section["loops"], section[table]["mean"], section[table]["std"], strict=True
        )
        for freeze, mean, std in zip(section["freeze"], means, stds, strict=True)
        for sign in (-1, 0, 1)
    ]
    return pd.DataFrame([row for row in rows if row["freeze"] != leaving_out])


def test_the_anova_of_table_3_is_the_one_that_statsmodels_makes_of_such_values():
    known = anova_lm(ols("y ~ C(loops) * C(freeze)", grid_values("action")).fit(), typ=2)
    found = grid_tables()["anova"]
    for name, row in (
        ("loops", "C(loops)"),
        ("freeze", "C(freeze)"),
        ("interaction", "C(loops):C(freeze)"),
    ):
        assert found[name]["F"] == pytest.approx(known.loc[row, "F"])
        assert found[name]["p"] == pytest.approx(known.loc[row, "PR(>F)"])
    residual = known.loc["Residual", "sum_sq"] / known["sum_sq"].sum()
    assert found["error"]["eta2"] == pytest.approx(residual)


def test_what_was_computed_of_table_3_before_is_found_again():
    found = grid_tables()
    effects = [found["anova"][name]["F"] for name in ("loops", "freeze", "interaction")]
    assert effects == pytest.approx([1.615, 0.337, 0.477], abs=5e-4)
    assert found["anova"]["error"]["eta2"] == pytest.approx(0.741, abs=5e-4)
    assert found["cohen_d"]["value"] == pytest.approx(2.75, abs=5e-3)
    pairs = [found["pairwise"][f"3 v {level}"]["p"] for level in "142"]
    assert pairs == pytest.approx([0.16, 0.079, 0.063], abs=5e-3)
    known = [
        TTestIndPower().power(0.7, 3, 0.05, alternative=alternative)
        for alternative in ("larger", "two-sided")
    ]
    power = found["power"]
    assert [power["one_sided"], power["two_sided"]] == pytest.approx(known)
    assert power["two_sided"] == pytest.approx(0.103, abs=5e-4)
    assert power["n_needed"] == 34  # 33 reach 79.97 %


def test_the_diffusion_anova_of_what_is_not_frozen_is_that_of_statsmodels():
    values = grid_values("diffusion", leaving_out="frozen")
    known = anova_lm(ols("y ~ C(loops) * C(freeze)", values).fit(), typ=2)
    found = grid_tables()["anova_diffusion_not_frozen"]["loops"]
    assert found["p"] == pytest.approx(known.loc["C(loops)", "PR(>F)"])
    assert found["p"] < 0.05


def test_the_largest_d_is_the_one_that_the_paper_names():
    assert set(largest_d()[:2]) == {("2", "frozen"), ("3", "frozen")}


def test_what_does_not_add_up_is_flagged_and_nothing_else(checks: dict[str, Check]):
    numbers = {name for name, check in checks.items() if check.kind == "number" and not check.holds}
    assert numbers == {
        "runs.total",
        "runs.experiments",
        "parameters.action_head",
        "parameters.unfrozen_most_in_table",
        "exp21.effect",
        "exp25.total_ratio",
        "exp26.diffusion_frozen",
        "exp26.diffusion_unfrozen",
        "exp26.diffusion_half_gap",
    }
    claims = {name for name, check in checks.items() if check.kind == "claim" and not check.holds}
    assert claims == {
        "parameters.unfrozen_by_frozen",
        "exp2.inverted",
        "exp6.variance",
        "exp12.contraction",
        "exp16.shared_wins",
        "exp21.t_below",
        "exp22.dead_null",
        "exp22.loops_p",
        "exp25.pairs",
        "exp26.at_every_freeze_level",
        "exp26.better_than_nothing",
        "exp26.diffusion_gap",
        "exp26.large_effects",
        "exp26.power",
        "exp26.seeds.F_freeze_3loop.differ",
        "exp26.three_is_optimal",
        "exp26.three_is_optimal_for_diffusion",
    }


def test_the_page_on_the_report_says_how_many_fail():
    page = Path(loopdit.__file__).parents[2] / "docs/experiment_report.md"
    failed = sum(not check.holds for check in paper_checks())
    assert f"{len(paper_checks())} of them, of which {failed} fail" in page.read_text()


def test_every_check_has_a_name_of_its_own_and_says_why_it_fails():
    found = paper_checks()
    assert max(Counter(check.id for check in found).values()) == 1
    for check in found:
        assert bool(check.says) == (not check.holds), check.id
        assert check.low <= check.recomputed <= check.high


def test_the_spread_of_experiment_21_makes_a_t_above_the_bound_it_names(checks: dict[str, Check]):
    t = (3.87 - 3.75) / ((0.07**2 + 0.10**2) / 5) ** 0.5
    assert checks["exp21.t_below"].recomputed == pytest.approx(t)
    assert t > number("exp21.t_bound").value
    # Were they standard errors, it would hold.
    assert (3.87 - 3.75) / (0.07**2 + 0.10**2) ** 0.5 < 1.5


def test_five_seeds_do_not_show_a_threefold_standard_deviation(checks: dict[str, Check]):
    p = 2 * stats.f.sf((1.45e-3 / 4.8e-4) ** 2, 4, 4)
    assert checks["exp6.variance"].recomputed == pytest.approx(p)
    assert p > 0.05


def test_trainable_parameters_are_those_of_the_real_modules():
    assert [trainable(loops, "frozen") for loops in range(1, 5)] == [
        119_269,
        234_499,
        349_729,
        464_959,
    ]
    layers = nn.Sequential(nn.Linear(16, 8), nn.GELU(), nn.Linear(8, 7))
    head = sum(parameter.numel() for parameter in layers.parameters())
    assert paper_tables()["parameters"]["action_head"] == head == 199


def test_the_runs_of_table_4_add_up_to_208():
    assert paper_tables()["runs"]["sum_of_table_4"] == 208
    assert 23 not in printed()["runs"]["by_experiment"]["value"]


@pytest.mark.parametrize(
    ("text", "low", "high"), [("0.121", 0.1205, 0.1215), ("33", 32.5, 33.5), ("-1.0", -1.05, -0.95)]
)
def test_a_printed_number_stands_for_all_that_are_rounded_to_it(text: str, low: float, high: float):
    found = Printed.of(text)
    assert (found.value - found.half, found.value + found.half) == pytest.approx((low, high))
    assert found.may_be(high, high + 1)
    assert not found.may_be(high + 0.001, high + 1)


@given(st.lists(st.integers(1, 999), min_size=2, max_size=5))
def test_within_rounding_a_function_reaches_its_extremes_at_corners(thousandths: list[int]):
    inputs = [Printed.of(f"{value / 1000:.3f}") for value in thousandths]
    corners = np.array(np.meshgrid(*[[p.value - p.half, p.value + p.half] for p in inputs]))
    corners = corners.reshape(len(inputs), -1)

    def function(values: np.ndarray) -> float:
        return float(values[0] / values[-1] - values.mean())

    found = reach(function, inputs)
    at_corners = [function(corner) for corner in corners.T]
    assert found.low == pytest.approx(min(at_corners))
    assert found.high == pytest.approx(max(at_corners))
