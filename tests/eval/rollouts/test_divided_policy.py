import numpy as np
import pytest

from loopdit.datasets.spec import Observation
from loopdit.deploy.robot.guide import GUIDE
from loopdit.errors import ConfigError
from loopdit.eval.rollouts.divided_policy import DividedPolicy
from loopdit.eval.rollouts.rollout import Answer

LABELS = ("dx", "gripper")


class Recording:
    looks = True
    history = 1
    committed = 0

    def __init__(self) -> None:
        self.given: list[Observation] = []

    def reset(self, seed: int) -> None:
        self.given.clear()

    def chunk(self, observation: Observation, instruction: str) -> Answer:
        self.given.append(observation)
        return Answer(np.array([[0.05, 1.0], [0.1, 0.0]], np.float32), 3)


def test_a_chunk_is_spread_over_more_steps_and_a_guide_gathered_into_fewer():
    inner = Recording()
    policy = DividedPolicy(inner, 5, LABELS)
    guide = np.array([[0.01, 1, 1]] * 5 + [[0.02, 0, 0.5]] * 5 + [[0.02, 0, 0.1]] * 2, np.float32)
    answer = policy.chunk({GUIDE: guide}, "go")
    expected = [[0.01, 1.0]] * 5 + [[0.02, 0.0]] * 5
    np.testing.assert_allclose(answer.actions, expected, atol=1e-7)
    assert answer.loops == 3
    np.testing.assert_allclose(inner.given[0][GUIDE], [[0.05, 1, 1], [0.1, 0, 0.5]], atol=1e-6)


def test_a_policy_that_is_told_more_than_the_present_is_refused():
    told = Recording()
    told.committed = 4
    with pytest.raises(ConfigError, match=r"divide=5 needs a policy.*Use divide=1"):
        DividedPolicy(told, 5, LABELS)
    with pytest.raises(ConfigError, match="has no labels"):
        DividedPolicy(Recording(), 5, ())
