"""What is left of a run, in time: by the same cell, else the same experiment, else all."""

import pytest
from tests.eval.experiments.tiny import tiny

from loopdit.eval.experiments.experiment import named
from loopdit.eval.experiments.plan import runs_of
from loopdit.eval.experiments.remaining import Durations, about


def test_a_run_is_expected_to_last_as_its_cell_did_else_its_experiment_else_all():
    durations = Durations()
    runs = list(runs_of(tiny(), "cpu"))  # three seeds of two cells
    other = next(runs_of(named("6"), "cpu"))
    assert durations.left(runs) is None
    durations.note(runs[0], 10.0)
    assert durations.expected(other) == durations.expected(runs[1]) == 10.0
    durations.note(runs[1], 30.0)
    durations.note(other, 500.0)
    assert [durations.expected(run) for run in runs[2:4]] == [10.0, 30.0]
    assert durations.left(runs[2:]) == pytest.approx(10 + 30 + 10 + 30)


def test_runs_that_have_all_in_common_are_counted_once():
    durations = Durations()
    run = next(runs_of(tiny(), "cpu"))
    durations.note(run, 10.0)
    assert durations.left([run, run]) == 10.0


@pytest.mark.parametrize(
    ("seconds", "said"), [(12_240, "3.4 hours"), (725, "12 minutes"), (40.2, "40 seconds")]
)
def test_a_time_is_told_in_its_own_unit(seconds: float, said: str):
    assert about(seconds) == said
