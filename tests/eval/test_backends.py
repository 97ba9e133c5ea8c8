"""`policy-eval backends`: the price of a back end, and what it takes to find it."""

import json
from pathlib import Path

import pytest
from tests.eval.paired_rows import evaluation, paired_row

from loopdit.errors import BundleError, ConfigError
from loopdit.eval.backends import BackendsConfig, compare, main, run
from loopdit.eval.statistics.success import clopper_pearson_interval

FIRST, SECOND = "fused:fp32", "fused:bf16"


def evaluated(out: Path, env: str, label: str, *outcomes: str) -> None:
    """What policy-eval would have left there: a row for each K, from 1 on."""
    rows = [paired_row(text, env=env, label=label, loops=k + 1) for k, text in enumerate(outcomes)]
    evaluation(out / env / label.replace(":", "-"), *rows)


def test_a_price_counts_each_start_once_with_the_mean_over_its_depths(tmp_path: Path):
    evaluated(tmp_path, "lift", FIRST, "ssss", "ssss")
    evaluated(tmp_path, "lift", SECOND, "ffss", "fsss")
    evaluated(tmp_path, "stack", FIRST, "sf", "ss")
    evaluated(tmp_path, "stack", SECOND, "ss", "ss")
    config = BackendsConfig(env=["lift", "stack"], backends=[FIRST, SECOND], out=str(tmp_path))
    family, (price,) = compare(config)
    # By start: lift -1, -1/2, 0, 0; stack 0, +1/2.
    assert (price.choice, price.starts) == (SECOND, 6)
    assert price.difference.value == pytest.approx(-1 / 6)
    assert price.difference.low < -1 / 6 < price.difference.high
    assert "against fused:fp32, all K together: -16.67 points" in price.sentence(FIRST)
    assert [(one.env, one.comparison.only_a, one.comparison.only_b) for one in family] == [
        *(("lift", 2, 0), ("lift", 1, 0), ("stack", 0, 1), ("stack", 0, 0)),
    ]
    assert {one.comparison.comparisons for one in family} == {4}


def test_where_nothing_differs_the_interval_is_what_could_have_been_missed(tmp_path: Path):
    for label in (FIRST, SECOND):
        evaluated(tmp_path, "lift", label, "s" * 40, "s" * 39 + "f")
    _, (price,) = compare(BackendsConfig(backends=[FIRST, SECOND], out=str(tmp_path)))
    most = clopper_pearson_interval(0, 40)[1]
    assert price.difference.value == 0
    assert (-price.difference.low, price.difference.high) == pytest.approx((most, most))


@pytest.mark.system
def test_each_is_evaluated_once_and_compared_seed_by_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    command = ["env=[reach]", "backends=[onnxruntime,torch]", "loops=[1,4]", "episodes=2"]
    main([*command, f"out={tmp_path}"])
    printed = capsys.readouterr().out
    assert "torch:fp32 against onnxruntime:fp32" in printed
    found = json.loads((tmp_path / "backends.json").read_text())
    assert [(one["env"], one["pairs"]) for one in found["comparisons"]] == [("reach", 2)] * 2
    for path, backend in zip(found["evaluations"], ("onnxruntime", "torch"), strict=True):
        rows = json.loads(Path(path).read_text())["results"]
        assert [(row["backend"], row["loops"]) for row in rows] == [(backend, 1), (backend, 4)]
    before = [Path(path).stat().st_mtime_ns for path in found["evaluations"]]
    main([*command, f"out={tmp_path}"])
    assert [Path(path).stat().st_mtime_ns for path in found["evaluations"]] == before
    assert "evaluating" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"backends": ["fused:fp32"]}, "nothing to compare"),
        ({"backends": ["fused", "fast"]}, r"'fast' is no back end.*onnxruntime"),
        ({"backends": ["fused", "fused:int8"]}, "fused has fp32, bf16"),
        ({"backends": ["fused", "fused"]}, "names one twice"),
        ({"backends": ["fused", "fused:fp32"]}, "names one twice"),
        ({"env": []}, "env=.. is empty"),
    ],
)
def test_a_comparison_that_cannot_be_is_refused(options: dict[str, list[str]], said: str):
    with pytest.raises(ConfigError, match=said):
        BackendsConfig(**options)  # pyright: ignore[reportArgumentType] - that is the point


def test_what_cannot_run_here_is_said_before_the_first_rollout(tmp_path: Path):
    config = BackendsConfig(
        env=["reach"], backends=["torch", "onnxruntime:int8"], episodes=1, out=str(tmp_path)
    )
    with pytest.raises(BundleError, match=r"precision=int8 is not in this bundle"):
        run(config)  # the shipped bundle has graphs of float32 alone
    assert not list(tmp_path.rglob("*.jsonl"))
