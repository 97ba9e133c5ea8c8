"""What holds for every registered environment, whatever its task."""

import json
from importlib import metadata
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from tests.envs.make_golden_states import FILE, digest_of_states

from loopdit.envs.registry import ENV_NAMES, gymnasium_id, make_env

# The checker's advice on two choices that are meant: proprio is not bounded, and a gripper opening
# goes from 0 to 1.
ADVICE = (
    "ignore:.*Box observation space m..imum value is.*",
    "ignore:.*we recommend using a symmetric and normalized space",
)


@pytest.mark.filterwarnings(*ADVICE)
@pytest.mark.parametrize("name", ENV_NAMES)
def test_gymnasium_finds_nothing_wrong(name: str):
    env = gymnasium.make(gymnasium_id(name), image_size=16)
    check_env(env.unwrapped)
    env.close()


@pytest.mark.parametrize("name", ENV_NAMES)
def test_its_spec_instruction_and_stages_are_declared(name: str):
    env = make_env(name, image_size=16)
    observation, info = env.reset(seed=0)
    env.policy_spec.check_observation(observation)
    assert info["stage"] == "start"
    assert env.stages
    assert env.instruction
    assert env.renderer in ("egl", "osmesa", "glfw")
    env.close()


@pytest.mark.parametrize("name", ENV_NAMES)
def test_its_states_are_those_of_this_mujoco_version(name: str):
    """Another digest is another simulation: results from before and after do not compare."""
    golden = json.loads(Path(FILE).read_text())
    version = f"mujoco {metadata.version('mujoco')}"
    if version not in golden:
        pytest.skip(f"golden_states.json knows {', '.join(golden)} and not {version}")
    assert digest_of_states(name) == golden[version][name]


@pytest.mark.parametrize("name", ENV_NAMES)
def test_the_expert_stays_within_the_action_limits(name: str):
    env = make_env(name, image_size=16)
    env.observing = False
    env.reset(seed=1)
    expert = env.expert()
    for _ in range(20):
        action = expert.action()
        assert env.action_space.contains(np.asarray(action))
        env.step(action)
