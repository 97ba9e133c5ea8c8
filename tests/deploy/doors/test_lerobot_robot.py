"""A LeRobot robot's loop, with a robot of two joints that moves as it is told."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.deploy.echo_policy import HORIZON, EchoPolicy, expected_actions

import loopdit
from loopdit.datasets.spec import Observation
from loopdit.deploy.client import PolicyClient
from loopdit.deploy.doors.lerobot import RobotMapping, run
from loopdit.deploy.serving.served_policy import Inference
from loopdit.deploy.serving.server import PolicyServer
from loopdit.errors import ConfigError, SpecMismatch

ROOT = Path(loopdit.__file__).parents[2]


class Clock:
    """Time passes by sleeping alone."""

    now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Arm:
    """As LeRobot's robots describe themselves."""

    observation_features: dict[str, Any] = {  # noqa: RUF012
        "shoulder.pos": float,
        "front": (4, 6, 3),
        "elbow.pos": float,
        "gripper.pos": float,
    }
    action_features: dict[str, Any] = {  # noqa: RUF012
        "shoulder.pos": float,
        "elbow.pos": float,
        "gripper.pos": float,
    }

    def __init__(self) -> None:
        self.sent: list[dict[str, float]] = []

    def get_observation(self) -> dict[str, Any]:
        step = float(len(self.sent))
        return {
            "gripper.pos": 0.5,
            "shoulder.pos": step,
            "elbow.pos": -step,
            "front": np.full((4, 6, 3), 7, np.uint8),
        }

    def send_action(self, action: dict[str, float]) -> dict[str, float]:
        self.sent.append(action)
        return action


def seen_at(step: int) -> Observation:
    return {
        "images.front": np.full((4, 6, 3), 7, np.uint8),
        "proprio": np.array([step, -step, 0.5], np.float32),
    }


@pytest.fixture
def client() -> Iterator[PolicyClient]:
    with (
        PolicyServer(EchoPolicy(), "tcp://127.0.0.1:0") as server,
        PolicyClient(server.endpoint) as client,
    ):
        yield client


def test_the_robot_is_sent_the_chunks_actions_in_its_own_words(client: PolicyClient):
    arm, clock = Arm(), Clock()
    outcome = run(
        arm, client, steps=HORIZON, execute_horizon=HORIZON, clock=clock, sleep=clock.sleep
    )
    chunk = expected_actions(seen_at(0))
    for sent, row in zip(arm.sent, chunk, strict=True):
        assert list(sent) == ["shoulder.pos", "elbow.pos", "gripper.pos"]
        np.testing.assert_array_equal(list(sent.values()), row)
    assert (outcome.steps, outcome.chunks, outcome.held) == (HORIZON, 1, 0)
    assert clock.now == pytest.approx(HORIZON * 0.1)


def test_a_new_chunk_is_asked_for_as_the_old_one_is_played(client: PolicyClient):
    arm, clock = Arm(), Clock()

    def sleep(seconds: float) -> None:
        time.sleep(0.02)  # of real time, for the request's thread
        clock.sleep(seconds)

    outcome = run(arm, client, steps=12, execute_horizon=2, clock=clock, sleep=sleep)
    assert outcome.chunks >= 3
    # Whatever chunk is played, the action is the one of its control step: the ramp goes on.
    ramps = [action["gripper.pos"] for action in arm.sent]
    assert all(2107.5 <= value <= 2107.5 + HORIZON - 1 for value in ramps)


def test_a_robot_that_does_not_fit_is_refused_before_it_moves(client: PolicyClient):
    blind, short, other = Arm(), Arm(), Arm()
    blind.observation_features = {k: float for k in ("a", "b", "c")}
    short.action_features = {"a": float}
    other.observation_features = Arm.observation_features | {"front": (8, 8, 3)}
    for arm, words in (
        (blind, r"looks at images\.front \(4, 6, 3\); the robot has no camera"),
        (short, r"commands 3 numbers \(x, y, gripper\), and the robot has 1: a"),
        (other, r"the robot has images\.front \(8, 8, 3\)"),
    ):
        with pytest.raises(SpecMismatch, match=words):
            run(arm, client, steps=3)
        assert not arm.sent
    with pytest.raises(ConfigError, match="execute_horizon=9 must be 1 to 5"):
        run(Arm(), client, steps=3, execute_horizon=9)


class ForgetfulPolicy(EchoPolicy):
    """Given the last two observations."""

    spec = EchoPolicy.spec.with_history(2)

    def infer(
        self, observation: Observation, *, seed: int, loops: int, steps: int, instruction: str = ""
    ) -> Inference:
        latest = {name: value[-1] for name, value in observation.items()}
        return super().infer(latest, seed=seed, loops=loops, steps=steps)


def test_a_history_is_kept_for_the_robot():
    arm, clock = Arm(), Clock()
    with (
        PolicyServer(ForgetfulPolicy(), "tcp://127.0.0.1:0") as server,
        PolicyClient(server.endpoint) as client,
    ):
        run(arm, client, steps=2, clock=clock, sleep=clock.sleep, execute_horizon=5)
    np.testing.assert_array_equal(list(arm.sent[0].values()), expected_actions(seen_at(0))[0])


def test_the_mapping_goes_by_the_order_in_which_features_are_named():
    mapping = RobotMapping(Arm(), EchoPolicy.spec)
    given = mapping.observation(Arm().get_observation())
    np.testing.assert_array_equal(given["proprio"], np.array([0, 0, 0.5], np.float32))
    assert given["images.front"].shape == (4, 6, 3)


@pytest.mark.adapters
def test_a_robot_of_lerobots_own_class_is_driven(tmp_path: Path):
    suites = Path(os.environ.get("LOOPDIT_SUITES") or ROOT / ".suites")
    python = suites / "lerobot/bin/python"
    if not python.exists():
        pytest.skip("LeRobot is absent: sh scripts/lerobot_env.sh")
    script = Path(__file__).with_name("lerobot_arm.py")
    with PolicyServer(EchoPolicy(), "tcp://127.0.0.1:0") as server:
        done = subprocess.run(
            [python, script, server.endpoint, "3", tmp_path],
            capture_output=True,
            text=True,
            timeout=280,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "HF_LEROBOT_HOME": str(tmp_path)},
        )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["steps"] == len(told["sent"]) == 3
    # The first chunk is for the first observation, and played from its first action.
    first = expected_actions(seen_at(0))
    names = ("shoulder.pos", "elbow.pos", "gripper.pos")
    for action in told["sent"]:
        values = [action[name] for name in names]
        assert any(np.allclose(values, expected) for expected in first)
    assert [told["sent"][0][name] for name in names] == pytest.approx(first[0].tolist())
