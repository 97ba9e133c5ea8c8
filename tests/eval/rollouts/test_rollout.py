import json
from collections import deque
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.eval.counting_env import IDLE, CountingEnv, FakeClock, PlanningPolicy

from loopdit.datasets.spec import Observation
from loopdit.deploy.robot.committed import unpacked
from loopdit.deploy.robot.executions import make_execution
from loopdit.errors import ConfigError
from loopdit.eval.rollouts.delays import parse_delay
from loopdit.eval.rollouts.informed_expert import InformedExpert
from loopdit.eval.rollouts.rollout import Answer, Rollout, rollout


def drive(
    env: CountingEnv,
    policy: PlanningPolicy,
    execute_horizon: int,
    *,
    seed: int = 0,
    execution: str = "aligned",
    delay: str = "0",
    on_observation: Callable[[Observation], None] | None = None,
) -> Rollout:
    return rollout(
        env,
        policy,
        seed,
        make_execution(execution, execute_horizon, env.policy_spec.action),
        parse_delay(delay),
        (),
        policy.clock,
        on_observation,
    )


def planning(horizon: int, latencies_s: list[float] | None = None) -> PlanningPolicy:
    return PlanningPolicy(horizon, FakeClock(), latencies_s or [0.01])


def test_the_front_of_each_chunk_is_executed_and_then_a_new_one_asked_for():
    env, policy = CountingEnv(goal=7, max_steps=50), planning(horizon=16)
    done = drive(env, policy, execute_horizon=3, seed=3)
    assert policy.asked_at == [0, 3, 6]
    assert env.executed == [0, 1, 2, 3, 4, 5, 6]
    assert (done.seed, done.outcome, done.success, done.steps) == (3, "success", True, 7)
    assert done.actions.tolist() == [[0], [1], [2], [3], [4], [5], [6]]
    assert (done.missed, done.delays, done.mean_loops) == (0, (0, 0, 0), 2.0)
    assert policy.seeds == [3]


def test_only_the_step_that_waited_for_a_late_chunk_is_missed():
    env, policy = CountingEnv(goal=6, max_steps=50), planning(16, [0.02, 0.25, 0.02])
    done = drive(env, policy, execute_horizon=2)
    assert done.latencies_s == pytest.approx((0.02, 0.25, 0.02))
    assert (done.control.ticks, done.control.missed) == (6, 1)
    assert done.control.rate_hz == pytest.approx(6 / (5 * 0.1 + 0.25))


def slow_rollout(env: CountingEnv, policy: PlanningPolicy, execute_horizon: int) -> list[float]:
    """What a rollout does without delay, in as few lines as it takes."""
    observation, _ = env.reset(seed=0)
    pending: deque[np.ndarray] = deque()
    ended = False
    while not ended:
        if not pending:
            pending.extend(policy.chunk(observation, env.instruction).actions[:execute_horizon])
        observation, _, terminated, truncated, _ = env.step(pending.popleft())
        ended = terminated or truncated
    return env.executed


