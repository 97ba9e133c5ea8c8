import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loopdit.errors import ConfigError
from loopdit.eval.eval_config import EvalConfig
from loopdit.eval.evaluate import main as policy_eval
from loopdit.eval.evaluate import run as evaluate
from loopdit.eval.replay import ReplayConfig, chosen, replay, run
from loopdit.eval.rollouts.rollout_record import from_record, to_record
from loopdit.eval.runs.journal import JournalWriter, read_journal


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluated")
    evaluate(EvalConfig(policy="expert", episodes=2, out=str(out)))
    return out


def rewritten(folder: Path, header: dict[str, Any], records: list[dict[str, Any]]) -> None:
    (folder / "rollouts.jsonl").unlink(missing_ok=True)
    with JournalWriter(folder) as journal:
        for record in (header, *records):
            journal.append(record)


def test_every_rollout_comes_out_the_same_to_the_bit(
    evaluated: Path, capsys: pytest.CaptureFixture[str]
):
    run(ReplayConfig(out=str(evaluated), seed=900_001, video=False))
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 3  # expert, zeros, random
    assert all("bit-equal over" in line for line in printed)
    assert printed[0].startswith(("zeros", "random"))  # failures first
    assert printed[-1].startswith("expert")
    assert printed[-1].endswith("success")


def test_another_action_is_noticed_at_its_step_and_another_simulator_is_named(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (original,) = read_journal(evaluated).runs
    expert = next(r for r in map(from_record, original.rollouts) if not r.job.subject)
    actions = expert.rollout.actions.copy()
    actions[4, 0] = -actions[4, 0] + 1e-4
    changed = replace(expert, rollout=replace(expert.rollout, actions=actions))
    rewritten(tmp_path, original.header, [to_record(changed, original.digest)])
    config = ReplayConfig(out=str(tmp_path), seed=expert.job.seed)
    (stored,) = chosen(config)
    assert replay(stored).parted_at == 5  # the state after the fifth action
    with pytest.raises(ConfigError, match=r"1 of 1 .*parted after step 5"):
        run(config)
    header = json.loads(json.dumps(original.header))
    header["plan"]["environment"]["simulator"] = "mujoco 2.1.0"
    rewritten(tmp_path, header, [to_record(changed, original.digest)])
    capsys.readouterr()
    run(config)
    assert "differs after control step 5" in capsys.readouterr().out
    run(config)
    assert "was mujoco 2.1.0, is mujoco 3." in capsys.readouterr().out


def test_a_rollout_that_ends_sooner_or_later_than_it_did_differs(evaluated: Path, tmp_path: Path):
    (original,) = read_journal(evaluated).runs
    expert = next(r for r in map(from_record, original.rollouts) if not r.job.subject)
    steps = expert.rollout.steps
    shorter = replace(
        expert,
        rollout=replace(expert.rollout, actions=expert.rollout.actions[:-1]),
        trace=expert.trace[:-1],
    )
    still = np.concatenate([expert.rollout.actions, expert.rollout.actions[-1:]])
    longer = replace(
        expert,
        rollout=replace(expert.rollout, actions=still),
        trace=np.append(expert.trace, np.uint32(0)),
    )
    for episode, parted_at in ((shorter, steps), (longer, steps + 1)):
        rewritten(tmp_path, original.header, [to_record(episode, original.digest)])
        (stored,) = chosen(ReplayConfig(out=str(tmp_path)))
        assert replay(stored).parted_at == parted_at


def test_the_list_has_failures_first_and_the_policys_before_the_controls(
    evaluated: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    shutil.copy(evaluated / "rollouts.jsonl", tmp_path / "rollouts.jsonl")
    found = chosen(ReplayConfig(out=str(tmp_path)))
    outcomes = [stored.episode.rollout.outcome for stored in found]
    assert outcomes == ["failure"] * 4 + ["success"] * 2
    assert [stored.episode.job.seed for stored in found[:4]] == [900_000, 900_000, 900_001, 900_001]
    assert len(chosen(ReplayConfig(out=str(tmp_path), failures=True))) == 4
    assert {s.who for s in chosen(ReplayConfig(out=str(tmp_path), who="zeros"))} == {"zeros"}
    monkeypatch.setattr("sys.argv", ["policy-eval", "replay", f"out={tmp_path}", "failures=true"])
    policy_eval()
    printed = " ".join(capsys.readouterr().out.split())
    assert f"out={tmp_path} seed=900000 who=random failures=true video=true" in printed


def test_the_command_to_watch_the_first_rollout_plays_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    evaluate(EvalConfig(policy="expert", delay=["0", "1"], episodes=1, out=str(tmp_path)))
    capsys.readouterr()
    monkeypatch.setattr("sys.argv", ["policy-eval", "replay", f"out={tmp_path}", "who=expert"])
    policy_eval()
    command = shlex.split(capsys.readouterr().out.rpartition("Watch the first one: ")[2])
    monkeypatch.setattr("sys.argv", [word for word in command if word != "video=true"])
    policy_eval()
    assert capsys.readouterr().out.count("bit-equal") == 1


def test_a_video_of_a_rollout_can_be_made_afterwards(evaluated: Path):
    run(ReplayConfig(out=str(evaluated), seed=900_000, who="expert", video=True))
    (video,) = (evaluated / "videos").glob("replay-expert-*.mp4")
    assert video.stat().st_size > 1000


def test_what_does_not_fit_is_said_with_what_there_is(evaluated: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="seeds 900000 to 900001 of expert, random, zeros"):
        chosen(ReplayConfig(out=str(evaluated), seed=5))
    with pytest.raises(ConfigError, match="has no rollouts"):
        chosen(ReplayConfig(out=str(tmp_path)))


def test_the_folder_may_come_first_and_a_misspelt_subcommand_is_named(
    evaluated: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    said = ["policy-eval", "replay", str(evaluated), "seed=900001", "who=expert"]
    monkeypatch.setattr("sys.argv", said)
    policy_eval()
    assert "bit-equal over" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["policy-eval", "repaly", str(evaluated)])
    with pytest.raises(SystemExit, match=r"'repaly' is neither .*: .*compare, power, replay\."):
        policy_eval()
