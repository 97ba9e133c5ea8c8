"""gym-aloha through the wire, from the environment that `make suites SUITE=aloha` makes."""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.adapters.conftest import MakeSuiteEnv
from tests.adapters.contract import check_contract, check_determinism

from loopdit.datasets.spec import Observation, PolicySpec
from loopdit.deploy.serving.served_policy import Inference
from loopdit.deploy.serving.server import PolicyServer
from loopdit.errors import ConfigError
from loopdit.eval.eval_config import EvalConfig
from loopdit.eval.evaluate import run


@pytest.mark.parametrize("task", ["transfer-cube", "insertion"])
def test_a_task_keeps_the_contract(make: MakeSuiteEnv, task: str):
    env = make(f"aloha/{task}", 32)
    check_contract(env)
    assert env.policy_spec.action.shape == (14,)
    assert env.control_period_s == pytest.approx(0.02)


def test_the_same_seed_gives_the_same_states_in_two_processes(make: MakeSuiteEnv):
    check_determinism(make("aloha/transfer-cube"), make("aloha/transfer-cube"))


def test_idle_arms_stay_where_they_are(make: MakeSuiteEnv):
    env = make("aloha/transfer-cube")
    observation, _ = env.reset(seed=1)
    for _ in range(20):  # they settle under their weight
        observation, *_ = env.step(env.idle(None))
    before = observation["proprio"][:14].copy()
    for _ in range(50):
        observation, *_ = env.step(env.idle(None))
    assert np.abs(observation["proprio"][:14] - before).max() < 0.01


def test_physics_that_break_end_the_episode_and_say_so(make: MakeSuiteEnv):
    env = make("aloha/transfer-cube")
    rng = np.random.default_rng(5)
    spec = env.policy_spec.action
    _, info = env.reset(seed=5)
    steps, terminated = 0, False
    while not info["unstable"] and steps < 100:  # full swings of both arms, 50 a second
        _, _, terminated, _, info = env.step(rng.uniform(spec.low, spec.high))
        steps += 1
    assert info["unstable"]
    assert not info["success"]
    assert not terminated
    env.reset(seed=5)
    assert not env.step(env.idle(None))[4]["unstable"]


def test_a_suite_without_an_expert_says_so(make: MakeSuiteEnv):
    env = make("aloha/transfer-cube")
    env.reset(seed=0)
    with pytest.raises(ConfigError, match="env=aloha/transfer-cube has no scripted expert"):
        env.expert()


class StayingPolicy:
    """Two arms, fourteen joints: each stays where it is seen."""

    model_id = "staying-0"
    horizon = 10
    loops = (1, 2)
    steps = 3

    def __init__(self, spec: PolicySpec) -> None:
        self.spec = spec

    def infer(
        self, observation: Observation, *, seed: int, loops: int, steps: int, instruction: str = ""
    ) -> Inference:
        actions = np.tile(observation["proprio"][:14], (self.horizon, 1))
        return Inference(actions, loops, steps, encode_us=1, denoise_us=1)


def test_a_served_policy_of_fourteen_joints_is_evaluated_like_any_other(
    make: MakeSuiteEnv, tmp_path: Path
):
    spec = make("aloha/transfer-cube", 32).policy_spec
    with PolicyServer(StayingPolicy(spec), "tcp://127.0.0.1:0") as server:
        run(
            EvalConfig(
                policy=server.endpoint,
                env="aloha/transfer-cube",
                loops=[1, 2],
                episodes=1,
                controls=False,
                out=str(tmp_path),
            )
        )
    rows = json.loads((tmp_path / "eval.json").read_text())["results"]
    assert [(row["loops"], row["successes"], row["errors"]) for row in rows] == [
        (1, 0, 0),
        (2, 0, 0),
    ]
    first, second = (row["rollouts"][0] for row in rows)
    assert first["steps"] > 100
    assert first["state_sha256"] == second["state_sha256"]  # it does the same at every depth
