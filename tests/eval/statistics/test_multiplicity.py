import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopdit.eval.statistics.multiplicity import holm

p_value_lists = st.lists(st.floats(0, 1), max_size=12)


def rejected_step_by_step(p_values: list[float], alpha: float) -> set[int]:
    """Holm's procedure as his paper words it: reject the smallest while p <= alpha / (how many are
    left)."""
    left = sorted(range(len(p_values)), key=lambda index: p_values[index])
    rejected: set[int] = set()
    while left and p_values[left[0]] * len(left) <= alpha:
        rejected.add(left.pop(0))
    return rejected


@given(p_value_lists, st.floats(0, 0.999))
def test_adjusted_p_values_reject_what_the_procedure_rejects(p_values: list[float], alpha: float):
    adjusted = holm(p_values)
    found = {index for index, p in enumerate(adjusted) if p <= alpha}
    assert found == rejected_step_by_step(p_values, alpha)


@given(p_value_lists)
def test_adjusting_keeps_the_order_and_lies_between_the_p_value_and_bonferronis(
    p_values: list[float],
):
    adjusted = holm(p_values)
    for p, q in zip(p_values, adjusted, strict=True):
        assert p <= q <= min(1, p * len(p_values))
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    assert [adjusted[index] for index in order] == sorted(adjusted)


def test_an_example_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([0.04]) == [0.04]


def test_what_is_no_p_value_is_refused():
    with pytest.raises(ValueError, match=r"1\.5"):
        holm([0.1, 1.5])
