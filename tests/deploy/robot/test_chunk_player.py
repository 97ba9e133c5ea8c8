import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopdit.datasets.tensor_spec import TensorSpec
from loopdit.deploy.robot.chunk_player import ChunkPlayer
from loopdit.deploy.robot.executions import make_execution

PERIOD_S = 0.02


class FakeClock:
    now: float = 0.0


def chunk(horizon: int, first: float = 0.0) -> np.ndarray:
    return first + np.arange(horizon, dtype=np.float32)[:, None]


def test_late_chunk_skips_the_actions_whose_time_has_passed():
    clock = FakeClock()
    player = ChunkPlayer(control_period=PERIOD_S, clock=clock)
    clock.now = 0.05  # inference took 50 ms
    player.load(chunk(8), observed_at=0.0)
    assert player.action() == 2
    assert (player.skipped, player.held) == (2, 0)


@given(lateness=st.floats(0, 10), horizon=st.integers(1, 64))
def test_action_always_comes_from_the_chunk(lateness: float, horizon: int):
    clock = FakeClock()
    player = ChunkPlayer(control_period=PERIOD_S, clock=clock)
    player.load(chunk(horizon), observed_at=0.0)
    clock.now = lateness
    assert 0 <= player.action().item() < horizon


@given(start=st.floats(0, 1e6), horizon=st.integers(1, 32), period=st.floats(0.002, 1.0))
def test_each_action_is_played_once_at_the_control_period(
    start: float, horizon: int, period: float
):
    clock = FakeClock()
    player = ChunkPlayer(control_period=period, clock=clock)
    player.load(chunk(horizon), observed_at=start)
    played: list[float] = []
    for tick in range(horizon):
        clock.now = start + tick * period
        played.append(player.action().item())
    assert played == list(range(horizon))
    assert (player.held, player.skipped) == (0, 0)


def test_the_last_action_is_held_and_counted_when_no_chunk_follows():
    clock = FakeClock()
    player = ChunkPlayer(control_period=PERIOD_S, clock=clock)
    player.load(chunk(3), observed_at=0.0)
    played: list[float] = []
    for tick in range(6):
        clock.now = tick * PERIOD_S
        played.append(player.action().item())
    assert played == [0, 1, 2, 2, 2, 2]
    assert (player.held, player.skipped, player.remaining) == (3, 0, 0)


def test_a_newer_chunk_takes_over_at_the_action_that_is_due():
    clock = FakeClock()
    player = ChunkPlayer(control_period=PERIOD_S, clock=clock)
    player.load(chunk(8), observed_at=0.0)
    clock.now = 0.06
    player.load(chunk(8, first=100), observed_at=0.04)
    assert player.action() == 101


def test_a_chunk_of_an_older_observation_is_ignored():
    clock = FakeClock()
    player = ChunkPlayer(control_period=PERIOD_S, clock=clock)
    player.load(chunk(8, first=100), observed_at=0.04)
    player.load(chunk(8), observed_at=0.0)
    clock.now = 0.04
    assert player.action() == 100


def test_what_is_told_is_what_plays_until_the_expected_chunk_is_there():
    clock = FakeClock()
    player = ChunkPlayer(control_period=PERIOD_S, clock=clock)
    assert player.committed(0.05, 8).size == 0
    player.load(chunk(8), observed_at=0.0)
    clock.now = 0.06
    told = player.committed(expected_delay_s=0.05, most=8)
    assert told.ravel().tolist() == [3, 4, 5]
    played: list[float] = []
    for _ in range(3):
        played.append(player.action().item())
        clock.now += PERIOD_S
    assert played == told.ravel().tolist()
    assert player.committed(0.0, 8).size == 0
    assert player.committed(0.05, 1).ravel().tolist() == [6]
    assert player.committed(1.0, 8).ravel().tolist() == [6, 7]  # no more than there are


def test_the_first_chunk_of_an_informed_player_begins_when_it_comes():
    clock = FakeClock()
    player = ChunkPlayer(control_period=PERIOD_S, clock=clock, informed=True)
    clock.now = 0.07
    player.load(chunk(8), observed_at=0.0)
    assert player.action() == 0
    clock.now = 0.09
    assert player.action() == 1
    player.load(chunk(8, first=100), observed_at=0.07)
    assert player.action() == 101
    player.reset()
    player.load(chunk(8), observed_at=0.02)
    assert player.action() == 0


def test_asking_again_within_a_period_gives_the_same_action_and_counts_nothing():
    clock = FakeClock()
    player = ChunkPlayer(control_period=PERIOD_S, clock=clock)
    player.load(chunk(4), observed_at=0.0)
    clock.now = 0.025
    assert [player.action().item() for _ in range(3)] == [1, 1, 1]
    assert (player.held, player.skipped) == (0, 1)


def test_an_action_before_the_first_chunk_or_after_a_reset_is_refused():
    player = ChunkPlayer(control_period=PERIOD_S, clock=FakeClock())
    assert not player.ready
    with pytest.raises(RuntimeError, match="no chunk is loaded"):
        player.action()
    player.load(chunk(2), observed_at=0.0)
    player.reset()
    with pytest.raises(RuntimeError, match="no chunk is loaded"):
        player.action()


def test_an_empty_chunk_is_refused():
    player = ChunkPlayer(control_period=PERIOD_S, clock=FakeClock())
    with pytest.raises(ValueError, match="at least one action"):
        player.load(np.empty((0, 3), np.float32), observed_at=0.0)


@given(
    delay=st.integers(0, 5),
    execute=st.integers(1, 8),
    steps=st.lists(st.floats(-0.05, 0.05), min_size=16, max_size=16),
)
def test_shifts_are_tracked_in_seconds_as_they_are_in_steps(
    delay: int, execute: int, steps: list[float]
):
    spec = TensorSpec("action", (1,), "float32", ("dx",), low=(-0.04,), high=(0.04,))
    clock = FakeClock()
    execution = make_execution("tracked", execute, spec)
    player = ChunkPlayer(control_period=PERIOD_S, clock=clock, action=spec)
    plan = np.array(steps, np.float32)[:, None]
    under_way: tuple[np.ndarray, int] | None = None
    for step in range(60):
        clock.now = step * PERIOD_S
        for _ in range(2):
            if under_way is not None and under_way[1] + delay <= step:
                execution.load(*under_way, step)
                player.load(under_way[0], observed_at=under_way[1] * PERIOD_S)
                under_way = None
            elif under_way is None and execution.wants_chunk(step):
                execution.requested(step)
                under_way = np.roll(plan, step, axis=0), step
        expected = execution.action(step)
        if expected is None:
            assert not player.ready or player.remaining == 0
            break  # past its end a player holds
        np.testing.assert_allclose(player.action(), expected, atol=1e-7)
