"""A robot on a line whose policy goes to a goal, at a pace of its own in each chunk."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopdit.datasets.tensor_spec import TensorSpec
from loopdit.deploy.robot.chunk_execution import ChunkExecution
from loopdit.deploy.robot.executions import GUIDED, make_execution
from loopdit.errors import ConfigError

GOAL_M, LIMIT_M, HORIZON = 1.0, 0.2, 16
ACTION = TensorSpec("action", (1,), "float32", ("dx",), low=(-LIMIT_M,), high=(LIMIT_M,))


def plan(at: float, pace: float) -> np.ndarray:
    """(H, 1): from `at` to the goal by `pace` a step, and then nothing."""
    path = np.minimum(at + pace * np.arange(HORIZON + 1), GOAL_M)
    return np.diff(path).astype(np.float32)[:, None]


def run(
    execution: ChunkExecution,
    delays: list[int],
    paces: list[float],
    steps: int = 80,
    factor: float = 1.0,
) -> list[float]:
    """Where it is after each step; `factor` of each action is what a limit lets through."""
    at, places, asked = 0.0, list[float](), 0
    under_way: tuple[np.ndarray, int, int] | None = None
    for step in range(steps):
        for _ in range(2):
            if under_way is not None and under_way[2] <= step:
                execution.load(*under_way[:2], step)
                under_way = None
            elif under_way is None and execution.wants_chunk(step):
                execution.requested(step)
                chunk = plan(at, paces[asked % len(paces)])
                under_way = chunk, step, step + delays[asked % len(delays)]
                asked += 1
        action = execution.action(step)
        if action is not None and factor != 1.0:
            action = factor * action
            execution.executed(step, action)
        at += 0.0 if action is None else float(action[0])
        places.append(at)
    return places


DELAYS = st.lists(st.integers(0, 7), min_size=1, max_size=6)
PACES = st.lists(st.floats(0.02, LIMIT_M), min_size=1, max_size=6)


@given(DELAYS, PACES, st.integers(1, 10), st.sampled_from(["tracked", *GUIDED]))
def test_a_tracked_robot_comes_to_its_goal_and_never_beyond_it_however_late_its_chunks(
    delays: list[int], paces: list[float], execute: int, name: str
):
    places = run(make_execution(name, execute, ACTION), delays, paces)
    assert places[-1] == pytest.approx(GOAL_M, abs=1e-5)
    assert max(places) <= GOAL_M + 1e-5


def test_the_same_chunks_by_their_shifts_go_beyond_the_goal_or_lag_behind():
    naive, aligned, tracked = (
        run(make_execution(name, 4, ACTION), [3], [0.1, 0.02, 0.05], steps=30)
        for name in ("naive", "aligned", "tracked")
    )
    assert max(naive) > GOAL_M + 0.05
    assert tracked[-1] == pytest.approx(GOAL_M, abs=1e-5)
    assert aligned[-1] < tracked[-1] - 0.05


@given(DELAYS, PACES, st.integers(1, 10))
def test_no_step_is_larger_than_the_limit_whatever_a_late_chunk_wants(
    delays: list[int], paces: list[float], execute: int
):
    places = run(make_execution("tracked", execute, ACTION), delays, paces)
    assert np.abs(np.diff([0.0, *places])).max() <= LIMIT_M + 1e-6


@given(DELAYS, PACES, st.floats(0.3, 0.9))
def test_what_a_limit_takes_from_an_action_is_made_up_for(
    delays: list[int], paces: list[float], factor: float
):
    places = run(make_execution("tracked", 4, ACTION), delays, paces, 160, factor)
    assert places[-1] == pytest.approx(GOAL_M, abs=1e-3)


def test_a_first_chunk_that_took_a_second_is_played_from_its_first_action():
    places = run(make_execution("tracked", 4, ACTION), [50, 1], [0.1], steps=62)
    assert places[49] == 0
    assert places[50:60] == pytest.approx(np.arange(1, 11) * 0.1)


def test_without_shifts_it_plays_what_the_chunks_say():
    absolute = TensorSpec("action", (2,), "float32", ("elbow", "gripper"))
    execution = make_execution("tracked", 4, absolute)
    chunk = np.arange(8, dtype=np.float32).reshape(4, 2)
    execution.load(chunk, 0, 0)
    np.testing.assert_array_equal([execution.action(step) for step in range(4)], chunk)
    assert execution.action(4) is None


def test_an_action_without_labels_cannot_be_tracked():
    with pytest.raises(ConfigError, match=r"the action has no labels.*another execution"):
        make_execution("tracked", 4, TensorSpec("action", (2,), "float32"))


def test_a_guide_is_the_plan_from_here_and_counts_fully_until_the_chunk_can_be_there():
    execution = make_execution("guided", 8, ACTION)
    execution.requested(0)
    execution.load(plan(0.0, 0.1), 0, 2)  # two steps late
    assert execution.guide(2).shape == (16, 2)
    for step in range(2, 8):
        execution.action(step)
    guide = execution.guide(8)
    np.testing.assert_allclose(guide[:, 0], [0.1] * 4 + [0.0] * 6, atol=1e-6)
    assert guide[:2, 1].tolist() == [1, 1]
    assert (np.diff(guide[1:, 1]) < 0).all()
    assert 0 < guide[-1, 1] < 0.1
    assert make_execution("tracked", 8, ACTION).guide(0).size == 0
