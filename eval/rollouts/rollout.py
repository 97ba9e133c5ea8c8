"""One closed-loop rollout: observe, ask for action chunks, execute what is due, until it ends.

While a policy computes, the world moves on, by a delay counted in control steps: the chunk for the
observation of step t is there before step t + delay is executed. Nothing of that depends on how
fast this machine is (except for the delay "wall"), so a rollout comes out the same to the bit.
With delay 0 the world stands still for the policy: success does not suffer from latency, only the
control record shows it. Time enters as `clock`; sockets and models are behind `RolloutPolicy`.

Shapes: H action horizon, A action dim, T control steps.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from loopdit.datasets.spec import Observation
from loopdit.deploy.robot.chunk_execution import ChunkExecution
from loopdit.deploy.robot.committed import with_committed
from loopdit.deploy.robot.guide import GUIDE
from loopdit.deploy.robot.observation_history import ObservationHistory
from loopdit.eval.environment import Environment
from loopdit.eval.rollouts.control import ControlRecord, control_record, never_waiting_record
from loopdit.eval.rollouts.delays import Delay
from loopdit.eval.rollouts.faults import EpisodeFaults, Fault
from loopdit.eval.rollouts.measures import action_jerk, border_jerk

SUCCESS, FAILURE, UNSTABLE, ERROR = "success", "failure", "unstable", "error"
OUTCOMES = (SUCCESS, FAILURE, UNSTABLE, ERROR)


class Answer(NamedTuple):
    """A chunk, actions (H, A) float32 in raw units with H >= 1, the first for the step of the
    observation; and the loops that it really took, None for a policy without that dial."""

    actions: np.ndarray
    loops: int | None = None


class RolloutPolicy(Protocol):
    """Whatever can drive an environment.

    `looks`: whether it looks at what is observed. When it does not, a caller may set
    `env.observing = False`, and nothing is rendered. `history`: how many observations it is given,
    the latest and those of the control steps before it; 1 for the latest alone. `committed`: how
    many actions in flight it can be told of; 0 where it is told nothing.
    """

    looks: bool
    history: int
    committed: int

    def reset(self, seed: int) -> None:
        """Called after the environment was reset to the episode that `seed` names."""
        ...

    def chunk(self, observation: Observation, instruction: str) -> Answer:
        """The next actions, from what is seen now: tensors (O, ...), oldest first, where the
        history O is above 1; COMMITTED where it is told what is in flight; and GUIDE
        (n, A + 1) where the execution has one, see `deploy.robot.guide`."""
        ...


@dataclass(frozen=True)
class Rollout:
    """How one rollout went.

    outcome: one of OUTCOMES; "unstable" is broken physics, and "error" something that raised:
    neither is the policy's failure. steps: T. stage: the furthest one reached. rejected: steps
    whose command the environment refused. missed: steps at which no chunk had an action, where the
    environment's idle action was executed. mean_loops: over chunks, None without a dial.
    latencies_s: what each chunk took on this machine. delays: the control steps it then took to
    come. jerk, border_jerk: see `measures`. actions: (T, A) float32 as executed. state_sha256: over
    the environment's state after the reset and after each step, equal for bit-equal rollouts.
    """

    seed: int
    outcome: str
    steps: int
    stage: str
    rejected: int
    missed: int
    mean_loops: float | None
    latencies_s: tuple[float, ...]
    delays: tuple[int, ...]
    jerk: float
    control: ControlRecord
    state_sha256: str
    actions: np.ndarray = field(compare=False, repr=False)
    border_jerk: float = 0.0  # journals from before there was any have none

    @property
    def success(self) -> bool:
        """The goal was reached in time."""
        return self.outcome == SUCCESS

    @property
    def unstable(self) -> bool:
        """The physics broke."""
        return self.outcome == UNSTABLE

    @property
    def time_to_success_s(self) -> float | None:
        """Seconds of the world's time, None without success."""
        return self.steps * self.control.period_s if self.success else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, without `actions`; `from_dict` reads it back to the bit."""
        plain = {
            **self.__dict__,
            "latencies_s": list(self.latencies_s),
            "delays": list(self.delays),
        }
        del plain["actions"]
        return {**plain, "control": asdict(self.control)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], actions: np.ndarray) -> "Rollout":
        """Read what `to_dict` wrote. Raises KeyError or TypeError for anything else."""
        parts: dict[str, Any] = {
            **data,
            "latencies_s": tuple(data["latencies_s"]),
            "delays": tuple(data["delays"]),
            "control": ControlRecord(**data["control"]),
        }
        return cls(**parts, actions=actions)

    @classmethod
    def errored(cls, seed: int, period_s: float) -> "Rollout":
        """What is left of a rollout in which something raised: its seed."""
        return cls(
            seed=seed,
            outcome=ERROR,
            steps=0,
            stage="",
            rejected=0,
            missed=0,
            mean_loops=None,
            latencies_s=(),
            delays=(),
            jerk=0.0,
            control=control_record([], period_s),
            state_sha256="",
            actions=np.zeros((0, 0), np.float32),
        )


def rollout(
    env: Environment,
    policy: RolloutPolicy,
    seed: int,
    execution: ChunkExecution,
    delay: Delay,
    faults: Sequence[Fault],
    clock: Callable[[], float],
    on_observation: Callable[[Observation], None] | None = None,
) -> Rollout:
    """Drive `env` from `seed` until it ends the episode.

    The policy sees the environment through `faults`. `clock` gives monotonic seconds of this
    machine. `on_observation` sees the first and every later observation, without faults. Frames
    that nobody looks at are not rendered, none at all where `env.observing` is False.
    Raises what the policy or the environment raises, ConfigError for a fault of no camera here.
    """
    observing = env.observing
    try:
        return _drive(env, policy, seed, execution, delay, faults, clock, on_observation)
    finally:
        env.observing = observing


def _drive(
    env: Environment,
    policy: RolloutPolicy,
    seed: int,
    execution: ChunkExecution,
    delay: Delay,
    faults: Sequence[Fault],
    clock: Callable[[], float],
    on_observation: Callable[[Observation], None] | None,
) -> Rollout:
    watched = on_observation is not None
    rendering = env.observing and (policy.looks or watched)
    env.observing = rendering
    observation, info = env.reset(seed=seed)
    policy.reset(seed)
    execution.reset()
    seen_through = EpisodeFaults(faults, env.policy_spec, seed, env.max_steps)
    requests = _Requests(env, policy, seed, execution, delay, clock)
    history = ObservationHistory(policy.history)
    digest = hashlib.sha256(env.state().tobytes())
    actions: list[np.ndarray] = []
    waits: list[float] = []
    rejected = missed = 0
    ended = False
    while not ended:
        if on_observation is not None:
            on_observation(observation)
        step = len(actions)
        history.add(seen_through.apply(observation, step))
        waits.append(requests.serve(history, step))
        action = execution.action(step)
        if action is None:
            missed += 1
            action = env.idle(actions[-1] if actions else None)
        actions.append(np.array(action, np.float32))
        # A fault may show a frame again later, and so does a history.
        needed = watched or bool(faults) or policy.history > 1 or requests.may_ask(step + 1)
        env.observing = rendering and needed
        observation, _, terminated, truncated, info = env.step(actions[-1])
        digest.update(env.state().tobytes())
        rejected += bool(info["rejected"])
        ended = terminated or truncated
    if on_observation is not None:
        on_observation(observation)
    executed = np.stack(actions)
    period_s = env.control_period_s
    return Rollout(
        seed=seed,
        outcome=UNSTABLE if info["unstable"] else SUCCESS if info["success"] else FAILURE,
        steps=len(actions),
        stage=str(info["stage"]),
        rejected=rejected,
        missed=missed,
        mean_loops=float(np.mean(requests.loops)) if requests.loops else None,
        latencies_s=tuple(requests.latencies_s),
        delays=tuple(requests.delays),
        jerk=action_jerk(executed, env.policy_spec.action),
        border_jerk=border_jerk(executed, env.policy_spec.action, requests.came),
        control=(
            control_record(waits, period_s)
            if delay.clock == "paused"
            else never_waiting_record(len(actions), missed, period_s)
        ),
        state_sha256=digest.hexdigest(),
        actions=executed,
    )


class _Requests:
    """The chunks that a rollout asks for, at most one at a time, and when they come."""

    def __init__(
        self,
        env: Environment,
        policy: RolloutPolicy,
        seed: int,
        execution: ChunkExecution,
        delay: Delay,
        clock: Callable[[], float],
    ) -> None:
        self._env = env
        self._policy = policy
        self._seed = seed
        self._execution = execution
        self._delay = delay
        self._clock = clock
        self._told = env.policy_spec.with_committed(policy.committed)
        # The chunk under way: its actions, the step it was asked at, the step it comes at.
        self._under_way: tuple[np.ndarray, int, int] | None = None
        self.came: list[int] = []  # the steps before which chunks came
        self.latencies_s: list[float] = []
        self.delays: list[int] = []
        self.loops: list[int] = []

    def may_ask(self, step: int) -> bool:
        """False where `serve` will surely not look at the observation of the coming `step`."""
        if self._under_way is not None:
            return self._under_way[2] <= step
        return self._execution.wants_chunk(step)

    def serve(self, history: ObservationHistory, step: int) -> float:
        """Load what comes at `step`, then ask for more if that is wanted; seconds that took."""
        self._load_what_came(step)
        if self._under_way is not None or not self._execution.wants_chunk(step):
            return 0.0
        given = with_committed(history.stacked(), self._execution.committed(step), self._told)
        guide = self._execution.guide(step)
        if len(guide):
            given = {**given, GUIDE: guide}
        self._execution.requested(step)
        asked = self._clock()
        answer = self._policy.chunk(given, self._env.instruction)
        latency_s = self._clock() - asked
        delay = self._delay.steps(
            self._seed, len(self.delays), latency_s, self._env.control_period_s
        )
        self.latencies_s.append(latency_s)
        self.delays.append(delay)
        if answer.loops is not None:
            self.loops.append(answer.loops)
        self._under_way = (answer.actions, step, step + delay)
        self._load_what_came(step)  # at once where there is no delay
        return latency_s

    def _load_what_came(self, step: int) -> None:
        if self._under_way is not None and self._under_way[2] <= step:
            actions, observed_step, _ = self._under_way
            self._under_way = None
            self._execution.load(actions, observed_step, step)
            self.came.append(step)
