"""What can drive a rollout: a model with a compute dial, and the baselines it is measured against.

Baselines answer one action at a time, (1, A), from what they are: the environment's own expert, a
constant, noise, or a recorded episode; none of them looks at what is observed. See
`rollout.RolloutPolicy` for the two methods.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np

from loopdit.datasets.spec import (
    COMMITTED,
    FROM_OBSERVATION,
    Observation,
    PolicySpec,
    TensorSpec,
)
from loopdit.datasets.store import ACTION, EpisodeStore
from loopdit.deploy.client import PolicyClient
from loopdit.deploy.robot.committed import from_observation, unpacked
from loopdit.deploy.serving.served_policy import ServedPolicy
from loopdit.errors import ConfigError, ServerError
from loopdit.eval.environment import Environment, Expert
from loopdit.eval.rollouts.rollout import Answer
from loopdit.policy.stopping_rule import StoppingRule

if TYPE_CHECKING:
    from loopdit.policy.any_checkpoint import AnyPolicy

_CHUNKS_PER_EPISODE = 10_000
# Sets a baseline's random stream apart from the environment's, which has the seed itself.
_BASELINE_STREAM = 2


class Infer(Protocol):
    """One chunk (H, A) of a model, at a depth, with the starting noise that `seed` names."""

    def __call__(
        self, observation: Observation, instruction: str, seed: int, loops: int, steps: int
    ) -> Answer:
        """Actions (H, A) float32 in raw units, and the loops they took."""
        ...


class ModelPolicy:
    """A model at one depth, with the history and the committed actions that its `spec` asks for.

    The noise of a chunk depends on the episode's seed and the chunk's number alone: the same for
    every depth, and for a model in this process as behind a server.
    """

    looks = True

    def __init__(
        self,
        infer: Infer,
        loops: int,
        steps: int,
        begin_episode: Callable[[], None] | None = None,
        spec: PolicySpec | None = None,
    ) -> None:
        self.history = spec.history if spec else 1
        self.committed = spec.max_committed if spec else 0
        self._chunk_from = spec.chunk_from if spec else FROM_OBSERVATION
        self._infer = infer
        self._loops = loops
        self._steps = steps
        self._begin_episode = begin_episode
        self._next_seed = 0

    def reset(self, seed: int) -> None:
        """Start the noise of the episode that `seed` names."""
        self._next_seed = seed * _CHUNKS_PER_EPISODE
        if self._begin_episode is not None:
            self._begin_episode()

    def chunk(self, observation: Observation, instruction: str) -> Answer:
        """(H, A), the model's."""
        seed, self._next_seed = self._next_seed, self._next_seed + 1
        answer = self._infer(observation, instruction, seed, self._loops, self._steps)
        if not self.committed:
            return answer
        told = unpacked(observation[COMMITTED])
        return answer._replace(actions=from_observation(answer.actions, told, self._chunk_from))


def require_model(policy: str, found: str | None, wanted: str | None) -> None:
    """Raise ServerError where `policy` has become another model since `wanted` was opened: the
    rollouts of two models must not be counted as one's."""
    if found != wanted:
        raise ServerError(
            f"{policy} is now the model {found}, and the evaluation began with {wanted}. Serve "
            f"that one again and give the same command, or begin anew with another out=."
        )


def over_the_wire(client: PolicyClient) -> Infer:
    """A model behind a policy server: the one that is there now, and no other. Raises ServerError
    for a server that was started again with another one."""
    wanted = client.model_id

    def infer(
        observation: Observation, instruction: str, seed: int, loops: int, steps: int
    ) -> Answer:
        reply = client.infer(
            observation, instruction=instruction, seed=seed, loops=loops, steps=steps
        )
        require_model(client.endpoint, reply.model_id, wanted)
        return Answer(reply.actions, reply.loops)

    return infer


def in_process(model: ServedPolicy) -> Infer:
    """A model in this process."""

    def infer(
        observation: Observation, instruction: str, seed: int, loops: int, steps: int
    ) -> Answer:
        made = model.infer(
            observation, seed=seed, loops=loops, steps=steps, instruction=instruction
        )
        return Answer(made.actions, made.loops)

    return infer


