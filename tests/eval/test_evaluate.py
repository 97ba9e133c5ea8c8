"""`policy-eval` on the real environment, short."""

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from tests.eval.conftest import IMAGE_SIZE, WavingPolicy
from tests.eval.evaluations import comparable

from loopdit.deploy.serving.server import PolicyServer
from loopdit.envs.arm_env import arm_spec
from loopdit.errors import ConfigError, EvaluationFailed, ServerError, SpecMismatch
from loopdit.eval.eval_config import EvalConfig
from loopdit.eval.evaluate import run
from loopdit.eval.runs.episode_runner import Setup, start_runner
from loopdit.eval.runs.journal import read_journal
from loopdit.policy.checkpoint import save_checkpoint
from loopdit.policy.looped_dit_config import LoopedDiTConfig
from loopdit.policy.looped_policy import LoopedPolicy


def read(out: Path) -> dict[str, Any]:
    return json.loads((out / "eval.json").read_text())


def test_expert_succeeds_and_zeros_do_not_and_both_are_in_one_file(tmp_path: Path):
    run(EvalConfig(policy="expert", episodes=3, videos=1, controls=False, out=str(tmp_path)))
    run(EvalConfig(policy="zeros", episodes=1, controls=False, out=str(tmp_path), append=True))
    expert, zeros = read(tmp_path)["results"]
    assert (expert["policy"], expert["successes"], expert["episodes"]) == ("expert", 3, 3)
    assert (expert["loops"], expert["steps"]) == (None, None)
    assert expert["seeds"] == [900_000, 900_002]
    median = sorted(rollout["steps"] for rollout in expert["rollouts"])[1]
    assert expert["time_to_success_s"]["p50"] == pytest.approx(median * 0.1)
    assert expert["stages"][list(expert["stages"])[-1]] == 3
    assert (zeros["policy"], zeros["successes"], zeros["episodes"]) == ("zeros", 0, 1)
    assert zeros["control"] == pytest.approx(
        {"period_s": 0.1, "ticks": 120, "missed": 0, "on_time": 1.0, "rate_hz": 10.0}
    )
    assert zeros["time_to_success_s"] is None
    assert (tmp_path / expert["videos"][0]["file"]).stat().st_size > 1000
    assert (tmp_path / "report.html").exists()
    assert len(read_journal(tmp_path).runs) == 2


@pytest.mark.system
def test_each_condition_of_a_server_is_driven_from_the_same_starts_beside_the_controls(
    waving_endpoint: str, tmp_path: Path
):
    config = EvalConfig(
        policy=waving_endpoint,
        loops=[1, 2],
        delay=["0", "2"],
        execute_horizon=[3],
        episodes=1,
        seed=900_005,
        videos=1,
        image_size=IMAGE_SIZE,
        out=str(tmp_path),
    )
    run(config)
    found = read(tmp_path)
    rows = found["results"]
    assert [(row["delay"], row["loops"]) for row in rows] == [
        ("0", 1),
        ("0", 2),
        ("2", 1),
        ("2", 2),
    ]
    assert {row["steps"] for row in rows} == {5}
    assert all(row["seeds"] == [900_005, 900_005] for row in rows)
    assert {(row["kind"], row["model_id"]) for row in rows} == {("served", "waving-0")}
    assert [row["clock"] for row in rows] == ["paused", "paused", "virtual", "virtual"]
    assert rows[0]["chunks"] == 40  # 120 steps, three of each chunk
    assert rows[0]["missed"] == 0 < rows[2]["missed"]
    assert len({row["videos"][0]["file"] for row in rows}) == 4
    controls = [(row["kind"], row["delay"], row["execution"]) for row in found["controls"]]
    assert controls == [
        ("zeros", "0", "aligned"),
        ("random", "0", "aligned"),
        ("expert", "0", "aligned"),
        ("expert", "2", "naive"),
    ]
    assert all(row["seeds"] == [900_005, 900_005] for row in found["controls"])
    assert [row["successes"] for row in found["controls"][:3]] == [0, 0, 1]
    # Each condition with the first one, corrected as one family.
    assert [c["comparisons"] for c in found["comparisons"]] == [3, 3, 3]
    assert found["simulator"].startswith("mujoco 3.")