@given(
    st.sampled_from(["blocking", "naive", "aligned"]),
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(1, 60),
)
def test_without_delay_every_step_executes_one_action_whatever_the_horizons(
    execution: str, horizon: int, execute_horizon: int, goal: int
):
    slow, policy = planning(horizon), planning(horizon)
    slow.reset(0)
    expected = slow_rollout(CountingEnv(goal, max_steps=60), slow, execute_horizon)
    env = CountingEnv(goal, max_steps=60)
    done = drive(env, policy, execute_horizon, execution=execution)
    assert env.executed == expected == list(range(goal))
    assert policy.asked_at == slow.asked_at
    assert len(done.latencies_s) == -(-goal // min(horizon, execute_horizon))


def test_while_a_chunk_is_late_the_environment_idles_and_the_misses_are_counted():
    env, policy = CountingEnv(goal=99, max_steps=10), planning(horizon=4)
    done = drive(env, policy, execute_horizon=3, execution="blocking", delay="2")
    assert env.executed == [IDLE, IDLE, 0, 1, 2, IDLE, IDLE, 5, 6, 7]
    assert env.idled_after == [None, IDLE, 2, IDLE]
    assert policy.asked_at == [0, 5]
    assert (done.missed, done.delays) == (4, (2, 2))


def test_the_world_moves_on_under_the_old_chunk_while_the_next_one_is_computed():
    env, policy = CountingEnv(goal=99, max_steps=9), planning(horizon=6)
    drive(env, policy, execute_horizon=3, execution="naive", delay="2")
    assert env.executed == [IDLE, IDLE, 0, 1, 2, 3, 4, 5, 6]
    assert policy.asked_at == [0, 5]
    drive(env, policy, execute_horizon=3, execution="aligned", delay="2")
    assert env.executed == [IDLE, IDLE, 2, 3, 4, 5, 6, 7, 8]
    assert policy.asked_at == [0, 3, 6]


def test_only_one_chunk_is_under_way_at_a_time():
    env, policy = CountingEnv(goal=99, max_steps=12), planning(horizon=12)
    drive(env, policy, execute_horizon=1, execution="ensemble", delay="3")
    assert policy.asked_at == [0, 3, 6, 9]


def test_a_delayed_robot_ticks_on_time_and_its_misses_are_in_the_control_record():
    env, policy = CountingEnv(goal=99, max_steps=10), planning(4, [5.0])
    done = drive(env, policy, execute_horizon=4, execution="blocking", delay="1")
    assert (done.control.ticks, done.control.missed) == (10, 2)
    assert done.control.rate_hz == pytest.approx(10)
    assert done.latencies_s == (5.0, 5.0)


def test_on_the_wall_clock_a_chunk_is_as_late_as_it_took():
    env, policy = CountingEnv(goal=99, max_steps=12), planning(2, [0.25, 0.05])
    done = drive(env, policy, execute_horizon=2, execution="blocking", delay="wall")
    assert done.delays == (3, 1, 3)
    assert env.executed == [IDLE] * 3 + [0, 1] + [IDLE, 5, 6] + [IDLE] * 3 + [8]


def test_running_out_of_time_is_no_success_and_the_furthest_stage_is_kept():
    done = drive(CountingEnv(goal=8, max_steps=5), planning(4), execute_horizon=4)
    assert (done.outcome, done.success, done.unstable, done.steps) == ("failure", False, False, 5)
    assert (done.stage, done.time_to_success_s) == ("halfway", None)


def test_time_to_success_is_the_worlds():
    done = drive(CountingEnv(goal=8, max_steps=9), planning(4, [7.0]), execute_horizon=4)
    assert done.time_to_success_s == pytest.approx(0.8)


def test_broken_physics_is_told_apart_from_failure():
    done = drive(CountingEnv(goal=1, max_steps=5, unstable=True), planning(4), execute_horizon=4)
    assert (done.outcome, done.success, done.unstable) == ("unstable", False, True)


def test_commands_that_the_environment_refused_are_counted():
    policy = planning(4)
    policy.scale = -3.0
    done = drive(CountingEnv(goal=99, max_steps=9), policy, execute_horizon=4)
    assert done.rejected == 8  # all but 0


def test_an_onlooker_sees_the_first_observation_and_every_later_one():
    seen: list[int] = []

    def look(observation: Observation) -> None:
        seen.append(int(observation["proprio"][0]))

    drive(CountingEnv(goal=3, max_steps=5), planning(4), 4, on_observation=look)
    assert seen == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("execution", "delay", "looked_at", "rendered"),
    [
        ("aligned", "0", [0, 3, 6], [0, 3, 6]),
        ("blocking", "2", [0, 5], [0, 2, 5, 7]),  # where a chunk comes, another may be wanted
        ("ensemble", "2", [0, 2, 4, 6], [0, 2, 4, 6]),
    ],
)
def test_frames_are_rendered_where_the_policy_may_look_and_nowhere_else(
    execution: str, delay: str, looked_at: list[int], rendered: list[int]
):
    env, policy = CountingEnv(goal=99, max_steps=8), planning(6)
    drive(env, policy, execute_horizon=3, execution=execution, delay=delay)
    assert [step for step in env.observed_at if step < 8] == rendered
    assert policy.asked_at == looked_at
    assert env.observing


