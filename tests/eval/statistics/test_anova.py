import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.oneway import confint_noncentrality

from loopdit.eval.statistics.anova import level_difference, two_way
from loopdit.eval.statistics.t_test import Summary, paired

# Breaks of yarn by wool and tension (Tippett 1950; R's `warpbreaks`).
WARPBREAKS = {
    ("A", "L"): [26, 30, 54, 25, 70, 52, 51, 26, 67],
    ("A", "M"): [18, 21, 29, 17, 12, 18, 35, 30, 36],
    ("A", "H"): [36, 21, 24, 18, 10, 43, 28, 15, 26],
    ("B", "L"): [27, 14, 29, 19, 29, 31, 41, 20, 44],
    ("B", "M"): [42, 26, 19, 16, 39, 28, 21, 39, 29],
    ("B", "H"): [20, 21, 24, 17, 13, 15, 15, 16, 28],
}


def summaries(values: dict[tuple[str, str], list[float]]) -> dict[tuple[str, str], Summary]:
    return {key: Summary.of(cell) for key, cell in values.items()}


def test_anova_gives_what_r_prints_of_warpbreaks():
    found = two_way(summaries({key: list(map(float, v)) for key, v in WARPBREAKS.items()}))
    effects = (found.a, found.b, found.interaction)
    assert [e.statistic for e in effects] == pytest.approx([3.7653, 8.4980, 4.1891], abs=5e-5)
    assert [e.p for e in effects] == pytest.approx([0.0582130, 0.0006926, 0.0210442], abs=5e-8)
    assert [e.ss for e in effects] == pytest.approx([450.67, 2034.26, 1002.78], abs=5e-3)
    assert found.ss_error == pytest.approx(5745.1, abs=0.05)


def unbalanced() -> dict[tuple[str, str], list[float]]:
    rng = np.random.default_rng(4)
    return {
        (a, b): list(rng.normal(i + 0.5 * j + 0.3 * i * j, 1 + 0.2 * j, 2 + (i + 2 * j) % 4))
        for i, a in enumerate("xyz")
        for j, b in enumerate("uv")
    }


def test_unequal_counts_agree_with_statsmodels_of_type_two():
    cells = unbalanced()
    rows = [(a, b, y) for (a, b), cell in cells.items() for y in cell]
    frame = pd.DataFrame(rows, columns=["a", "b", "y"])
    known = anova_lm(ols("y ~ C(a) * C(b)", frame).fit(), typ=2)
    found = two_way(summaries(cells))
    for effect, row in zip(
        (found.a, found.b, found.interaction), ("C(a)", "C(b)", "C(a):C(b)"), strict=True
    ):
        assert effect.statistic == pytest.approx(known.loc[row, "F"])
        assert effect.p == pytest.approx(known.loc[row, "PR(>F)"])
        assert effect.df == known.loc[row, "df"]
    assert found.ss_error == pytest.approx(known.loc["Residual", "sum_sq"])


def test_effect_sizes_are_shares_of_the_sums_of_squares():
    found = two_way(summaries({key: list(map(float, v)) for key, v in WARPBREAKS.items()}))
    shares = [e.eta2 for e in (found.a, found.b, found.interaction)]
    assert sum(shares) + found.error_eta2 == pytest.approx(1)
    total = 450.67 + 2034.26 + 1002.78 + 5745.1
    ms_error = 5745.1 / 48
    assert found.b.eta2 == pytest.approx(2034.26 / total, rel=1e-4)
    assert found.b.partial_eta2 == pytest.approx(2034.26 / (2034.26 + 5745.1), rel=1e-4)
    omega2 = (2034.26 - 2 * ms_error) / (total + ms_error)
    assert found.b.omega2 == pytest.approx(omega2, rel=1e-4)


def test_the_interval_of_f2_agrees_with_statsmodels():
    found = two_way(summaries({key: list(map(float, v)) for key, v in WARPBREAKS.items()})).b
    known = confint_noncentrality(found.statistic, (found.df, found.df_error), alpha=0.10)
    assert found.f2_interval() == pytest.approx(np.array(known) / found.n, rel=1e-3)


def test_the_interval_of_f2_leaves_zero_exactly_when_p_is_below_5_percent():
    found = two_way(summaries({key: list(map(float, v)) for key, v in WARPBREAKS.items()}))
    assert found.a.p > 0.05
    assert found.a.f2_interval()[0] == 0
    assert found.b.p < 0.05 < found.b.f2_interval()[0]
    assert found.b.p_above(0) == pytest.approx(found.b.p)
    assert found.b.p_below(found.b.f2_interval()[1]) == pytest.approx(0.05, abs=1e-6)


def test_with_one_pair_of_levels_everywhere_alike_the_pairwise_test_is_fishers():
    cells = summaries({key: list(map(float, v)) for key, v in WARPBREAKS.items()})
    found = level_difference(cells, "A", "B")
    # Two levels: t^2 is F of the factor, in a balanced design.
    assert found.t() ** 2 == pytest.approx(two_way(cells).a.statistic)
    assert found.value == pytest.approx(31.037 - 25.259, abs=2e-3)


def test_two_by_two_interaction_is_the_t_test_of_the_difference_of_differences():
    rng = np.random.default_rng(5)
    cells = {(a, b): rng.normal(size=6) for a in "xy" for b in "uv"}
    found = two_way({key: Summary.of(v) for key, v in cells.items()})
    difference = (cells["x", "u"].mean() - cells["x", "v"].mean() - cells["y", "u"].mean()) + cells[
        "y", "v"
    ].mean()
    ms_error = np.mean([np.var(v, ddof=1) for v in cells.values()])
    t = difference / np.sqrt(4 * ms_error / 6)
    assert found.interaction.statistic == pytest.approx(t**2)
    assert found.interaction.p == pytest.approx(2 * stats.t.sf(abs(t), 20))
    assert paired(cells["x", "u"], cells["x", "v"]).df == 5


def test_a_missing_combination_is_named():
    cells = summaries(unbalanced())
    del cells["y", "v"]
    with pytest.raises(ValueError, match=r"\('y', 'v'\)"):
        two_way(cells)


def test_one_level_is_no_factor():
    with pytest.raises(ValueError, match="a second level"):
        two_way({("x", "u"): Summary(1, 1, 3), ("x", "v"): Summary(2, 1, 3)})


def test_cells_without_spread_are_refused():
    cells = {(a, b): Summary(1.0, 0.0, 3) for a in "xy" for b in "uv"}
    with pytest.raises(ValueError, match="nothing varies"):
        two_way(cells)
