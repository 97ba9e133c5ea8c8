"""Played indices against tables written by hand: H = 6 actions a chunk, 3 of them executed.

"4:1" is action 1 of the chunk for the observation of step 4, "." a step without an action.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.deploy.robot.test_chunk_player import FakeClock

from loopdit.datasets.spec import FROM_COMMITTED, FROM_OBSERVATION
from loopdit.datasets.tensor_spec import TensorSpec
from loopdit.deploy.robot.chunk_execution import ENSEMBLE_M, ChunkExecution
from loopdit.deploy.robot.chunk_player import ChunkPlayer
from loopdit.deploy.robot.committed import from_observation
from loopdit.deploy.robot.executions import EXECUTIONS, make_execution
from loopdit.errors import ConfigError

HORIZON, EXECUTE = 6, 3
TOLD = 8  # actions in flight that the policy can be told of
ACTION = TensorSpec("action", (1,), "float32", labels=("opening",))  # says where to be: no shift
NO_DELAY = "0:0 0:1 0:2 3:0 3:1 3:2 6:0 6:1 6:2 9:0 9:1 9:2"
PLAYED = {
    ("blocking", 0): NO_DELAY,
    ("blocking", 1): ".   0:0 0:1 0:2 .   4:0 4:1 4:2 .   8:0 8:1 8:2",
    ("blocking", 2): ".   .   0:0 0:1 0:2 .   .   5:0 5:1 5:2 .   .  ",
    ("blocking", 3): ".   .   .   0:0 0:1 0:2 .   .   .   6:0 6:1 6:2",
    ("blocking", 4): ".   .   .   .   0:0 0:1 0:2 .   .   .   .   7:0",
    ("blocking", 5): ".   .   .   .   .   0:0 0:1 0:2 .   .   .   .  ",
    ("naive", 0): NO_DELAY,
    ("naive", 1): ".   0:0 0:1 0:2 0:3 4:0 4:1 4:2 4:3 8:0 8:1 8:2",
    ("naive", 2): ".   .   0:0 0:1 0:2 0:3 0:4 5:0 5:1 5:2 5:3 5:4",
    ("naive", 3): ".   .   .   0:0 0:1 0:2 0:3 0:4 0:5 6:0 6:1 6:2",
    ("naive", 4): ".   .   .   .   0:0 0:1 0:2 0:3 0:4 0:5 .   7:0",
    ("naive", 5): ".   .   .   .   .   0:0 0:1 0:2 0:3 0:4 0:5 .  ",
    ("aligned", 0): NO_DELAY,
    ("aligned", 1): ".   0:1 0:2 0:3 3:1 3:2 3:3 6:1 6:2 6:3 9:1 9:2",
    ("aligned", 2): ".   .   0:2 0:3 0:4 3:2 3:3 3:4 6:2 6:3 6:4 9:2",
    ("aligned", 3): ".   .   .   0:3 0:4 0:5 3:3 3:4 3:5 6:3 6:4 6:5",
    ("aligned", 4): ".   .   .   .   0:4 0:5 .   .   4:4 4:5 .   .  ",
    ("aligned", 5): ".   .   .   .   .   0:5 .   .   .   .   5:5 .  ",
    ("informed", 0): NO_DELAY,
    ("informed", 1): ".   0:0 0:1 0:2 3:1 3:2 3:3 6:1 6:2 6:3 9:1 9:2",
    ("informed", 2): ".   .   0:0 0:1 0:2 3:2 3:3 3:4 6:2 6:3 6:4 9:2",
    ("informed", 3): ".   .   .   0:0 0:1 0:2 3:3 3:4 3:5 6:3 6:4 6:5",
    ("informed", 4): ".   .   .   .   0:0 0:1 0:2 0:3 4:4 4:5 .   .   8:2",
    ("informed", 5): ".   .   .   .   .   0:0 0:1 0:2 0:3 0:4 5:5 .  ",
}
# Of the ensemble: the observations whose chunks are averaged at each step.
AVERAGED = {
    0: "0 01 012 0123 01234 012345 123456 234567 345678 456789",
    1: ". 0 01 012 0123 01234 12345 23456 34567 45678",
    2: ". . 0 0 02 02 24 24 46 46",
    3: ". . . 0 0 0 3 3 3 6",
    4: ". . . . 0 0 . . 4 4",
    5: ". . . . . 0 . . . .",
}


def chunk_for(observed: int, horizon: int = HORIZON) -> np.ndarray:
    """(H, 1): 10 times the observed step, plus the index."""
    return 10.0 * observed + np.arange(horizon, dtype=np.float32)[:, None]


def played(
    execution: ChunkExecution, delay: int, steps: int, horizon: int = HORIZON
) -> list[float | None]:
    """What is executed where each chunk comes `delay` steps after its observation."""
    under_way: int | None = None
    actions: list[float | None] = []
    for step in range(steps):
        if under_way is not None and under_way + delay == step:
            execution.load(chunk_for(under_way, horizon), under_way, step)
            under_way = None
        if under_way is None and execution.wants_chunk(step):
            execution.requested(step)
            under_way = step
            if delay == 0:
                execution.load(chunk_for(step, horizon), step, step)
                under_way = None
        action = execution.action(step)
        actions.append(None if action is None else action.item())
    return actions


@pytest.mark.parametrize(("name", "delay"), PLAYED)
def test_each_way_plays_the_actions_of_its_table(name: str, delay: int):
    expected = PLAYED[name, delay].split()
    found = played(make_execution(name, EXECUTE, ACTION, TOLD), delay, len(expected))
    observed = [None if a is None else f"{int(a) // 10}:{int(a) % 10}" for a in found]
    assert observed == [None if cell == "." else cell for cell in expected]


@pytest.mark.parametrize("delay", AVERAGED)
def test_ensembling_averages_all_actions_meant_for_the_step_and_weighs_older_ones_more(delay: int):
    expected: list[float | None] = []
    for step, cell in enumerate(AVERAGED[delay].split()):
        meant = [10.0 * int(o) + step - int(o) for o in cell if o != "."]
        weights = [np.exp(-ENSEMBLE_M * i) for i in range(len(meant))]
        mean = sum(w * a for w, a in zip(weights, meant, strict=True)) / sum(weights or [1])
        expected.append(float(mean) if meant else None)
    found = played(make_execution("ensemble", EXECUTE, ACTION), delay, len(expected))
    assert [a is None for a in found] == [a is None for a in expected]
    np.testing.assert_allclose(
        [a for a in found if a is not None], [a for a in expected if a is not None], rtol=1e-6
    )


@given(delay=st.integers(0, 12), horizon=st.integers(1, 12), execute=st.integers(1, 14))
def test_blocking_waits_exactly_the_delay_before_each_chunk_and_plays_its_front_in_order(
    delay: int, horizon: int, execute: int
):
    front = min(execute, horizon)
    found = played(make_execution("blocking", execute, ACTION), delay, 60, horizon)
    for step, action in enumerate(found):
        cycle, phase = divmod(step, delay + front)
        observed = cycle * (delay + front)
        assert action == (None if phase < delay else chunk_for(observed, horizon)[phase - delay])


@given(delay=st.integers(0, 5), execute=st.integers(1, 8))
def test_aligned_plays_in_steps_what_the_chunk_player_plays_in_seconds(delay: int, execute: int):
    clock, horizon, period_s = FakeClock(), 16, 0.02
    player = ChunkPlayer(control_period=period_s, clock=clock)
    found = played(make_execution("aligned", execute, ACTION), delay, 40, horizon)
    asked = list(range(0, 40, max(execute, delay)))
    for step, action in enumerate(found):
        clock.now = step * period_s
        for observed in asked:
            if observed + delay == step:
                player.load(chunk_for(observed, horizon), observed_at=observed * period_s)
        assert action == (player.action().item() if player.ready else None)


@given(delay=st.integers(0, 5), execute=st.integers(1, 8))
def test_informed_plays_and_tells_in_steps_what_the_chunk_player_does_in_seconds(
    delay: int, execute: int
):
    clock, period_s = FakeClock(), 0.02
    execution = make_execution("informed", execute, ACTION, 7)
    player = ChunkPlayer(control_period=period_s, clock=clock, informed=True)
    under_way: tuple[np.ndarray, int] | None = None
    expected_s = 0.0
    for step in range(60):
        clock.now = step * period_s
        for _ in range(2):
            if under_way is not None and under_way[1] + delay <= step:
                execution.load(*under_way, step)
                player.load(under_way[0], observed_at=under_way[1] * period_s)
                under_way, expected_s = None, delay * period_s
            elif under_way is None and execution.wants_chunk(step):
                told = execution.committed(step)
                np.testing.assert_array_equal(told, player.committed(expected_s, 7))
                execution.requested(step)
                # The next 16 actions after what is told, that in front.
                first = told[0, 0] if len(told) else 100.0 * step
                under_way = first + np.arange(16, dtype=np.float32)[:, None], step
        action = execution.action(step)
        assert (None if action is None else action.item()) == (
            player.action().item() if player.ready else None
        )


@given(
    name=st.sampled_from(["blocking", "naive", "aligned", "informed"]),
    horizon=st.integers(1, 12),
    execute=st.integers(1, 14),
)
def test_without_delay_all_but_the_ensemble_play_the_front_of_each_chunk(
    name: str, horizon: int, execute: int
):
    front = min(horizon, execute)
    expected = [10.0 * (step // front * front) + step % front for step in range(40)]
    assert played(make_execution(name, execute, ACTION, TOLD), 0, 40, horizon) == expected


@pytest.mark.parametrize("name", EXECUTIONS)
def test_a_reset_forgets_the_episode_before(name: str):
    execution = make_execution(name, EXECUTE, ACTION, TOLD)
    first = played(execution, 2, 9)
    execution.reset()
    assert execution.action(0) is None
    assert played(execution, 2, 9) == first


@pytest.mark.parametrize("name", EXECUTIONS)
def test_an_empty_chunk_is_refused(name: str):
    with pytest.raises(ValueError, match="at least one action"):
        make_execution(name, EXECUTE, ACTION, TOLD).load(np.empty((0, 1), np.float32), 0, 0)


class Robot:
    """Counts the actions it has executed. Its policy plans to say that count, on and on, from what
    it sees and is told: then every action must be executed once, in order."""

    def __init__(self, execution: ChunkExecution, chunk_from: str, horizon: int) -> None:
        self.execution, self.chunk_from, self.horizon = execution, chunk_from, horizon
        self.executed: list[float] = []
        self.told: list[int] = []
        self.idle = 0

    def plan(self, step: int) -> np.ndarray:
        """(H, 1)."""
        told = self.execution.committed(step)
        self.told.append(len(told))
        count = len(self.executed)
        assert told.ravel().tolist() == list(range(count, count + len(told)))
        first = count + (len(told) if self.chunk_from == FROM_COMMITTED else 0)
        chunk = np.arange(first, first + self.horizon, dtype=np.float32)[:, None]
        return from_observation(chunk, told, self.chunk_from)

    def run(self, steps: int, delays: list[int]) -> None:
        under_way: tuple[np.ndarray, int, int] | None = None
        asked = 0
        for step in range(steps):
            for _ in range(2):  # what comes at once is asked for again only at the next step
                if under_way is not None and under_way[2] <= step:
                    self.execution.load(*under_way[:2], step)
                    under_way = None
                elif under_way is None and self.execution.wants_chunk(step):
                    planned = self.plan(step)
                    self.execution.requested(step)
                    under_way = planned, step, step + delays[asked % len(delays)]
                    asked += 1
            action = self.execution.action(step)
            if action is None:
                self.idle += 1
            else:
                self.executed.append(action.item())


@given(
    delays=st.lists(st.integers(0, 7), min_size=1, max_size=12),
    execute=st.integers(1, 10),
    horizon=st.integers(1, 12),
    most=st.integers(1, 9),
    chunk_from=st.sampled_from([FROM_OBSERVATION, FROM_COMMITTED]),
)
def test_a_policy_told_what_is_in_flight_has_its_plan_executed_whole_and_in_order_however_late(
    delays: list[int], execute: int, horizon: int, most: int, chunk_from: str
):
    robot = Robot(make_execution("informed", execute, ACTION, most), chunk_from, horizon)
    robot.run(80, delays)
    assert robot.executed == list(range(len(robot.executed)))
    assert max(robot.told) <= most
    assert robot.told[0] == 0


@given(delay=st.integers(0, 7), execute=st.integers(1, 8))
def test_after_its_first_chunk_an_informed_robot_never_stands_still_where_chunks_are_long_enough(
    delay: int, execute: int
):
    robot = Robot(
        make_execution("informed", execute, ACTION, 7), FROM_OBSERVATION, 2 * delay + execute
    )
    robot.run(80, [delay])
    assert robot.idle == delay
    assert set(robot.told[1:]) == {delay}


def test_as_many_actions_are_committed_as_the_longest_of_the_last_delays():
    execution = make_execution("informed", 2, ACTION, 6)
    robot = Robot(execution, FROM_OBSERVATION, 30)
    robot.run(120, [1, 3, 9, *[2] * 30])
    assert robot.told[:4] == [0, 1, 3, 6]  # 9, but it can be told of 6
    assert robot.told[-1] == 2  # that long one is forgotten


def test_a_policy_that_cannot_be_told_is_refused_with_the_other_ways():
    with pytest.raises(ConfigError, match=r"no tensor `committed`.*execution=blocking, naive, al"):
        make_execution("informed", 8, ACTION)
    assert make_execution("aligned", 8, ACTION, committed=4).committed(0).size == 0


def test_an_unknown_execution_and_a_horizon_of_nothing_are_refused_with_what_there_is():
    with pytest.raises(ConfigError, match=r"execution=best is unknown.*blocking, naive, aligned"):
        make_execution("best", 8, ACTION)
    with pytest.raises(ConfigError, match="execute_horizon=0 must be at least 1"):
        make_execution("naive", 0, ACTION)
