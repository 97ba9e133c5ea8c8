"""`policy-eval` on the real environment, short."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.eval.conftest import IMAGE_SIZE, WavingPolicy

from loopdit.deploy.server import PolicyServer
from loopdit.envs.arm_env import arm_spec
from loopdit.errors import ConfigError, SpecMismatch
from loopdit.eval.evaluate import EvalConfig, evaluate, run


def read(out: Path) -> dict[str, Any]:
    return json.loads((out / "eval.json").read_text())


def test_expert_succeeds_and_zeros_do_not_and_both_are_in_one_file(tmp_path: Path):
    run(EvalConfig(policy="expert", episodes=3, videos=1, out=str(tmp_path)))
    run(EvalConfig(policy="zeros", episodes=1, out=str(tmp_path), append=True))
    expert, zeros = read(tmp_path)["results"]
    assert (expert["policy"], expert["successes"], expert["episodes"]) == ("expert", 3, 3)
    assert (expert["loops"], expert["steps"]) == (None, None)
    assert expert["seeds"] == [1_000_000, 1_000_002]
    assert (zeros["policy"], zeros["successes"], zeros["episodes"]) == ("zeros", 0, 1)
    assert zeros["control"] == pytest.approx(
        {"period_s": 0.1, "ticks": 120, "missed": 0, "on_time": 1.0, "rate_hz": 10.0}
    )
    assert (tmp_path / expert["videos"][0]["file"]).stat().st_size > 1000
    assert (tmp_path / "report.html").exists()


def test_each_depth_of_a_server_is_driven_from_the_same_starts(
    waving_endpoint: str, tmp_path: Path
):
    config = EvalConfig(
        policy=waving_endpoint,
        loops=[1, 2],
        episodes=1,
        seed=1_000_005,
        execute_horizon=3,
        videos=1,
        out=str(tmp_path),
    )
    rows: list[dict[str, Any]] = []
    evaluate(config, rows)
    one, two = rows
    assert (one["loops"], two["loops"], one["steps"], two["steps"]) == (1, 2, 5, 5)
    assert one["seeds"] == two["seeds"] == [1_000_005, 1_000_005]
    assert (one["kind"], one["model_id"]) == ("served", "waving-0")
    assert one["chunks"] == 40  # 120 steps, three of each chunk
    assert one["videos"][0]["file"] != two["videos"][0]["file"]


def test_a_policy_for_another_robot_is_refused_naming_field_and_values(tmp_path: Path):
    spec = arm_spec(IMAGE_SIZE)
    slower = WavingPolicy(replace(spec, control_period_s=0.2))
    with PolicyServer(slower, "tcp://127.0.0.1:0") as server:
        config = EvalConfig(policy=server.endpoint, loops=[1], episodes=1, out=str(tmp_path))
        with pytest.raises(SpecMismatch, match=r"control_period_s is 0.2, there 0.1"):
            evaluate(config, [])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"policy": "expert", "env": "juggle"},
            "env=juggle is unknown.*: lift",
        ),
        ({"policy": "nobody"}, "policy=nobody is unknown"),
        ({"policy": "expert", "loops": []}, r"loops=\[\]"),
        ({"policy": "expert", "loops": [1, 1]}, r"loops=\[1, 1\]"),
        ({"policy": "expert", "episodes": 0}, "episodes=0"),
    ],
)
def test_a_mistake_is_named_with_its_value(settings: dict[str, Any], said: str):
    with pytest.raises(ConfigError, match=said):
        evaluate(EvalConfig(**settings), [])
