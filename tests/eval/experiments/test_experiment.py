"""Declarations: what the files have, and what is refused of them."""

import pytest
from tests.eval.experiments.tiny import TINY, tiny

from loopdit.errors import ConfigError
from loopdit.eval.experiments.experiment import SCALES, experiments, merged, named, read
from loopdit.eval.experiments.plan import runs_of


def test_every_number_of_the_papers_table_is_declared_once_and_23_as_missing():
    numbers = [e.number for e in experiments().values() if e.number is not None]
    assert set(range(1, 26)) <= set(numbers)
    assert len(numbers) == len(set(numbers))
    assert [e.number for e in experiments().values() if e.missing] == [23]


@pytest.mark.parametrize("name", experiments())
def test_every_declared_cell_resolves_at_every_scale(name: str):
    experiment = experiments()[name]
    for scale in () if experiment.missing else SCALES:
        runs = list(runs_of(experiment, scale, seeds=1))
        assert len({run.config_hash for run in runs}) == len(runs) == len(list(experiment.cells()))
        assert len({run.cell for run in runs}) == len(runs)


@pytest.mark.parametrize("number", [6, 12, 15, 16, 18, 22, 24, 25])
def test_the_experiments_that_matter_most_have_five_seeds_on_a_cpu(number: int):
    assert named(str(number)).scales["cpu"].seeds >= 5


@pytest.mark.parametrize("scale", SCALES)
def test_the_looped_model_of_moving_shapes_is_trained_once_for_all_that_are_about_it(scale: str):
    """Their measures and looks are the same, so that their hashes are."""
    cells = {
        "1": {"loops": "4"},
        "5": {"size": "medium", "loops": "4"},
        "6": {"system": "3b4l"},
        "10": {},
        "11": {"loops": "4"},
        "12": {},
        "13": {"loops": "4"},
        "14": {},
        "15": {"system": "3b4l"},
        "16": {"weights": "shared"},
        "17": {"loops": "4"},
    }
    if scale != "paper":  # of 5,000 steps there
        cells["7"] = {"schedule": "fixed_4"}
    hashes = {
        run.config_hash
        for number, cell in cells.items()
        for run in runs_of(named(number), scale, seeds=1)
        if run.factors == cell
    }
    assert len(hashes) == 1


def test_an_experiment_is_found_by_name_number_and_short_name():
    assert named("6") is named("06_depth_vs_recurrence") is named("depth_vs_recurrence")


def test_an_unknown_experiment_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="Did you mean depth_vs_recurrence"):
        named("depth_vs_recurence")


def test_levels_win_over_the_scale_and_the_scale_over_the_rest():
    assert merged({"a": 1, "m": {"x": 1, "y": 1}}, {"m": {"y": 2}}, {"a": 3}) == {
        "a": 3,
        "m": {"x": 1, "y": 2},
    }
    options = tiny().cell_options({"pairs": "two"}, "cpu")
    assert (options["task"], options["steps"]) == ("context_2", 30)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ("analisys: []", "unknown field 'analisys'. Did you mean analysis"),
        ("better: more", "better=more must be lower or higher"),
        ("factors: {pairs: 3}", "factor 'pairs' must list its levels"),
        ("scales: {smoke: {seeds: 1}}", "scales must be smoke, cpu, paper"),
        ("scales: {smoke: {seeds: 0}, cpu: {seeds: 1}, paper: {seeds: 1}}", "seeds=0"),
        ("learned: [{metrics: loss, chance: constant}]", "learned must list {metric, chance}"),
        ("learned: [{metric: loss}]", "learned loss needs chance or above, and not both"),
        ("learned: [{metric: a, chance: b, better: more}]", "learned.better=more must be lower"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_bad_field_is_refused_with_the_file_and_what_is_wrong(changed: str, said: str):
    with pytest.raises(ConfigError, match=r"configs/experiment/tiny\.yaml") as refused:
        tiny(changed)
    assert said in str(refused.value)


def test_a_field_that_is_lacking_is_named():
    with pytest.raises(ConfigError, match="lacks the field 'metric'"):
        read("tiny", TINY.replace("metric: guess_error\n", ""))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ("options: {stepps: 3}", "stepps"),
        ("options: {model: {width: wide}}", "width"),
        ("options: {measures: [gess]}", "gess"),
        ("options: {task: contact}\nfactors: {}", "Did you mean contacts"),
        ("study: canvass", "Did you mean canvas"),
    ],
)
def test_an_option_that_the_study_has_not_is_refused_before_anything_runs(changed: str, said: str):
    with pytest.raises(ConfigError) as refused:
        list(runs_of(tiny(changed), "smoke"))
    assert said in str(refused.value)
