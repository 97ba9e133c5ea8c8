"""Rollouts with latency on the real `lift`: reproducible to the bit, and worse for being late."""

import time
from collections.abc import Iterator

import numpy as np
import pytest
from tests.eval.conftest import IMAGE_SIZE, WavingPolicy

from loopdit.datasets.spec import Observation
from loopdit.deploy.robot.executions import EXECUTIONS, make_execution
from loopdit.envs.arm_env import ArmEnv
from loopdit.envs.registry import make_env
from loopdit.eval.rollouts.delays import parse_delay
from loopdit.eval.rollouts.faults import parse_faults
from loopdit.eval.rollouts.informed_expert import InformedExpert
from loopdit.eval.rollouts.policies import ExpertPolicy, ModelPolicy, RecordedPolicy, in_process
from loopdit.eval.rollouts.rollout import Answer, Rollout, RolloutPolicy, rollout

SEED = 1_000_000
TOLD = 8  # actions in flight that an execution may commit where a policy does not say


class RepeatingExpert(ExpertPolicy):
    """Plans to do four times what the expert would do now, so that a chunk can be late."""

    def chunk(self, observation: Observation, instruction: str) -> Answer:
        return Answer(super().chunk(observation, instruction).actions.repeat(4, axis=0))


@pytest.fixture(scope="module")
def env() -> Iterator[ArmEnv]:
    env = make_env("lift", IMAGE_SIZE)
    yield env
    env.close()


def drive(
    env: ArmEnv,
    policy: RolloutPolicy,
    delay: str = "0",
    execution: str = "naive",
    execute_horizon: int = 1,
    fault: str = "none",
    seed: int = SEED,
) -> Rollout:
    return rollout(
        env,
        policy,
        seed,
        make_execution(
            execution, execute_horizon, env.policy_spec.action, policy.committed or TOLD
        ),
        parse_delay(delay),
        parse_faults(fault),
        time.perf_counter,
    )


def reproducible(done: Rollout) -> tuple[object, ...]:
    """All that does not come from this machine's clock."""
    return (
        done.outcome, done.steps, done.stage, done.rejected, done.missed, done.mean_loops,
        done.delays, done.jerk, done.state_sha256, done.actions.tobytes(),
    )  # fmt: skip


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_a_delayed_rollout_comes_out_the_same_to_the_bit(
    env: ArmEnv, waving: WavingPolicy, execution: str
):
    delay = "uniform:0-3"
    expert = [drive(env, RepeatingExpert(env), delay, execution) for _ in range(2)]
    assert reproducible(expert[0]) == reproducible(expert[1])
    fault = "dropped:0.2+proprio-noise:0.01"
    model = ModelPolicy(in_process(waving), loops=2, steps=5)
    first = drive(env, model, delay, execution, 3, fault)
    other_env = make_env("lift", IMAGE_SIZE)
    again = drive(other_env, model, delay, execution, 3, fault)
    other_env.close()
    assert reproducible(first) == reproducible(again)
    assert len(set(first.delays)) > 1
    assert first.mean_loops == 2


def test_conditions_meet_the_same_delays(env: ArmEnv, waving: WavingPolicy):
    delays = [
        drive(env, ModelPolicy(in_process(waving), loops, 5), "uniform:0-5", execution).delays
        for loops, execution in ((1, "naive"), (2, "blocking"))
    ]
    shared = min(map(len, delays))
    assert shared >= 20
    assert delays[0][:shared] == delays[1][:shared]


def test_an_expert_that_is_late_and_does_not_wait_fails(env: ArmEnv):
    def successes(delay: str, execution: str) -> int:
        seeds = range(SEED, SEED + 4)
        return sum(
            drive(env, RepeatingExpert(env), delay, execution, seed=seed).success for seed in seeds
        )

    assert successes("0", "naive") == 4
    assert successes("3", "naive") == 0
    assert successes("3", "blocking") == 4


@pytest.mark.parametrize("task", ["lift", pytest.param("stack", marks=pytest.mark.system)])
def test_an_expert_told_of_the_actions_in_flight_loses_nothing_by_being_late(task: str):
    env = make_env(task, IMAGE_SIZE)
    env.observing = False

    def successes(delay: int, execution: str) -> int:
        seeds = range(SEED, SEED + 3)
        return sum(
            drive(env, InformedExpert(env), str(delay), execution, seed=seed).success
            for seed in seeds
        )

    assert [successes(delay, "informed") for delay in range(6)] == [3] * 6
    assert successes(3, "aligned") == 0  # the same plans, and it is not told
    env.close()


def test_waiting_for_each_action_takes_the_delay_longer(env: ArmEnv):
    prompt, late = (drive(env, ExpertPolicy(env), delay, "blocking") for delay in ("0", "2"))
    assert prompt.success
    assert late.success
    assert late.missed == pytest.approx(2 * late.steps / 3, abs=2)
    assert late.time_to_success_s > 2 * prompt.time_to_success_s  # pyright: ignore[reportOptionalOperand, reportOperatorIssue] - both succeeded
    assert (prompt.stage, late.stage) == ("lifted", "lifted")


def test_faults_change_what_a_policy_sees_and_nothing_in_the_world(
    env: ArmEnv, waving: WavingPolicy
):
    fault = "frozen+black:wrist+delayed:2+proprio-noise:0.05"
    expert = [drive(env, ExpertPolicy(env), fault=f).state_sha256 for f in ("none", fault)]
    assert expert[0] == expert[1]
    # This policy looks at proprioception.
    model = ModelPolicy(in_process(waving), loops=1, steps=5)
    seeing = [drive(env, model, fault=f).state_sha256 for f in ("none", "proprio-noise:0.05")]
    assert seeing[0] != seeing[1]


def test_what_is_not_rendered_changes_nothing(env: ArmEnv, waving: WavingPolicy):
    model = ModelPolicy(in_process(waving), loops=1, steps=5)
    found: list[str] = []
    for fault in ("none", "frozen:wrist"):  # the one renders where the policy looks, the other all
        found.append(drive(env, model, "1", "aligned", 3, fault=fault).state_sha256)
    env.observing = False
    found.append(drive(env, model, "1", "aligned", 3).state_sha256)
    env.observing = True
    assert len(set(found)) == 1


def test_recorded_actions_play_a_delayed_rollout_again_to_the_bit(env: ArmEnv):
    done = drive(env, RepeatingExpert(env), "uniform:1-3", "ensemble")
    again = drive(env, RecordedPolicy(done.actions))
    assert again.state_sha256 == done.state_sha256
    assert (again.outcome, again.steps, again.jerk) == (done.outcome, done.steps, done.jerk)
    np.testing.assert_array_equal(again.actions, done.actions)
