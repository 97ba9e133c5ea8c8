"""A store that `policy-collect` recorded, and a served policy that fits the arm."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from loopdit.datasets.spec import Observation, PolicySpec
from loopdit.datasets.store import EpisodeStore
from loopdit.deploy.serving.served_policy import Inference
from loopdit.deploy.serving.server import PolicyServer
from loopdit.envs.arm_env import arm_spec
from loopdit.eval.collect import CollectConfig, Collected, collect

IMAGE_SIZE = 16


class WavingPolicy:
    """Moves as the noise seed, the depth and the pose say; never grasps anything."""

    model_id = "waving-0"
    horizon = 4
    loops = (1, 2)
    steps = 5

    def __init__(self, spec: PolicySpec) -> None:
        self.spec = spec

    def infer(
        self, observation: Observation, *, seed: int, loops: int, steps: int, instruction: str = ""
    ) -> Inference:
        rng = np.random.default_rng([seed, loops, steps])
        actions = rng.uniform(-0.01, 0.01, (self.horizon, 7)).astype(np.float32)
        actions[:, :3] -= 0.01 * observation["proprio"][:3]
        return Inference(actions, loops, steps, encode_us=1, denoise_us=1)


@pytest.fixture(scope="session")
def waving() -> WavingPolicy:
    return WavingPolicy(arm_spec(IMAGE_SIZE))


@pytest.fixture(scope="session")
def waving_endpoint(waving: WavingPolicy) -> Iterator[str]:
    with PolicyServer(waving, "tcp://127.0.0.1:0") as server:
        yield server.endpoint


@pytest.fixture(scope="session")
def collect_config(tmp_path_factory: pytest.TempPathFactory) -> CollectConfig:
    out = tmp_path_factory.mktemp("collected") / "lift.zarr"
    return CollectConfig(episodes=4, seed=7, workers=2, image_size=IMAGE_SIZE, out=str(out))


@pytest.fixture(scope="session")
def collected(collect_config: CollectConfig) -> Collected:
    """Four episodes by two processes, recorded once for all tests."""
    return collect(collect_config)


@pytest.fixture(scope="session")
def store(collected: Collected, collect_config: CollectConfig) -> EpisodeStore:
    assert collected.episodes == 4
    return EpisodeStore.open(collect_config.out)


@pytest.fixture(scope="session")
def store_path(store: EpisodeStore) -> Path:
    return Path(store.path)