@pytest.mark.system
def test_two_workers_and_a_second_run_come_to_the_same_in_everything_but_times(
    waving_endpoint: str, tmp_path: Path
):
    one = EvalConfig(policy=waving_endpoint, loops=[1, 2], episodes=3, delay=["0", "uniform:0-2"])
    run(replace(one, out=str(tmp_path / "one")))
    run(replace(one, out=str(tmp_path / "again")))
    run(replace(one, workers=2, out=str(tmp_path / "two")))
    first = comparable(tmp_path / "one")
    assert len(first["rollouts"]) == 3 * (4 + 2 + 2)
    assert comparable(tmp_path / "again") == first
    assert comparable(tmp_path / "two") == first


@pytest.mark.system
def test_auto_stops_when_conditions_are_told_apart_at_the_same_seed_whatever_the_workers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    # With the second delay the expert's first action never comes.
    one = EvalConfig(
        policy="expert",
        delay=["0", "500"],
        execution=["naive"],
        episodes="auto",
        max_episodes=30,
        controls=False,
    )
    run(replace(one, out=str(tmp_path / "one")))
    run(replace(one, workers=2, out=str(tmp_path / "two")))
    assert "1 of 1 comparisons decided" in capsys.readouterr().out
    here, there = comparable(tmp_path / "one"), comparable(tmp_path / "two")
    assert here["results"] == there["results"]
    fast, late = here["results"]
    # Each pair tells them apart: the mean of (1 + .1)^n ... (1 + .9)^n, halved, is 20 at n = 8.
    assert fast["successes"] == fast["episodes"] == late["episodes"] == 8
    assert late["successes"] == 0
    assert fast["sequential"]
    (comparison,) = here["comparisons"]
    assert comparison["shown"]


def test_a_policy_for_another_robot_is_refused_naming_field_and_values(tmp_path: Path):
    spec = arm_spec(IMAGE_SIZE)
    slower = WavingPolicy(replace(spec, control_period_s=0.2))
    with PolicyServer(slower, "tcp://127.0.0.1:0") as server:
        config = EvalConfig(policy=server.endpoint, loops=[1], episodes=1, out=str(tmp_path))
        with pytest.raises(SpecMismatch, match=r"control_period_s is 0.2, there 0.1"):
            run(config)
    assert list(tmp_path.iterdir()) == []


def test_another_control_rate_than_the_policys_is_run_when_it_is_asked_for(
    waving_endpoint: str, tmp_path: Path
):
    run(
        EvalConfig(
            policy=waving_endpoint,
            loops=[1],
            rate_hz=[0.0, 20.0],
            episodes=1,
            controls=False,
            out=str(tmp_path),
        )
    )
    own, faster = read(tmp_path)["results"]
    assert (own["control"]["period_s"], own["control"]["ticks"]) == (0.1, 120)
    assert (faster["control"]["period_s"], faster["control"]["ticks"]) == (0.05, 240)


def test_a_policy_that_is_told_what_is_in_flight_fits_the_environment_it_was_trained_in(
    tmp_path: Path,
):
    policy = WavingPolicy(arm_spec(IMAGE_SIZE).with_committed(3))
    with PolicyServer(policy, "tcp://127.0.0.1:0") as server:
        run(
            EvalConfig(
                policy=server.endpoint,
                loops=[1],
                delay=["2"],
                execution=["informed", "aligned"],
                episodes=1,
                controls=False,
                out=str(tmp_path),
            )
        )
    told, untold = read(tmp_path)["results"]
    assert (told["execution"], untold["execution"]) == ("informed", "aligned")
    assert (told["errors"], untold["errors"]) == (0, 0)


