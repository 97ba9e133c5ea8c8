from pathlib import Path
from typing import Any

import pytest

from loopdit.errors import ConfigError
from loopdit.eval.runs.journal import FORMAT, JournalWriter
from loopdit.eval.runs.resuming import alone, decide, move_aside


def write(folder: Path, *records: dict[str, Any]) -> None:
    with JournalWriter(folder) as journal:
        for record in records:
            journal.append(record)


def run(digest: str) -> dict[str, Any]:
    return {"kind": "run", "format": FORMAT, "format_version": 1, "run": digest}


def rollout(digest: str) -> dict[str, Any]:
    return {"kind": "rollout", "run": digest}


def end(digest: str) -> dict[str, Any]:
    return {"kind": "end", "run": digest}


@pytest.mark.parametrize(
    ("records", "append", "goes_on", "moves"),
    [
        ([], False, False, False),
        ([run("a"), rollout("a")], False, True, False),
        ([run("a"), rollout("a")], True, True, False),
        # Finished, or another plan: begun anew, beside or instead of what is there.
        ([run("a"), rollout("a"), end("a")], False, False, True),
        ([run("a"), rollout("a"), end("a")], True, False, False),
        ([run("b"), rollout("b")], False, False, True),
        ([run("b"), rollout("b")], True, False, False),
        # An added one that was stopped goes on only where its predecessors are meant to stay.
        ([run("b"), end("b"), run("a"), rollout("a")], True, True, False),
        ([run("b"), end("b"), run("a"), rollout("a")], False, False, True),
    ],
)
def test_a_stopped_run_of_the_same_plan_goes_on_and_nothing_else_does(
    records: list[dict[str, Any]], append: bool, goes_on: bool, moves: bool, tmp_path: Path
):
    if records:
        write(tmp_path, *records)
    decision = decide(tmp_path, "a", append)
    assert (decision.going_on is not None, decision.move) == (goes_on, moves)
    if decision.going_on is not None:
        assert decision.going_on.rollouts == [rollout("a")]


def test_earlier_results_are_moved_and_not_deleted(tmp_path: Path):
    write(tmp_path, run("a"))
    (tmp_path / "videos").mkdir()
    for name in ("eval.json", "report.html", "videos/a.mp4", "mine.txt"):
        (tmp_path / name).write_text(name)
    first = move_aside(tmp_path, clock=lambda: 0.0)
    assert first == tmp_path / "earlier-19700101T000000Z"
    assert first is not None
    assert (first / "videos" / "a.mp4").read_text() == "videos/a.mp4"
    assert sorted(path.name for path in tmp_path.iterdir()) == [first.name, "mine.txt"]
    assert move_aside(tmp_path, clock=lambda: 0.0) is None
    (tmp_path / "eval.json").write_text("later")
    second = move_aside(tmp_path, clock=lambda: 0.0)
    assert second is not None
    assert (second / "eval.json").read_text() == "later"
    assert (first / "eval.json").read_text() == "eval.json"


def test_videos_without_results_are_somebody_elses_and_stay(tmp_path: Path):
    (tmp_path / "videos").mkdir()
    assert not decide(tmp_path, "a", append=False).move
    (tmp_path / "eval.json").write_text("{}")
    assert decide(tmp_path, "a", append=False).move


def test_two_evaluations_do_not_write_to_one_folder(tmp_path: Path):
    with (
        alone(tmp_path),
        pytest.raises(ConfigError, match="another policy-eval is writing to out="),
        alone(tmp_path),
    ):
        pass
    with alone(tmp_path):
        pass
