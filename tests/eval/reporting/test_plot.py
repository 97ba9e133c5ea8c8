import re
from itertools import pairwise

import pytest

from loopdit.eval.reporting.plot import (
    Point,
    Series,
    WorkingPoint,
    frontier,
    success_against_latency,
    success_by_value,
)
from loopdit.eval.reporting.svg import Frame, Labels, scale


def dots(svg: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r'<circle cx="(.*?)" cy="(.*?)"', svg)]


def texts(svg: str) -> dict[str, tuple[float, float]]:
    found = re.findall(r'<text x="(.*?)" y="(.*?)" text-anchor="\w+">(.*?)<', svg)
    return {text: (float(x), float(y)) for x, y, text in found}


def intervals(svg: str) -> list[list[float]]:
    found = re.findall(r'class="interval" x1="(.*?)" y1="(.*?)" x2="(.*?)" y2="(.*?)"', svg)
    return [[float(value) for value in one] for one in found]


def test_points_of_the_plot_lie_where_their_numbers_say():
    points = [Point("K=1", 0.0, 0.0, 0.5, 0.0, 5.0), Point("K=2", 1.0, 0.5, 1.0, 10.0, 10.0)]
    svg = success_against_latency([points])
    (x1, y1), (x2, y2) = dots(svg)
    ticks = texts(svg)
    assert x1 == ticks["0"][0]
    assert x2 == ticks["10"][0]
    assert y1 - y2 == pytest.approx(ticks["0%"][1] - ticks["100%"][1])
    assert intervals(svg)[0] == pytest.approx([x1, y1, x1, (y1 + y2) / 2])


def test_equal_series_are_drawn_side_by_side_at_their_value():
    points = [(0, 0.5, 0.25, 0.75), (1, 1.0, 0.75, 1.0)]
    svg = success_by_value(["0", "3"], [Series(points), Series(points)], "delay")
    first, second = dots(svg)[:2], dots(svg)[2:]
    ticks = texts(svg)
    for (x1, y1), (x2, y2), tick in zip(first, second, ("0", "3"), strict=True):
        assert y1 == y2
        assert 4 < x2 - x1 < 20
        assert (x1 + x2) / 2 == pytest.approx(ticks[tick][0], abs=0.11)
    assert first[0][1] - first[1][1] == pytest.approx((ticks["0%"][1] - ticks["100%"][1]) / 2)


def test_long_values_are_cut_so_that_they_do_not_meet():
    names = ["uniform:1-3", "normal:150:60", "recorded:a/long/path.json", "0", "1", "2"]
    svg = success_by_value(names, [Series([(0, 1.0, 0.5, 1.0)])], "delay")
    ticks = [text for text, (_, y) in texts(svg).items() if "%" not in text and y < 250]
    assert len(ticks) == 6
    assert max(map(len, ticks)) <= 7


def test_the_frontier_joins_and_names_only_what_is_best_at_its_latency():
    points = [
        WorkingPoint("K=1", 0.5, 0.3, 0.7, 0.0, False),
        WorkingPoint("K=3", 0.9, 0.7, 1.0, 0.0, True),
        WorkingPoint("K=2", 0.6, 0.4, 0.8, 200.0, True),
    ]
    svg = frontier(points)
    assert "K=1" not in texts(svg)
    assert {"K=3", "K=2"} <= texts(svg).keys()
    line = re.findall(r'<polyline class="trend" points="(.*?)"', svg)[0]
    grey, *best = dots(svg)
    assert line == " ".join(f"{x:.1f},{y:.1f}" for x, y in best)
    assert grey[0] == best[0][0]
    assert len(intervals(svg)) == 2


def test_labels_at_one_place_keep_apart_and_inside():
    frame = Frame()
    labels = Labels(frame)
    placed = [labels.place(frame.x(1), frame.y(1), frame.y(0.8), "K=1") for _ in range(4)]
    spots = [tuple(map(float, re.findall(r' [xy]="(.*?)"', text))) for text in placed]
    heights = sorted(y for _, y in spots)
    assert min(b - a for a, b in pairwise(heights)) >= 14
    assert all(x <= frame.width - 15 and 10 < y < frame.y(0) for x, y in spots)


@pytest.mark.parametrize(
    ("largest", "end", "count"), [(7.3, 8, 5), (0.02, 0.02, 5), (500, 500, 6), (0, 1, 2)]
)
def test_an_axis_ends_on_a_round_number_that_shows_everything(
    largest: float, end: float, count: int
):
    right, ticks = scale(largest)
    assert right == pytest.approx(end)
    assert len(ticks) == count
    assert ticks[0] == 0
    assert ticks[-1] == pytest.approx(right)
