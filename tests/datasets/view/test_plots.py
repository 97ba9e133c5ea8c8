import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from loopdit.datasets.view.plots import HEIGHT, LEFT, RIGHT, WIDTH, element_plot

FINITE = st.floats(-1e6, 1e6, width=32)


def line(svg: str) -> np.ndarray:
    """The points (N, 2) of the drawn line."""
    found = re.search(r'<polyline class="line" points="([^"]*)"', svg)
    assert found
    return np.array([pair.split(",") for pair in found[1].split()], float)


@given(arrays(np.float64, st.integers(2, 2000), elements=FINITE))
def test_the_line_stays_in_its_frame_and_rises_where_the_values_do(values: np.ndarray):
    points = line(element_plot(values, 0.1, (), "x"))
    assert points[0, 0] == LEFT
    assert points[-1, 0] == WIDTH - RIGHT
    assert (np.diff(points[:, 0]) >= 0).all()
    assert ((points[:, 1] >= 0) & (points[:, 1] <= HEIGHT)).all()
    if len(values) <= 320:  # every step is drawn
        assert len(points) == len(values)
        rises = np.diff(values) > 1e-2 * np.ptp(values)  # by more than a tenth of a pixel
        assert (np.diff(points[:, 1])[rises] <= 0).all()


@pytest.mark.parametrize(
    ("size", "limits"), [(1e-15, (-0.25, 0.25)), (1e-8, (-1.0, 1.0)), (3e-11, (0.0, 0.01))]
)
def test_rounding_errors_are_drawn_as_no_movement(size: float, limits: tuple[float, float]):
    values = np.random.default_rng(0).normal(0, size / 4, 50)
    drawn = line(element_plot(values, 0.1, limits, "x"))
    assert np.ptp(drawn[:, 1]) < 1


def test_the_ends_of_an_axis_are_written_so_that_they_differ():
    svg = element_plot(np.array([-1, -0.9999]), 0.1, (), "x")
    high, low = re.findall(r'text-anchor="end">([-0-9.]+)</text>', svg)[:2]
    assert float(low) < float(high)


def test_no_peak_of_a_long_episode_is_lost():
    values = np.zeros(100_000)
    values[77_777] = 5.0
    points = line(element_plot(values, 0.1, (), "x"))
    assert len(points) <= 320 + 2
    peak = points[points[:, 1].argmin()]
    assert peak[0] == pytest.approx(LEFT + (WIDTH - LEFT - RIGHT) * 77_777 / 99_999, abs=0.06)


def test_limits_are_drawn_where_they_are_near_and_never_flatten_the_line():
    values = np.linspace(-0.9, 0.9, 20)
    assert element_plot(values, 0.1, (-1.0, 1.0), "x").count('class="limit"') == 2
    assert element_plot(values / 100, 0.1, (-1.0, 1.0), "x").count('class="limit"') == 0
    near, far = (line(element_plot(values / 100, 0.1, limits, "x")) for limits in ((), (-1, 1)))
    np.testing.assert_array_equal(near, far)


@pytest.mark.parametrize("values", [[3.0], [3.0, 3.0, 3.0], [0.0, 0.0]])
def test_one_step_and_a_value_that_never_changes_can_be_drawn(values: list[float]):
    svg = element_plot(np.array(values), 0.1, (), "x")
    assert 'class="line"' in svg
    assert "nan" not in svg


def test_words_from_the_data_cannot_become_markup():
    assert "<b>" not in element_plot(np.zeros(3), 0.1, (), 'x"><b>')
