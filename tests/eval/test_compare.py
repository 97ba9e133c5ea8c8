"""`policy-eval compare` as it is called."""

import json
from pathlib import Path

import pytest
from tests.eval.paired_rows import drawn, evaluation, paired_row

from loopdit.eval.compare import main


def called(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    status = 0
    try:
        main(arguments)
    except SystemExit as stopped:
        status = int(stopped.code or 0)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def before(tmp_path: Path) -> str:
    rows = [paired_row(drawn(0.5, 60, k), loops=k) for k in (1, 2)]
    zeros = paired_row("f" * 60, kind="zeros", model_id=None, loops=None, steps=None)
    return evaluation(tmp_path / "it's, before", *rows, zeros)


@pytest.fixture
def after(tmp_path: Path) -> str:
    rows = [paired_row(drawn(0.95, 70, 3), loops=1), paired_row(drawn(0.5, 60, 4), loops=2)]
    expert = paired_row("s" * 60, kind="expert", model_id=None, loops=None, env="push")
    return evaluation(tmp_path / "after", *rows, expert)


def test_two_runs_are_compared_row_by_row_and_the_rest_is_named(
    before: str, after: str, capsys: pytest.CaptureFixture[str]
):
    status, out, err = called(capsys, before, after)
    assert (status, err) == (0, "")
    assert "- lift: B (served K=1) succeeds more often than A (served K=1): " in out
    assert "This run does not show a difference between A (served K=2) and B (served K=2)" in out
    assert "corrected for 2 comparisons" in out
    assert "Left out: B 10 seeds that the other lacks." in out
    assert "Unmatched in A: lift: zeros" in out
    assert "Unmatched in B: push: expert" in out
    assert "of 120 rollouts differ" in out
    assert "warning" not in out


def test_the_same_evaluation_twice_differs_in_no_rollout(
    before: str, capsys: pytest.CaptureFixture[str]
):
    _, out, _ = called(capsys, before, before)
    assert "Determinism: 0 of 180 rollouts differ" in out
    assert out.count("does not show a difference") == 3


def test_controls_are_not_compared_but_have_to_come_out_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    zeros, other = (
        paired_row(outcomes, kind="zeros", model_id=None, loops=None) for outcomes in ("fff", "ffs")
    )
    a = evaluation(tmp_path / "a", paired_row("sss"), controls=[zeros])
    b = evaluation(tmp_path / "b", paired_row("sss"), controls=[other])
    _, out, _ = called(capsys, a, b)
    assert "zeros" not in out
    assert "Determinism: 1 of 6 rollouts differ" in out


def test_one_run_compares_its_rows_with_the_first(before: str, capsys: pytest.CaptureFixture[str]):
    _, out, _ = called(capsys, before)
    assert "between served K=1 and served K=2" in out
    assert "served K=1 succeeds more often than zeros" in out
    assert "Determinism" not in out


def test_what_is_compared_can_be_chosen(
    before: str, after: str, capsys: pytest.CaptureFixture[str]
):
    _, out, _ = called(capsys, before, after, "loops=[2]")
    assert "K=1" not in out
    assert "corrected" not in out


def test_an_expert_can_be_compared_with_every_depth(
    before: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    expert = paired_row("s" * 60, kind="expert", model_id=None, loops=None, steps=None)
    alone = evaluation(tmp_path / "expert", expert)
    _, out, _ = called(capsys, alone, before, "by=[env]")
    for name in ("served K=1", "served K=2", "zeros"):
        assert f"A (expert) succeeds more often than B ({name}): 100 % against" in out


def test_comparisons_are_written_as_json(
    before: str, after: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    _, out, _ = called(capsys, before, after, f"out={tmp_path / 'compared'}")
    data = json.loads((tmp_path / "compared" / "compare.json").read_text())
    assert (data["format"], data["format_version"]) == ("loopdit-compare", 1)
    assert (data["a"], data["b"]) == (before, after)
    assert [c["pairs"] for c in data["comparisons"]] == [60, 60]
    assert [c["shown"] for c in data["comparisons"]] == [True, False]
    assert all(c["sentence"] in out for c in data["comparisons"])
    assert data["unmatched"] == {"a": ["lift: zeros"], "b": ["push: expert"]}
    assert data["determinism"]["rollouts"] == 120


def test_another_machine_or_simulator_is_a_warning_and_no_error(
    before: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rows = [paired_row(drawn(0.5, 60, 1), loops=1)]
    other = evaluation(tmp_path / "other", *rows, cpu="another", mujoco="3.18.0")
    status, out, _ = called(capsys, before, other)
    assert status == 0
    assert "warning: A ran on a cpu, B on another" in out
    assert "warning: A ran in MuJoCo 3.17.0, B in MuJoCo 3.18.0" in out


def test_a_match_without_common_seeds_is_left_out_when_others_have_some(
    before: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rows = [paired_row("sf", loops=1, first_seed=5), paired_row("sf", loops=2)]
    _, out, _ = called(capsys, before, evaluation(tmp_path / "other", *rows))
    assert "A (served K=2) and B (served K=2)" in out
    assert "Not compared: A (served K=1) has seeds 900000 to 900059 and B" in out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["missing"], "missing has no eval.json. Name a folder that policy-eval wrote"),
        (["after", "missing"], "missing has no eval.json"),
        ([], "a has no default: give a=VALUE."),
        (["after", "after", "after"], "'after' is not written name=value"),
        (["after", "elsewhere"], "none in common, and only the same starts can be compared"),
        (["after", "env=drawer"], "no row of after is left by env=, labels= and loops=. It has: "),
        (["after", "env=push"], "one row for each environment and nothing to compare it with"),
        (["after", "pushed", "env=push"], "no row of after agrees with one of pushed on env, loop"),
        (["after", "level=3"], "unknown option 'level'"),
    ],
)
def test_what_cannot_be_compared_is_one_clear_line(
    arguments: list[str],
    reason: str,
    after: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    evaluation(tmp_path / "elsewhere", paired_row("ss", first_seed=5))
    evaluation(tmp_path / "pushed", paired_row("ss", env="push", loops=3))
    monkeypatch.chdir(Path(after).parent)
    status, out, err = called(capsys, *arguments)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("policy-eval compare: error: ")
    assert reason in err


def test_help_names_both_folders(capsys: pytest.CaptureFixture[str]):
    status, out, _ = called(capsys, "--help")
    assert status == 0
    assert "policy-eval compare outputs/before outputs/after" in out
    assert "a=REQUIRED" in out
