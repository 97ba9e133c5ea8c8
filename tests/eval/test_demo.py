"""The demo's plan and the running of its stages; the whole of it is in tests/system."""

import sys
from pathlib import Path

import pytest

from loopdit.errors import ServerError
from loopdit.eval.demo import served
from loopdit.eval.demo_plan import ENDPOINT, DemoConfig, plan


def commands(config: DemoConfig) -> list[list[str]]:
    return [list(command) for stage in plan(config, shipped=None) for command in stage.commands]


def test_every_condition_is_evaluated_on_the_same_held_out_starts_into_one_file():
    evaluations = [c for c in commands(DemoConfig(out="o")) if c[0] == "policy-eval"]
    policies = [next(o for o in c if o.startswith("policy=")) for c in evaluations]
    assert policies == [f"policy={ENDPOINT}", "policy=untrained", "policy=replay", "policy=expert"]
    for command in evaluations:
        assert {"episodes=50", "seed=900000", "out=o", "append=true"} <= set(command)
    assert "loops=[1,2,3,4]" in evaluations[0]


def test_what_one_stage_writes_the_next_one_reads():
    by_name = {c[0]: dict(o.split("=", 1) for o in c[1:]) for c in commands(DemoConfig(out="o"))}
    assert by_name["policy-train"]["data"] == by_name["policy-collect"]["out"]
    assert by_name["policy-export"]["checkpoint"] == by_name["policy-train"]["out"]
    assert by_name["policy-bench"]["bundle"] == by_name["policy-export"]["out"]


def test_the_server_runs_the_bundle_that_was_exported():
    config = DemoConfig(out="o")
    (serving,) = [stage for stage in plan(config, shipped=None) if stage.serves]
    assert serving.serves == "o/bundle"


def test_a_server_is_there_while_needed_and_gone_afterwards(tmp_path: Path):
    script = tmp_path / "server.py"
    script.write_text(
        "import time\n"
        "print('loading', flush=True)\n"
        "print('ready tcp://127.0.0.1:4321', flush=True)\n"
        "time.sleep(60)\n"
    )
    said: list[str] = []
    with served([sys.executable, str(script)], said.append) as endpoint:
        assert endpoint == "tcp://127.0.0.1:4321"
    assert said == ["  loading"]


def test_a_server_that_ends_before_it_is_ready_is_an_error(tmp_path: Path):
    script = tmp_path / "server.py"
    script.write_text("print('no such bundle'); raise SystemExit(3)\n")
    said: list[str] = []
    with (
        pytest.raises(ServerError, match="exit status 3"),
        served([sys.executable, str(script)], said.append),
    ):
        pass
    assert said == ["  no such bundle"]
