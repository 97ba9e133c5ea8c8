import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.eval.counting_env import CountingEnv, FakeClock, PlanningPolicy

from loopdit.datasets.spec import Observation
from loopdit.eval.rollout import rollout


def test_the_front_of_each_chunk_is_executed_and_then_a_new_one_asked_for():
    env, clock = CountingEnv(goal=7, max_steps=50), FakeClock()
    policy = PlanningPolicy(horizon=16, clock=clock, latencies_s=[0.01])
    done = rollout(env, policy, seed=3, execute_horizon=3, clock=clock)
    assert policy.asked_at == [0, 3, 6]
    assert env.executed == [0, 1, 2, 3, 4, 5, 6]
    assert (done.seed, done.success, done.steps) == (3, True, 7)
    assert policy.seeds == [3]


def test_only_the_step_that_waited_for_a_late_chunk_is_missed():
    env, clock = CountingEnv(goal=6, max_steps=50), FakeClock()
    policy = PlanningPolicy(horizon=16, clock=clock, latencies_s=[0.02, 0.25, 0.02])
    done = rollout(env, policy, seed=0, execute_horizon=2, clock=clock)
    assert done.latencies_s == pytest.approx((0.02, 0.25, 0.02))
    assert (done.control.ticks, done.control.missed) == (6, 1)
    assert done.control.rate_hz == pytest.approx(6 / (5 * 0.1 + 0.25))


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 60))
def test_every_step_executes_one_action_whatever_the_horizons(
    horizon: int, execute_horizon: int, goal: int
):
    env, clock = CountingEnv(goal=goal, max_steps=60), FakeClock()
    policy = PlanningPolicy(horizon, clock, [0.001])
    done = rollout(env, policy, seed=0, execute_horizon=execute_horizon, clock=clock)
    assert env.executed == list(range(goal))
    assert len(done.latencies_s) == -(-goal // min(horizon, execute_horizon))


def test_running_out_of_time_is_no_success():
    clock = FakeClock()
    policy = PlanningPolicy(horizon=4, clock=clock, latencies_s=[0.0])
    done = rollout(CountingEnv(goal=99, max_steps=5), policy, 0, execute_horizon=4, clock=clock)
    assert (done.success, done.unstable, done.steps) == (False, False, 5)


def test_broken_physics_is_told_apart_from_failure():
    clock = FakeClock()
    policy = PlanningPolicy(horizon=4, clock=clock, latencies_s=[0.0])
    env = CountingEnv(goal=1, max_steps=5, unstable=True)
    done = rollout(env, policy, 0, execute_horizon=4, clock=clock)
    assert (done.success, done.unstable) == (False, True)


def test_an_onlooker_sees_the_first_observation_and_every_later_one():
    clock, seen = FakeClock(), list[int]()
    policy = PlanningPolicy(horizon=4, clock=clock, latencies_s=[0.0])

    def look(observation: Observation) -> None:
        seen.append(int(observation["proprio"][0]))

    rollout(CountingEnv(goal=3, max_steps=5), policy, 0, 4, clock, on_observation=look)
    assert seen == [0, 1, 2, 3]