def test_with_an_onlooker_every_frame_is_rendered_and_with_a_blind_policy_none():
    env, policy = CountingEnv(goal=99, max_steps=4), planning(6)
    drive(env, policy, 3, on_observation=lambda observation: None)
    assert env.observed_at == [0, 1, 2, 3, 4]
    policy.looks = False
    drive(env, policy, 3)
    assert env.observed_at == []
    policy.looks, env.observing = True, False
    drive(env, policy, 3)
    assert env.observed_at == []
    assert not env.observing


@pytest.mark.parametrize("execute_horizon", [1, 3])
def test_a_policy_with_history_sees_each_control_step_however_many_it_executes_at_once(
    execute_horizon: int,
):
    seen: list[list[float]] = []

    class Remembering(PlanningPolicy):
        history = 3

        def chunk(self, observation: Observation, instruction: str) -> Answer:
            seen.append(observation["proprio"][:, 0].tolist())
            return super().chunk({"proprio": observation["proprio"][-1]}, instruction)

    env, policy = CountingEnv(goal=9, max_steps=7), Remembering(4, FakeClock(), [0.0])
    for _ in range(2):  # the second episode remembers nothing of the first
        seen.clear()
        drive(env, policy, execute_horizon)
        asked = range(0, 7, execute_horizon)
        assert seen == [[max(0, t - 2), max(0, t - 1), t] for t in asked]


@pytest.mark.parametrize("delay", ["0", "1", "3", "uniform:0-4"])
def test_a_policy_told_what_is_in_flight_counts_on_without_a_gap_or_a_repetition(delay: str):
    class Told(PlanningPolicy):
        """Plans from the actions that were executed and those that it is told of."""

        committed = 5
        env: CountingEnv

        def chunk(self, observation: Observation, instruction: str) -> Answer:
            assert instruction == "count"
            told = unpacked(observation["committed"])
            assert observation["committed"].shape == (5, 2)
            done = [value for value in self.env.executed if value != IDLE]
            assert told.ravel().tolist() == list(range(len(done), len(done) + len(told)))
            planned = np.arange(len(done), len(done) + self.horizon, dtype=np.float32)
            return Answer(planned[:, None], loops=2)

    env, policy = CountingEnv(goal=99, max_steps=40), Told(12, FakeClock(), [0.0])
    policy.env = env
    for _ in range(2):
        drive_told(env, policy, delay)
        moved = [value for value in env.executed if value != IDLE]
        assert moved == list(range(len(moved)))
        assert len(moved) >= 36


def drive_told(env: CountingEnv, policy: PlanningPolicy, delay: str) -> None:
    execution = make_execution("informed", 3, env.policy_spec.action, policy.committed)
    rollout(env, policy, 0, execution, parse_delay(delay), (), policy.clock)


def test_an_expert_that_cannot_be_told_what_is_in_flight_is_refused():
    with pytest.raises(ConfigError, match=r"this environment's cannot.*policy=expert"):
        InformedExpert(CountingEnv(goal=1, max_steps=1))


def test_what_raises_leaves_the_environment_observing_as_it_was():
    class Failing(PlanningPolicy):
        def chunk(self, observation: Observation, instruction: str) -> Answer:
            raise OSError("gone")

    env = CountingEnv(goal=9, max_steps=9)
    policy = Failing(4, FakeClock(), [0.0])
    policy.looks = False
    with pytest.raises(OSError, match="gone"):
        drive(env, policy, 4)
    assert env.observing


def test_a_rollout_comes_back_from_json_to_the_bit():
    done = drive(CountingEnv(goal=5, max_steps=9), planning(3, [1 / 3, 0.1]), 2, delay="1")
    data = json.loads(json.dumps(done.to_dict()))
    again = Rollout.from_dict(data, done.actions)
    assert again == done
    assert again.actions is done.actions
    errored = Rollout.errored(seed=4, period_s=0.1)
    assert (errored.outcome, errored.success, errored.unstable) == ("error", False, False)
    assert Rollout.from_dict(errored.to_dict(), errored.actions) == errored


def test_the_digest_changes_with_any_action_and_with_nothing_else():
    def digest(scale: float, latency_s: float) -> str:
        policy = planning(4, [latency_s])
        policy.scale = scale
        return drive(CountingEnv(goal=5, max_steps=9), policy, 4).state_sha256

    assert digest(1, 0.0) == digest(1, 0.5)
    assert digest(1, 0.0) != digest(1.001, 0.0)
