import json
from pathlib import Path
from typing import Any

import pytest

from loopdit.errors import ConfigError
from loopdit.eval.control import control_record
from loopdit.eval.results import load_results, result_row, save_results
from loopdit.eval.rollout import Rollout
from loopdit.eval.success import wilson_interval


def rollouts(outcomes: str, first_seed: int = 1_000_000) -> list[Rollout]:
    """One rollout for each letter: s success, f failure, u unstable."""
    return [
        Rollout(
            seed=first_seed + index,
            success=outcome == "s",
            unstable=outcome == "u",
            steps=2,
            latencies_s=(0.010 * (index + 1),),
            control=control_record([0.010 * (index + 1), 0.0], 0.1),
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
    assert (found["unstable"], found["clock"], found["seeds"]) == (1, "paused", [1000000, 1000003])
    assert found["control"]["ticks"] == 8
    assert [r["success"] for r in found["rollouts"]] == [True, True, False, False]


def test_results_come_back_from_the_file_with_machine_versions_seeds_and_bundle(tmp_path: Path):
    saved = save_results(tmp_path / "new", [row("sf")], append=False)
    assert load_results(tmp_path / "new") == json.loads(json.dumps(saved))
    assert saved["seeds"] == [1_000_000, 1_000_001]
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
