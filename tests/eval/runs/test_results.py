import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loopdit.errors import ConfigError
from loopdit.eval.rollouts.control import control_record
from loopdit.eval.rollouts.rollout import FAILURE, SUCCESS, UNSTABLE, Rollout
from loopdit.eval.runs.results import load_results, result_row, save_results
from loopdit.eval.statistics.success import wilson_interval

_OUTCOMES = {"s": SUCCESS, "f": FAILURE, "u": UNSTABLE}


def rollouts(outcomes: str, first_seed: int = 900_000) -> list[Rollout]:
    """One rollout for each letter: s success, f failure, u unstable, e error."""
    return [
        Rollout.errored(first_seed + index, 0.1)
        if outcome == "e"
        else Rollout(
            seed=first_seed + index,
            outcome=_OUTCOMES[outcome],
            steps=2,
            stage="lifted" if outcome == "s" else "grasped",
            rejected=index % 2,
            missed=0,
            mean_loops=1.0 + index,
            latencies_s=(0.010 * (index + 1),),
            delays=(0,),
            jerk=0.5,
            control=control_record([0.010 * (index + 1), 0.0], 0.1),
            state_sha256=f"{index:064x}",
            actions=np.zeros((2, 7), np.float32),
        )
        for index, outcome in enumerate(outcomes)
    ]


def row(outcomes: str, **condition: Any) -> dict[str, Any]:
    full = {"env": "lift", "policy": "p", "label": "", "loops": 1, "steps": 10}
    full |= {"model_id": "abc", "command": "policy-eval policy=p"}
    return result_row(full | condition, rollouts(outcomes), period_s=0.1)


def test_a_row_has_what_outside_programs_rely_on():
    found = row("ssfu")
    assert (found["env"], found["policy"], found["loops"], found["steps"]) == ("lift", "p", 1, 10)
    assert (found["episodes"], found["successes"], found["success_rate"]) == (4, 2, 0.5)
    assert found["ci95"] == list(wilson_interval(2, 4))
    assert found["latency_ms"] == pytest.approx({"p50": 25.0, "p99": 39.7})
    assert (found["unstable"], found["clock"], found["seeds"]) == (1, "paused", [900000, 900003])
    assert found["control"]["ticks"] == 8
    assert [r["success"] for r in found["rollouts"]] == [True, True, False, False]


def test_a_row_says_how_far_attempts_came_how_fast_and_how_smoothly():
    found = row("sfsf", stages=("grasped", "lifted"))
    assert found["stages"] == {"grasped": 4, "lifted": 2}
    assert found["time_to_success_s"] == pytest.approx({"p25": 0.2, "p50": 0.2, "p75": 0.2})
    assert (found["jerk"], found["rejected"], found["missed"]) == (0.5, 2 / 8, 0.0)
    assert found["mean_loops"] == 2.5
    assert found["rollouts"][1] == {
        "seed": 900_001,
        "success": False,
        "steps": 2,
        "unstable": False,
        "outcome": "failure",
        "stage": "grasped",
        "state_sha256": f"{1:064x}",
    }


def test_errors_are_counted_apart_and_a_row_of_them_alone_has_no_latency():
    found = row("se")
    assert (found["errors"], found["unstable"], found["successes"]) == (1, 0, 1)
    assert row("ee")["latency_ms"] == {"p50": None, "p99": None}


def test_a_run_that_went_on_replaces_what_it_had_when_it_stopped(tmp_path: Path):
    save_results(tmp_path, [row("ff", loops=2, plan="b")], append=False)
    save_results(
        tmp_path, [row("s", loops=1, plan="a")], append=True, controls=[row("f", plan="a")]
    )
    save_results(tmp_path, [row("sss", loops=1, plan="a")], append=True)
    found = load_results(tmp_path)
    assert [(r["plan"], r["episodes"]) for r in found["results"]] == [("b", 2), ("a", 3)]
    assert found["plans"] == ["b", "a"]
    assert len(found["controls"]) == 1


def test_rows_under_different_conditions_do_not_replace_each_other(tmp_path: Path):
    save_results(tmp_path, [row("ff", delay="0")], append=False)
    save_results(tmp_path, [row("ff", delay="2"), row("ff", fault="frozen")], append=True)
    assert len(load_results(tmp_path)["results"]) == 3
    save_results(tmp_path, [row("ss", delay="2")], append=True)
    kept = load_results(tmp_path)["results"]
    assert [(r["delay"], r["fault"], r["successes"]) for r in kept] == [
        ("0", "none", 0),
        ("0", "frozen", 0),
        ("2", "none", 2),
    ]


def test_results_come_back_from_the_file_with_machine_versions_seeds_and_bundle(tmp_path: Path):
    saved = save_results(tmp_path / "new", [row("sf")], append=False)
    assert load_results(tmp_path / "new") == json.loads(json.dumps(saved))
    assert saved["seeds"] == [900_000, 900_001]
    assert saved["bundle"] == {"model_id": "abc"}
    assert {"cpu", "cores"} <= saved["machine"].keys()
    assert "numpy" in saved["versions"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["eval.json"]


def test_append_keeps_other_rows_and_replaces_the_one_that_was_measured_again(tmp_path: Path):
    save_results(tmp_path, [row("ff", loops=1), row("ff", loops=2)], append=False)
    save_results(tmp_path, [row("ss", loops=2), row("s", policy="expert", loops=None)], append=True)
    kept = load_results(tmp_path)["results"]
    found = {(r["policy"], r["loops"]): r["successes"] for r in kept}
    assert found == {("p", 1): 0, ("p", 2): 2, ("expert", None): 1}
    assert len(kept) == 3


def test_without_append_the_file_is_replaced(tmp_path: Path):
    save_results(tmp_path, [row("ff", loops=1)], append=False)
    save_results(tmp_path, [row("ff", loops=2)], append=False)
    assert [r["loops"] for r in load_results(tmp_path)["results"]] == [2]


@pytest.mark.parametrize("content", ['{"format": "loopdit-eval", "format_version": 9}', "{half"])
def test_a_file_of_another_kind_is_not_added_to(tmp_path: Path, content: str):
    (tmp_path / "eval.json").write_text(content)
    with pytest.raises(ConfigError, match="append=false to replace it"):
        save_results(tmp_path, [row("s")], append=True)
    assert (tmp_path / "eval.json").read_text() == content


@pytest.mark.parametrize("rows", [[{}], [1], {}])
def test_a_file_whose_rows_are_no_rows_is_refused(tmp_path: Path, rows: Any):
    saved = save_results(tmp_path, [row("s")], append=False)
    (tmp_path / "eval.json").write_text(json.dumps({**saved, "results": rows}))
    with pytest.raises(ConfigError, match="is not an evaluation's"):
        load_results(tmp_path)
