import hashlib
import multiprocessing
from typing import Any

import gymnasium
import numpy as np
import pytest

from loopdit.envs.arm_env import ArmEnv
from loopdit.envs.registry import make_env
from loopdit.envs.vector import make_vector_env
from loopdit.errors import ConfigError

pytestmark = pytest.mark.system
SEEDS: list[int | None] = [3, 8]
STEPS = 6


def actions(seed: int) -> np.ndarray:
    """Moves (STEPS, 7) within the limits."""
    rng = np.random.default_rng(seed)
    moves = rng.uniform(-0.02, 0.02, (STEPS, 7))
    moves[:, 6] = rng.integers(0, 2, STEPS)
    return moves.astype(np.float32)


def digest(observation: dict[str, np.ndarray]) -> str:
    found = hashlib.sha256()
    for name in sorted(observation):
        found.update(observation[name].tobytes())
    return found.hexdigest()


def alone(seed: int | None, moves: np.ndarray) -> tuple[list[str], np.ndarray]:
    """What one environment shows step by step, and its state after the last."""
    env = make_env("lift", image_size=24)
    seen = [digest(env.reset(seed=seed)[0])]
    seen += [digest(env.step(move)[0]) for move in moves]
    state = env.state()
    env.close()
    return seen, state


def of(batch: Any, index: int) -> dict[str, np.ndarray]:
    """The observation of one environment of the batch."""
    return {name: values[index] for name, values in batch.items()}


def test_two_processes_give_the_states_and_pixels_of_single_environments():
    moves = [actions(i) for i in range(2)]
    vector = make_vector_env("lift", envs=2, image_size=24)
    try:
        observation, _ = vector.reset(seed=SEEDS)
        seen = [[digest(of(observation, i))] for i in range(2)]
        for both in zip(*moves, strict=True):
            observation, *_ = vector.step(np.stack(both))
            for i in range(2):
                seen[i].append(digest(of(observation, i)))
        states = vector.call("state")
    finally:
        vector.close()
    for i in range(2):
        expected, state = alone(SEEDS[i], moves[i])
        assert seen[i] == expected
        np.testing.assert_array_equal(states[i], state)


def test_an_environment_that_is_done_resets_in_the_next_step():
    hold = np.array([0, 0, 0, 0, 0, 0, 1], np.float32)
    vector = make_vector_env("lift", envs=1, image_size=16, rate_hz=2.0)
    single = make_env("lift", image_size=16, rate_hz=2.0)
    try:
        vector.reset(seed=1)
        single.reset(seed=1)
        for _ in range(single.max_steps):
            _, _, _, truncated, _ = vector.step(hold[None])
            _, _, _, expected, _ = single.step(hold)
            assert truncated[0] == expected
        after, reward, _, truncated, _ = vector.step(hold[None])
        assert (float(reward[0]), bool(truncated[0])) == (0.0, False)
        assert digest(of(after, 0)) == digest(single.reset()[0])
    finally:
        vector.close()
        single.close()


def test_no_process_is_left_after_close():
    before = len(multiprocessing.active_children())
    vector = make_vector_env("lift", envs=1, image_size=16)
    assert len(multiprocessing.active_children()) == before + 1
    vector.close()
    assert len(multiprocessing.active_children()) == before


def test_gymnasium_makes_a_vector_of_a_registered_id():
    vector = gymnasium.make_vec(
        "loopdit.envs.registry:loopdit/Lift-v0",
        num_envs=2,
        vectorization_mode="async",
        vector_kwargs={"context": "spawn"},
        image_size=24,
    )
    try:
        observation, _ = vector.reset(seed=3)
        single: ArmEnv = make_env("lift", image_size=24)
        for i in range(2):
            assert digest(of(observation, i)) == digest(single.reset(seed=3 + i)[0])
        single.close()
    finally:
        vector.close()


def test_no_environment_is_refused():
    with pytest.raises(ConfigError, match="envs=0 is not a number of environments"):
        make_vector_env("lift", envs=0)
