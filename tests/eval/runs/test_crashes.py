"""Evaluations by the real command that are killed, stopped, or lose their workers."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.eval.evaluations import comparable

from loopdit.eval.runs.journal import read_journal

METAWORLD = Path(__file__).resolve().parents[3] / ".suites" / "metaworld" / "bin" / "python"

pytestmark = pytest.mark.system

# Four rollouts a seed: the expert without and with a delay, zeros, random.
OPTIONS = ["policy=expert", "delay=[0,2]", "execution=[naive]", "episodes=6"]


def policy_eval(*options: str, **variables: str) -> subprocess.Popen[str]:
    program = Path(sys.executable).with_name("policy-eval")
    return subprocess.Popen(
        [program, *options],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finished(process: subprocess.Popen[str]) -> str:
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return printed


def rollouts_in(out: Path) -> int:
    path = out / "rollouts.jsonl"
    return path.read_bytes().count(b'\n{"kind": "rollout"') if path.exists() else 0


def wait_for_rollouts(out: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while rollouts_in(out) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What nobody disturbed, by one worker."""
    out = tmp_path_factory.mktemp("whole")
    finished(policy_eval(*OPTIONS, f"out={out}"))
    return out


@pytest.mark.parametrize("workers", [1, 2])
def test_what_was_killed_goes_on_where_it_was_and_comes_to_the_same(
    whole: Path, tmp_path: Path, workers: int
):
    options = [*OPTIONS, f"workers={workers}", f"out={tmp_path}"]
    killed = policy_eval(*options)
    wait_for_rollouts(tmp_path, 7, killed)
    killed.kill()
    killed.communicate()
    there = len(read_journal(tmp_path).runs[0].rollouts)
    assert 7 <= there < 6 * 4
    # Half a line more, as a power cut would leave it.
    with (tmp_path / "rollouts.jsonl").open("a") as file:
        file.write('{"kind": "rollout", "run": "')
    printed = finished(policy_eval(*options))
    assert f"Going on with the evaluation in {tmp_path}: {there} rollouts are done." in printed
    assert "ends in half a line; that rollout is run again" in printed
    (run,) = read_journal(tmp_path).runs
    assert run.finished
    assert len(run.rollouts) == 6 * 4
    assert comparable(tmp_path) == comparable(whole)


def test_a_worker_that_is_killed_is_replaced_its_episode_run_again_and_counted(
    whole: Path, tmp_path: Path
):
    process = policy_eval(*OPTIONS, "workers=2", f"out={tmp_path}")
    wait_for_rollouts(tmp_path, 5, process)
    os.kill(children(process.pid, "spawn_main")[0], signal.SIGKILL)
    printed = finished(process)
    assert "1 process died and had to be replaced." in printed
    assert json.loads((tmp_path / "eval.json").read_text())["restarts"] == 1
    assert comparable(tmp_path) == comparable(whole)


@pytest.mark.skipif(not METAWORLD.exists(), reason="no Meta-World: make suites SUITE=metaworld")
def test_an_environment_whose_process_is_killed_is_replaced_and_its_episode_run_again(
    tmp_path: Path,
):
    options = ["policy=expert", "env=metaworld/reach-v3", "episodes=3"]
    finished(policy_eval(*options, f"out={tmp_path / 'whole'}"))
    process = policy_eval(*options, f"out={tmp_path / 'killed'}")
    wait_for_rollouts(tmp_path / "killed", 3, process)
    os.kill(children(process.pid, "env_server")[0], signal.SIGKILL)
    printed = finished(process)
    assert "1 process died and had to be replaced." in printed
    assert comparable(tmp_path / "killed") == comparable(tmp_path / "whole")


def test_ctrl_c_ends_soon_keeps_what_is_finished_and_the_workers_are_gone(tmp_path: Path):
    options = ["policy=expert", "episodes=4000", "workers=2", f"out={tmp_path}"]
    process = policy_eval(*options)
    wait_for_rollouts(tmp_path, 5, process)
    workers = children(process.pid, "spawn_main")
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert time.monotonic() - began < 10
    (row,) = json.loads((tmp_path / "eval.json").read_text())["results"]
    assert 0 < row["episodes"] < 4000
    assert f"{row['episodes']} of 4000. The same command goes on with them." in printed
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def test_a_finished_evaluation_given_again_begins_anew_and_keeps_the_earlier_one(tmp_path: Path):
    options = ["policy=expert", "episodes=1", "controls=false", f"out={tmp_path}"]
    finished(policy_eval(*options))
    first = comparable(tmp_path)
    printed = finished(policy_eval(*options))
    (earlier,) = tmp_path.glob("earlier-*")
    assert f"moved to {earlier}" in printed
    assert comparable(earlier) == first == comparable(tmp_path)


def test_without_opengl_rays_draw_the_frames_or_one_line_says_why_nothing_does(tmp_path: Path):
    broken = {"MUJOCO_GL": "osmesa", "PYOPENGL_PLATFORM": "nonsense", "LOOPDIT_GL_PROBED": ""}
    options = ["policy=zeros", "episodes=1", "controls=false", f"out={tmp_path}"]
    process = policy_eval(*options, LOOPDIT_RENDERER="gl", **broken)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors.startswith("policy-eval: error: no headless OpenGL renders here")
    assert len(errors.strip().splitlines()) == 1
    process = policy_eval(*options, **broken)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "cameras are ray-cast" in errors
    (row,) = json.loads((tmp_path / "eval.json").read_text())["results"]
    assert row["renderer"] == "ray-cast"


def children(parent: int, program: str) -> list[int]:
    """Child processes whose command line has `program` in it."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            command = (path / "cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == parent and program in command:
            found.append(int(path.name))
    return sorted(found)
