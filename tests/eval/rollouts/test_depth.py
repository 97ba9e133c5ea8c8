"""Adaptive depth as policy-eval has it: what a condition may say, and what a checkpoint does."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.eval.conftest import IMAGE_SIZE

from loopdit.envs.arm_env import arm_spec
from loopdit.errors import ConfigError
from loopdit.eval.environment import Environment
from loopdit.eval.rollouts.condition import Condition
from loopdit.eval.rollouts.depth import parse_adaptive
from loopdit.eval.rollouts.policy_sources import PolicySource, open_policy
from loopdit.eval.rollouts.rollout import Answer
from loopdit.policy.checkpoint import load_checkpoint, save_checkpoint
from loopdit.policy.depth_calibration import Calibration, save_calibration
from loopdit.policy.looped_dit_config import LoopedDiTConfig
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.stopping_rule import StoppingRule

SPEC = arm_spec(IMAGE_SIZE)
NO_ENVIRONMENT: Environment = None  # pyright: ignore[reportAssignmentType] - a model looks at none


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    policy = LoopedPolicy(SPEC, LoopedDiTConfig(width=32, max_loops=3, action_horizon=8))
    for parameter in policy.model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(folder, policy, {})
    return folder


def chunk(source: PolicySource, loops: int, adaptive: str = "none") -> Answer:
    policy = source.policy(NO_ENVIRONMENT, Condition(loops, steps=4, adaptive=adaptive))
    policy.reset(1_000_000)
    rng = np.random.default_rng(0)
    frames = {c.name: rng.integers(0, 256, c.shape, dtype=np.uint8) for c in SPEC.cameras}
    proprio = rng.normal(size=SPEC.proprio.shape).astype(np.float32)
    return policy.chunk({**frames, "proprio": proprio}, "")


def test_a_rule_is_a_measure_and_its_threshold():
    assert parse_adaptive("chunk:0.25") == StoppingRule(0.25, "chunk")
    assert parse_adaptive("state:inf") == StoppingRule(float("inf"), "state")
    assert parse_adaptive("none") is None
    assert parse_adaptive("calibrated") is None


@pytest.mark.parametrize("text", ["", "chunk", "chunk:", "chunk:-1", "chunk:nan", "size:1", "0.5"])
def test_another_rule_is_refused_with_those_that_there_are(text: str):
    with pytest.raises(ConfigError, match=f"adaptive={text} is none of: none, calibrated, chunk:"):
        parse_adaptive(text)


def test_a_checkpoint_takes_fewer_loops_where_they_are_enough(checkpoint: Path):
    with open_policy(str(checkpoint), bundle="", data="") as source:
        fixed = {loops: chunk(source, loops) for loops in (2, 3)}
        never, at_once = chunk(source, 3, "chunk:0"), chunk(source, 3, "chunk:inf")
    assert (never.loops, at_once.loops) == (3, 2)
    np.testing.assert_array_equal(never.actions, fixed[3].actions)
    np.testing.assert_array_equal(at_once.actions, fixed[2].actions)
    assert not np.array_equal(fixed[2].actions, fixed[3].actions)


def test_the_calibrated_threshold_is_the_one_beside_the_weights(tmp_path: Path, checkpoint: Path):
    loaded = load_checkpoint(checkpoint)
    save_checkpoint(tmp_path, loaded.policy, {})
    with open_policy(str(tmp_path), bundle="", data="") as source:
        with pytest.raises(ConfigError, match=r"adaptive=calibrated needs .*adaptive_depth\.json"):
            chunk(source, 3, "calibrated")
        for threshold, loops in ((0.0, 3), (1e9, 2)):
            found = Calibration("chunk", threshold, 3, (0, 0, 1), 1, "", loaded.weights_sha256)
            save_calibration(tmp_path, found)
            assert chunk(source, 3, "calibrated").loops == loops


def test_what_cannot_stop_between_loops_says_so():
    with (
        open_policy("shipped", bundle="", data="") as source,
        pytest.raises(ConfigError, match="adaptive=calibrated needs a checkpoint"),
    ):
        chunk(source, 3, "calibrated")
