"""What the command says, and what it refuses."""

import json
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from loopdit.eval.experiments.command import main


def say(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with patch.object(sys, "argv", ["policy-experiment", *arguments]):
        main()
    return capsys.readouterr().out


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with (
        pytest.raises(SystemExit) as ended,
        patch.object(sys, "argv", ["policy-experiment", *arguments]),
    ):
        main()
    said = capsys.readouterr().err
    return said or str(ended.value.code)


def test_the_list_has_number_name_claim_and_how_much_is_to_be_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    said = say(["list", f"out={tmp_path}"], capsys)
    assert "06_depth_vs_recurrence" in said
    assert "1.73x lower total loss" in said
    rows = json.loads(say(["list", f"out={tmp_path}", "json=true"], capsys))["experiments"]
    by_number = {row["number"]: row for row in rows}
    assert by_number[23]["missing"]
    cpu = by_number[6]["scales"]["cpu"]
    assert (by_number[6]["cells"], cpu["seeds"], cpu["runs"], cpu["done"]) == (4, 5, 20, 0)


def test_a_run_is_said_and_then_listed_as_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["run", "context", f"out={tmp_path}", "workers=1"]
    assert "Did you mean in_context" in refusal(words, capsys)
    words[1] = "in_context"
    assert "4 run, 0 found, 0 failed" in say(words, capsys)
    assert "0 run, 4 found, 0 failed" in say(words, capsys)
    rows = json.loads(say(["list", f"out={tmp_path}", "json=true"], capsys))["experiments"]
    done = {row["name"]: row["scales"]["smoke"]["done"] for row in rows if row["scales"]}
    assert done.pop("20_in_context") == 4
    assert set(done.values()) == {0}


def test_failed_runs_end_the_command_with_their_reasons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = [
        "run",
        "20",
        f"out={tmp_path}",
        "workers=1",
        "options={learning_rate: 1e30, steps: 30}",
    ]
    said = refusal(words, capsys)
    assert "4 runs failed" in said
    assert said.count("the loss of step 21 is nan") == 1
    assert "20_in_context 0 seed 0 and 3 others: the loss of step 21 is nan" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["runn"], "Did you mean run?"),
        (["run", "23"], "missing in the paper"),
        (["run", "6", "scale=small"], "scale=small is unknown"),
        (["run", "6", "options=3"], "must be written options='{name: value}'"),
        (["run", "all", "options={steps: 3}"], "name the experiment, not all"),
        (["run", "6", "device=tpu"], "Use auto, cpu or cuda"),
        (["run", "6", "workers=-1"], "workers=-1 must be 0 or more"),
        (["run", "6", "launcher=slurm"], "launcher=slurm is unknown"),
        (["run"], "name has no default"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = [f"out={tmp_path}"] if words[0] == "run" else []
    refused = refusal([*words, *out], capsys)
    assert said in refused
    assert refused.strip().count("\n") == 0
