"""Drives single episodes of one policy and its controls; opens the policy and environments once.

This is what a worker process has. Which episode comes next, and what becomes of it, is decided
elsewhere.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Self, cast

from loopdit.deploy.backends import AUTO
from loopdit.deploy.bundle.manifest import FP32
from loopdit.deploy.messages import ErrorCode, WireError
from loopdit.deploy.robot.chunk_execution import ChunkExecution
from loopdit.deploy.robot.commanded_pose import divided_limits
from loopdit.deploy.robot.executions import make_execution
from loopdit.errors import ConfigError, LoopditError, ServerError
from loopdit.eval.environment import Environment, EnvironmentGone
from loopdit.eval.open_env import DEFAULT_IMAGE_SIZE, open_env
from loopdit.eval.rollouts.condition import Condition
from loopdit.eval.rollouts.delays import Delay, parse_delay
from loopdit.eval.rollouts.divided_policy import DividedPolicy
from loopdit.eval.rollouts.faults import parse_faults, require_cameras, require_dispensable
from loopdit.eval.rollouts.policies import require_model
from loopdit.eval.rollouts.policy_sources import PolicySource, open_policy
from loopdit.eval.rollouts.rollout import Rollout, RolloutPolicy, rollout
from loopdit.eval.rollouts.rollout_record import Episode
from loopdit.eval.rollouts.traced_env import TracedEnv
from loopdit.eval.runs.plan import CONTROLS, Job
from loopdit.eval.runs.worker_pool import ATTEMPTS


@dataclass(frozen=True)
class Setup:
    """What a worker has to know: some of the options of policy-eval."""

    policy: str
    env: str
    image_size: int = 0
    bundle: str = ""
    data: str = ""
    openpi_keys: str = ""
    backend: str = AUTO
    precision: str = FP32


def start_runner(setup: Setup, model_id: str | None) -> Callable[[Job], Episode]:
    """For a pool: everything opened, ready for jobs. What is open is closed with the process.

    Raises ServerError where the policy is no longer the model `model_id`.
    """
    runner = EpisodeRunner(setup)
    try:
        require_model(setup.policy, runner.source.model_id, model_id)
    except ServerError:
        runner.close()
        raise
    return runner.run


class EpisodeRunner:
    """Raises what opening the policy raises; environments are opened when a job needs them."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._stack = ExitStack()
        self._envs: dict[tuple[float, str], Environment] = {}
        self._delays: dict[str, Delay] = {}
        self.source: PolicySource = self._stack.enter_context(
            open_policy(
                setup.policy,
                setup.bundle,
                setup.data,
                setup.openpi_keys,
                setup.backend,
                setup.precision,
            )
        )
        self._sources = {"": self.source}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what is open; a second time there is nothing."""
        while self._envs:
            self._envs.popitem()[1].close()
        self._stack.close()

    def env(self, rate_hz: float = 0.0, variation: str = "none") -> Environment:
        """The environment under these, the same one at every call.

        Raises SpecMismatch where the policy is made for another one. Another control rate than the
        policy's is no mismatch where it was asked for.
        """
        key = (rate_hz, variation)
        if key not in self._envs:
            env = open_env(self._setup.env, self._image_size(), rate_hz, variation)
            self._envs[key] = env
            self._require_fit(env, rate_hz)
        return self._envs[key]

    def require_condition(self, condition: Condition) -> None:
        """Raise what would keep a rollout under `condition` from beginning."""
        env = self.env(condition.rate_hz, condition.variation)
        faults = parse_faults(condition.fault)
        require_cameras(faults, env.policy_spec)
        require_dispensable(faults, self.source.spec)
        _execution(condition, _policy(self.source, env, condition), env)

    def possible_controls(self) -> list[str]:
        """Those that this environment allows: not every suite has experts or limits of actions."""
        env = self.env()
        return [name for name in CONTROLS if self._can(name, env)]

    def run(self, job: Job) -> Episode:
        """One episode. What raises in it is an outcome, "error"; a mistake of the user's is not.

        An environment whose process died is opened anew and the episode run again, which is
        counted. Raises LoopditError, such as a policy server that is gone.
        """
        died = 0
        while True:
            traced = TracedEnv(self.env(job.condition.rate_hz, job.condition.variation))
            try:
                return replace(self._attempt(job, traced), restarts=died)
            except EnvironmentGone as error:
                died += 1
                self._forget(job.condition)
                if died == ATTEMPTS:
                    lost = Rollout.errored(job.seed, traced.control_period_s)
                    return Episode(job, lost, error=str(error), restarts=died)

    def _attempt(self, job: Job, traced: TracedEnv) -> Episode:
        condition, env = job.condition, traced.env
        policy = _policy(self._source(job.subject), env, condition)
        try:
            done = self._rollout(job, traced, policy)
        # The one place that carries on after any exception: the policy's failures must not be
        # mixed with ours or the simulator's, which are counted apart and shown.
        except Exception as error:
            if isinstance(error, LoopditError) and not _policy_raised(error):
                raise
            lost = Rollout.errored(job.seed, env.control_period_s)
            return Episode(job, lost, traced.trace(), error=f"{type(error).__name__}: {error}")
        return Episode(job, done, traced.trace())

    def _forget(self, condition: Condition) -> None:
        """Close an environment that is gone; the next call of `env` opens another."""
        self._envs.pop((condition.rate_hz, condition.variation)).close()

    def _rollout(self, job: Job, traced: TracedEnv, policy: RolloutPolicy) -> Rollout:
        condition, env = job.condition, traced.env
        if condition.delay not in self._delays:  # one of a file reads it
            self._delays[condition.delay] = parse_delay(condition.delay)
        return rollout(
            cast(Environment, traced),
            policy,
            job.seed,
            _execution(condition, policy, env),
            self._delays[condition.delay],
            parse_faults(condition.fault),
            clock=time.perf_counter,
        )

    def _source(self, subject: str) -> PolicySource:
        if subject not in self._sources:
            opened = self._stack.enter_context(open_policy(subject, "", ""))
            self._sources[subject] = opened
        return self._sources[subject]

    def _can(self, name: str, env: Environment) -> bool:
        if name == self.source.kind:
            return False  # it is what is evaluated
        try:
            # Asking is the only way to know: an expert of a suite may be missing for one task.
            self._source(name).make(env, 0, 0)
            if name == "expert":
                env.reset(seed=0)
                env.expert()
        except ConfigError:  # it has none, or no limits to draw from; anything else is a fault
            return False
        return True

    def _image_size(self) -> int:
        if self._setup.image_size or self.source.spec is None:
            return self._setup.image_size or DEFAULT_IMAGE_SIZE
        wanted = self.source.spec.recorded.cameras
        return wanted[0].shape[0] if wanted else 0

    def _require_fit(self, env: Environment, rate_hz: float) -> None:
        spec = self.source.spec
        if spec is None:
            return
        offered = env.policy_spec
        if rate_hz:
            offered = replace(offered, control_period_s=spec.control_period_s)
        spec.recorded.require_equal(
            offered,
            f"the policy {self._setup.policy}",
            f"the environment {self._setup.env}",
            "Evaluate a policy in the environment that its demonstrations come from.",
        )


def _execution(condition: Condition, policy: RolloutPolicy, env: Environment) -> ChunkExecution:
    """Raises ConfigError where the policy cannot be played so."""
    action = divided_limits(env.policy_spec.action, condition.divide)
    horizon = condition.execute_horizon * condition.divide
    return make_execution(condition.execution, horizon, action, policy.committed)


def _policy(source: PolicySource, env: Environment, condition: Condition) -> RolloutPolicy:
    policy = source.policy(env, condition)
    if condition.divide == 1:
        return policy
    return DividedPolicy(policy, condition.divide, env.policy_spec.action.labels)


def _policy_raised(error: LoopditError) -> bool:
    """Whether a server is well and its policy raised, or made actions that are not numbers."""
    codes = (ErrorCode.INTERNAL, ErrorCode.NONFINITE)
    return isinstance(error, WireError) and error.code in codes
