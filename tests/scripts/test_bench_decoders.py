"""scripts/bench_decoders.py, run as a script is, on a few episodes and for a few steps."""

import json
import runpy
from pathlib import Path

import pytest
from tests.policy.graft.squares import squares_store

import loopdit

SCRIPT = Path(loopdit.__file__).parents[2] / "scripts" / "bench_decoders.py"


def test_each_decoder_is_told_by_its_ratio_to_the_constant_with_and_without_care(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    monkeypatch.setenv("LOOPDIT_CACHE", str(tmp_path / "cache"))
    data = squares_store(tmp_path / "squares.zarr")
    given = ["folds=2", "steps=20", "backbone.steps=1", "video.height=32", "video.width=48"]
    small = ["backbone.width=16", "backbone.blocks=1"]
    monkeypatch.setattr("sys.argv", [str(SCRIPT), f"data={data}", *given, *small])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    told = json.loads(capsys.readouterr().out)
    assert (told["episodes"], told["clips"], len(told["folds"])) == (10, 120, 2)
    kinds = ("rich, flow", "rich, regression", "direct", "paper")
    assert list(told["decoders"]) == [n for k in kinds for n in (k, f"{k}, with care")]
    for fold in told["folds"]:
        for row in fold.values():
            assert row["constant"] > 0
            assert row["ratio"] == pytest.approx(row["error"] / row["constant"], rel=1e-2)
        # All that learn from the same episodes are measured beside the same constant.
        assert len({fold[kind]["constant"] for kind in kinds}) == 1