def torch_module(policy: "AnyPolicy", rule: StoppingRule | None = None) -> Infer:
    """The float32 reference itself: slower than a back end, and what they are all compared with.

    With a `rule`, K loops are the most that a chunk takes.
    """
    import torch  # late: baselines and served policies need none

    from loopdit.deploy.serving.served_bundle import starting_noise
    from loopdit.policy.adaptive_depth import act_adaptively
    from loopdit.policy.encoders.absent_cameras import complete_observation
    from loopdit.policy.encoders.vocabulary import INSTRUCTION
    from loopdit.policy.looped_policy import LoopedPolicy

    vocabulary = policy.config.vocabulary

    def infer(
        observation: Observation, instruction: str, seed: int, loops: int, steps: int
    ) -> Answer:
        given = complete_observation(policy.spec, observation)
        if vocabulary is not None:
            given[INSTRUCTION] = vocabulary.told(policy.config.instruction, instruction)
        batched = {name: torch.from_numpy(np.asarray(value))[None] for name, value in given.items()}
        # The starting noise, and behind it that of each step of a sampler which draws some.
        count = 1 + steps if policy.objective.needs_fresh_noise else 1
        drawn = starting_noise(seed, count, policy.horizon, policy.spec.action.shape[0])
        noise, later = (policy.temperature * torch.from_numpy(drawn)).split([1, count - 1])
        fresh = later[:, None] if len(later) else None
        if rule is None:
            return Answer(policy.act(batched, noise, loops, steps, fresh)[0].numpy(), loops)
        assert isinstance(policy, LoopedPolicy)  # `policy_sources` offers no rule for others
        made = act_adaptively(policy, batched, noise, rule, loops, steps, fresh)
        return Answer(made.actions[0].numpy(), int(made.loops[0]))

    return infer


def untrained_twin(trained: str, seed: int) -> Infer:
    """The model of the checkpoint or bundle folder `trained`, with fresh random weights.

    It keeps the shape and the normalisation, so that only what was learned is missing.
    """
    import torch

    from loopdit.policy.any_checkpoint import load_any, untrained

    with torch.random.fork_rng(devices=[]):  # loading draws, too: weights are made, then read
        original = load_any(trained).policy
        torch.manual_seed(seed)
        policy = untrained(original).eval()
    policy.normalizer.load_state_dict(original.normalizer.state_dict())
    return torch_module(policy)


class ExpertPolicy:
    """The environment's scripted expert, asked at every step: what the task allows at best."""

    looks = False
    history = 1
    committed = 0

    def __init__(self, env: Environment) -> None:
        self._env = env
        self._expert: Expert | None = None

    def reset(self, seed: int) -> None:
        """Take a fresh expert for the episode that just started."""
        del seed
        self._expert = self._env.expert()

    def chunk(self, observation: Observation, instruction: str) -> Answer:
        """(1, A). Looks at the simulator's state, not at the observation."""
        del observation, instruction
        if self._expert is None:
            raise RuntimeError("reset the policy before asking it for a chunk.")
        return Answer(self._expert.action()[None])


class ZerosPolicy:
    """The action that is all zeros."""

    looks = False
    history = 1
    committed = 0

    def __init__(self, action: TensorSpec) -> None:
        self._action = np.zeros((1, *action.shape), np.float32)

    def reset(self, seed: int) -> None:
        """Nothing to forget."""

    def chunk(self, observation: Observation, instruction: str) -> Answer:
        """(1, A)."""
        del observation, instruction
        return Answer(self._action)


class RandomPolicy:
    """Uniform within the action's limits; a task it solves has a weak criterion."""

    looks = False
    history = 1
    committed = 0

    def __init__(self, action: TensorSpec) -> None:
        self._low, self._high = np.array(action.low), np.array(action.high)
        if not (self._low.size and np.isfinite([self._low, self._high]).all()):
            raise ConfigError(
                "policy=random needs limits of the actions, and this environment's spec has none."
            )
        self._rng = np.random.default_rng(0)

    def reset(self, seed: int) -> None:
        """Same seed, same actions."""
        self._rng = np.random.default_rng([_BASELINE_STREAM, seed])

    def chunk(self, observation: Observation, instruction: str) -> Answer:
        """(1, A)."""
        del observation, instruction
        drawn = self._rng.uniform(self._low, self._high).astype(np.float32)
        return Answer(drawn[None])


class ReplayPolicy:
    """A training episode's actions played back blindly, its last one for ever after.

    Each rollout plays another episode, chosen by its seed. What this solves needs no policy.
    """

    looks = False
    history = 1
    committed = 0

    def __init__(self, store: EpisodeStore) -> None:
        self._store = store
        self._order = store.canonical_order()
        self._actions = np.zeros((0, *store.spec.action.shape), np.float32)
        self._step = 0

    def reset(self, seed: int) -> None:
        """Choose the episode to play."""
        chosen = np.random.default_rng([_BASELINE_STREAM, seed]).integers(len(self._order))
        self._actions = np.array(self._store.arrays(self._order[chosen])[ACTION])
        self._step = 0

    def chunk(self, observation: Observation, instruction: str) -> Answer:
        """(1, A)."""
        del observation, instruction
        action = self._actions[min(self._step, len(self._actions) - 1)]
        self._step += 1
        return Answer(action[None])


class RecordedPolicy:
    """Actions (T, A) that a rollout executed, one at a time: plays it again to the bit."""

    looks = False
    history = 1
    committed = 0

    def __init__(self, actions: np.ndarray) -> None:
        self._actions = actions
        self._step = 0

    def reset(self, seed: int) -> None:
        """From the first one on."""
        del seed
        self._step = 0

    def chunk(self, observation: Observation, instruction: str) -> Answer:
        """(1, A). Raises IndexError beyond the last: the rollout then did not come out the same."""
        del observation, instruction
        action = self._actions[self._step]
        self._step += 1
        return Answer(action[None])
