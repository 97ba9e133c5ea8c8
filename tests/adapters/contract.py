"""What every suite's environment has to do, whichever process it runs in."""

import hashlib
from collections.abc import Callable

import numpy as np
import pytest

from loopdit.eval.environment import Environment

Actions = Callable[[Environment, np.random.Generator], np.ndarray]


def uniform_action(env: Environment, rng: np.random.Generator) -> np.ndarray:
    spec = env.policy_spec.action
    return rng.uniform(spec.low, spec.high).astype(np.float32)


def digest(env: Environment, seed: int, steps: int, actions: Actions = uniform_action) -> str:
    """Of all states and observations of an episode's first steps."""
    rng = np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    seen = hashlib.sha256(env.state().tobytes())
    for _ in range(steps):
        observation, _, terminated, truncated, _ = env.step(actions(env, rng))
        seen.update(env.state().tobytes())
        for name in sorted(observation):
            seen.update(observation[name].tobytes())
        if terminated or truncated:
            break
    return seen.hexdigest()


def check_determinism(here: Environment, there: Environment, steps: int = 20) -> None:
    """`here` and `there` are two processes; one of them has run another episode in between."""
    first = digest(here, 5, steps)
    assert digest(here, 6, 2 * steps) != first
    assert digest(here, 5, steps) == first
    assert digest(there, 5, steps) == first


def check_contract(env: Environment) -> None:
    """Spec, observations, limits, idle, refusal of what is no action, truncation's bounds."""
    spec = env.policy_spec
    observation, info = env.reset(seed=1)
    spec.check_observation(observation)
    size = spec.action.shape[0]
    named = (spec.action.labels, spec.action.units, spec.action.low, spec.action.high)
    assert [len(field) for field in named] == [size] * 4
    assert len(set(spec.action.labels)) == size
    assert len(set(spec.proprio.labels)) == spec.proprio.shape[0] == len(spec.proprio.units)
    assert (np.array(spec.action.low) < np.array(spec.action.high)).all()
    assert info == {"success": False, "unstable": False, "stage": "start", "rejected": False}
    assert spec.control_period_s == env.control_period_s > 0
    assert env.stages[-1] == "success"
    assert env.simulator.startswith("mujoco ")
    assert env.instruction
    idle = env.idle(None)
    assert idle.shape == spec.action.shape
    observation, reward, terminated, truncated, info = env.step(idle)
    spec.check_observation(observation)
    assert isinstance(reward, float)
    assert not terminated
    assert not truncated
    last = np.array(spec.action.high, np.float32)
    for label, kept, was in zip(spec.action.labels, env.idle(last), last, strict=True):
        if label.endswith("gripper"):
            assert kept == was
    for wrong in (np.zeros(size + 1, np.float32), np.full(size, np.nan, np.float32)):
        with pytest.raises(ValueError, match=f"an action is {size} finite numbers"):
            env.step(wrong)
    assert env.render().shape == (256, 256, 3)
    assert env.render().std() > 0


def expert_successes(env: Environment, seeds: range) -> int:
    """On how many seeds the suite's expert succeeds."""
    env.observing = False
    successes = 0
    for seed in seeds:
        _, info = env.reset(seed=seed)
        expert = env.expert()
        ended = False
        while not ended:
            _, _, terminated, truncated, info = env.step(expert.action())
            ended = terminated or truncated
        assert not info["unstable"]
        successes += info["success"]
    return successes
