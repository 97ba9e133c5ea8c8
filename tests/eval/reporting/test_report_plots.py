"""Which plots there are, and that each compares one thing alone."""

from typing import Any

import pytest
from tests.eval.report_rows import expert_row, report_row

from loopdit.eval.reporting.report_plots import choices, figures, forests, frontier_figure
from loopdit.eval.reporting.report_rows import Group, completed, grouped


def group_of(*rows: dict[str, Any]) -> Group:
    return grouped([completed(row) for row in rows])[0][0]


DELAYED = group_of(
    *(
        report_row(outcomes, loops=loops, delay=delay)
        for loops, delay, outcomes in [
            (1, "0", "ssff"),
            (4, "0", "ssss"),
            (1, "2", "sfff"),
            (4, "2", "ffff"),
        ]
    )
)


def test_one_condition_has_nothing_to_plot():
    group = group_of(report_row("ssf"))
    assert figures([group], []) == []
    assert forests(group) == []
    assert choices(group) == []
    assert frontier_figure(group) == ""


@pytest.mark.parametrize(
    ("axis", "first", "second", "title"),
    [
        ("steps", 5, 10, "Success by steps"),
        ("delay", "0", "3", "Success by delay"),
        ("execution", "aligned", "naive", "Success by execution"),
        ("execute_horizon", 4, 8, "Success by executed"),
        ("rate_hz", 5.0, 10.0, "Success by rate, Hz"),
    ],
)
def test_an_axis_of_several_values_has_its_plot(axis: str, first: Any, second: Any, title: str):
    group = group_of(report_row("ssf", **{axis: first}), report_row("sff", **{axis: second}))
    assert title in [figure.title for figure in figures([group], [])]


def test_depths_are_lines_over_the_delay_and_the_expert_is_beside_them():
    experts = [completed(expert_row("ssss", delay=delay)) for delay in ("0", "2")]
    by_delay = figures([DELAYED], experts)[-1]
    assert by_delay.legend == [("series-0", "K=1"), ("series-1", "K=4"), ("control", "expert")]
    assert by_delay.svg.count('class="interval"') == 6


def test_what_else_was_varied_stays_at_its_reference_and_is_named():
    group = group_of(
        *(
            report_row("sf", delay=delay, fault=fault)
            for delay in ("0", "2")
            for fault in ("none", "black")
        ),
        report_row("ss", loops=2),
    )
    latency, by_delay = figures([group], [])
    assert latency.svg.count("<circle") == 2
    assert "Here: delay=0." in latency.caption
    assert by_delay.svg.count("<circle") == 3  # K=1 at two delays, K=2 at one; no black frames


def test_ways_of_execution_are_compared_under_delay():
    group = group_of(
        *(
            report_row("sf", execution=execution, delay=delay)
            for execution in ("aligned", "naive")
            for delay in ("0", "2")
        )
    )
    (by_delay,) = figures([group], [])
    names = [name for _, name in by_delay.legend]
    assert names == ["execution=aligned", "execution=naive"]


def test_robustness_is_told_beside_the_undisturbed_condition():
    group = group_of(
        *(
            report_row("sfff" if fault == "black" else "ssss", variation=variation, fault=fault)
            for variation in ("none", "lights")
            for fault in ("none", "black")
        )
    )
    by_variation, by_fault, together = forests(group)
    assert [name for name, _ in by_variation.bars] == ["none", "lights"]
    assert [(name, row["successes"]) for name, row in by_fault.bars] == [("none", 4), ("black", 1)]
    assert [name for name, _ in together.bars] == ["lights, black"]
    assert by_fault.nominal["fault"] == by_fault.nominal["variation"] == "none"


def test_working_points_name_the_best_at_each_total_latency_and_whom_it_does_not_beat():
    first, second = choices(DELAYED)
    assert (first.total_ms, first.name, first.row["successes"]) == (0, "K=4", 4)
    assert (second.total_ms, second.name) == (200, "K=1")
    assert second.others == ["K=4"]
    assert frontier_figure(DELAYED).count('class="interval"') == 2


def test_of_equals_the_least_compute_is_the_working_point():
    rows = [report_row("ss", loops=k, delay=d) for k in (4, 2) for d in ("0", "uniform:1-3")]
    assert [(c.total_ms, c.name) for c in choices(group_of(*rows))] == [(0, "K=2"), (200, "K=2")]