class DiscontentPolicy(WavingPolicy):
    """Its third chunk is no action at all."""

    model_id = "discontent-0"

    def infer(
        self, observation: Any, *, seed: int, loops: int, steps: int, instruction: str = ""
    ) -> Any:
        made = super().infer(observation, seed=seed, loops=loops, steps=steps)
        if seed % 10_000 != 2:
            return made
        return msgspec.structs.replace(made, actions=made.actions * float("nan"))


def test_what_raises_is_counted_apart_from_failures_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    policy = DiscontentPolicy(arm_spec(IMAGE_SIZE))
    with PolicyServer(policy, "tcp://127.0.0.1:0") as server:
        config = EvalConfig(policy=server.endpoint, loops=[1], episodes=2, controls=False)
        with pytest.raises(EvaluationFailed, match=r"no rollout came to an end.* not finite"):
            run(replace(config, out=str(tmp_path)))
    (row,) = read(tmp_path)["results"]  # it is written all the same
    assert (row["errors"], row["unstable"], row["successes"], row["episodes"]) == (2, 0, 0, 2)
    assert [r["outcome"] for r in row["rollouts"]] == ["error", "error"]
    assert "not finite" in row["rollouts"][0]["error"]
    assert "2 rollouts raised an error" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"policy": "expert", "env": "juggle"}, "env=juggle is unknown.*: reach, lift"),
        ({"env": "liift"}, "env=liift is unknown"),  # rather than not the shipped policy's
        ({"policy": "expert", "env": "nosuite/x"}, "suites, such as metaworld/reach-v3"),
        ({"policy": "nobody"}, "policy=nobody is unknown"),
        ({"policy": ""}, "policy= is unknown"),
        ({"policy": "expert", "loops": []}, r"loops=\[\]"),
        ({"policy": "expert", "loops": [1, 1]}, r"loops=\[1, 1\]"),
        ({"policy": "expert", "episodes": 0}, "episodes=0"),
        ({"policy": "expert", "episodes": "many"}, "episodes=many"),
        ({"policy": "expert", "delay": ["-1"]}, "delay=-1"),
        ({"policy": "expert", "execution": ["hasty"]}, "execution=hasty is unknown"),
        ({"policy": "expert", "execution": ["informed"]}, "execution=informed tells the policy"),
        ({"policy": "expert", "fault": ["fog"]}, "fault=fog"),
        ({"policy": "expert", "fault": ["black:rear"]}, "'rear'. The cameras are: front, wrist"),
        ({"policy": "expert", "rate_hz": [-1.0]}, r"rate_hz=-1\.0 must be at least 0"),
        ({"policy": "expert", "rate_hz": [float("inf")]}, r"rate_hz=inf is out of range"),
        ({"policy": "expert", "rate_hz": [1e-9]}, r"rate_hz=1e-09 .* Use 1 to 1000"),
        ({"policy": "expert", "rate_hz": [0.0, 10.0]}, r"rate_hz=\[0,10\] has 10 twice"),
        ({"policy": "expert", "steps": [1, -1]}, r"steps=-1 must be at least 0"),
        ({"policy": "expert", "steps": 2.5}, r"steps=2\.5 must be a whole number"),
        ({"policy": "expert", "steps": "many"}, "steps=many must be a whole number"),
        ({"policy": "expert", "steps": True}, "steps=True must be a whole number"),
        ({"policy": "expert", "steps": [10**9]}, "steps=1000000000 must be at most 1000"),
        ({"policy": "expert", "delay": ["uniform:0-99999999999999999999"]}, "is too much"),
        ({"policy": "expert", "launcher": "slurm"}, "launcher=slurm.*processes or ray"),
        ({"policy": "expert", "purpose": "fun"}, "purpose=fun.*test, selection"),
        ({"policy": "expert", "seed": 5}, "seeds 5 to 54 are for training"),
        ({"policy": "expert", "seed": 800_000}, "purpose=selection, or seed=900000"),
        ({"policy": "expert", "seed": 899_990}, "selection and test"),
        ({"policy": "expert", "seed": 2**31 - 5}, "the last one there is is 2147483647"),
        ({"policy": "expert", "purpose": "selection", "seed": 900_000}, "must be for selection"),
        ({"policy": "expert", "seed": -1}, "seed=-1 must be at least 0"),
        ({"policy": "expert", "fault": ["missing:wrist"]}, "missing:wrist takes away a camera"),
        ({"policy": "expert", "episodes": "auto"}, "this is only one"),
    ],
)
def test_a_mistake_is_named_with_its_value(settings: dict[str, Any], said: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=said):
        run(EvalConfig(**settings, out=str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_a_policy_is_not_tested_on_seeds_it_was_shown(tmp_path: Path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    provenance = {"data_provenance": {"settings": {"seed": 899_000}}, "episodes": 1003}
    (folder / "checkpoint.json").write_text(json.dumps({"provenance": provenance}))
    from loopdit.eval.runs.preparation import require_not_demonstrated

    config = EvalConfig(policy=str(folder), episodes=5)
    with pytest.raises(ConfigError, match=r"seed 900000 and 2 more .* Use seed=900003"):
        require_not_demonstrated(config)
    require_not_demonstrated(replace(config, seed=900_003))


def test_a_fine_tuned_policy_is_not_tested_on_seeds_that_what_it_began_from_was_shown(
    tmp_path: Path,
):
    began_from = {"folder": "outputs/old", "provenance": {"data_seeds": [900_000, 900_001]}}
    provenance = {"data_seeds": [0, 9], "init": began_from}
    (tmp_path / "checkpoint.json").write_text(json.dumps({"provenance": provenance}))
    from loopdit.eval.runs.preparation import require_not_demonstrated

    config = EvalConfig(policy=str(tmp_path), episodes=5)
    with pytest.raises(ConfigError, match=r"began from outputs/old, which .* Use seed=900002"):
        require_not_demonstrated(config)
    require_not_demonstrated(replace(config, seed=900_002))


def test_a_worker_that_opens_another_model_than_was_planned_does_no_rollout(
    waving_endpoint: str,
):
    setup = Setup(policy=waving_endpoint, env="lift")
    with pytest.raises(ServerError, match=r"is now the model waving-0, .* began with planned-0"):
        start_runner(setup, "planned-0")


@pytest.mark.skipif(find_spec("ray") is not None, reason="it is there")
def test_what_is_refused_late_leaves_earlier_results_where_they_are(tmp_path: Path):
    config = EvalConfig(policy="expert", episodes=1, controls=False, out=str(tmp_path))
    run(config)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(ConfigError, match="needs Ray"):
        run(replace(config, episodes=2, launcher="ray"))
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.system
def test_a_policy_that_can_do_without_a_camera_is_driven_without_it(tmp_path: Path):
    config = LoopedDiTConfig(width=32, max_loops=1, action_horizon=8, optional_cameras=True)
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "policy", LoopedPolicy(arm_spec(IMAGE_SIZE), config), {})
    settings = EvalConfig(
        policy=str(tmp_path / "policy"),
        loops=[1],
        fault=["none", "missing:wrist", "black:wrist"],
        episodes=1,
        controls=False,
        out=str(tmp_path / "out"),
    )
    run(settings)
    rollouts = [row["rollouts"][0] for row in read(tmp_path / "out")["results"]]
    assert [row["errors"] for row in read(tmp_path / "out")["results"]] == [0, 0, 0]
    assert len({rollout["state_sha256"] for rollout in rollouts}) == 3
    both = replace(settings, fault=["missing:wrist+missing:front"], out=str(tmp_path / "no"))
    with pytest.raises(ConfigError, match="takes away every camera, and a policy needs one"):
        run(both)
