"""scripts/bench_graft.py, run as a script is: here on the CPU, all that it would do on a GPU."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

import loopdit

SCRIPT = Path(loopdit.__file__).parents[2] / "scripts" / "bench_graft.py"


def _measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> dict[str, Any]:
    monkeypatch.setattr("sys.argv", [str(SCRIPT), *arguments])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    return json.loads(capsys.readouterr().out)


def test_one_command_measures_passes_chunks_latents_and_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    file = tmp_path / "graft.json"
    given = ("size=tiny", "frames=[1]", "loops=[1,2]", "repetitions=1", f"out={file}")
    told = _measured(monkeypatch, capsys, *given)
    assert json.loads(file.read_text()) == told
    (found,) = told["clips"]
    one, two = found["loops"]
    # Of random weights: all products of a loop again, none of what is outside the blocks.
    assert 1.8 < two["work_tflop"] / one["work_tflop"] <= 2
    for row in (one, two):
        assert 0 < row["pass_ms"][1] < row["chunk_ms"][1]
        assert row["floor_ms"] > 0
    assert found["latents_ms"][1] > 0
    trained = {(row["freeze"], row["loops"]) for row in found["training_bytes"]}
    assert trained == {(f, k) for f in ("frozen", "half", "unfrozen") for k in (1, 2)}


def test_the_true_size_is_counted_without_being_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    told = _measured(monkeypatch, capsys, "estimate=true", "frames=[9]", "loops=[1]")
    (found,) = told["clips"]
    assert found["work_tflop"] == {"1": pytest.approx(15.6, abs=0.05)}
    (row,) = [row for row in found["memory"] if row["freeze"] == "half"]
    assert row["none_gib"] < 40 / 1.0737  # the paper needed 40 GB


def test_the_true_size_is_for_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        _measured(monkeypatch, capsys)
    assert "is for a GPU, and there is none. Use size=tiny" in capsys.readouterr().err
