from collections.abc import Iterator

import pytest

from loopdit.envs.arm_env import ArmEnv
from loopdit.envs.registry import make_env


@pytest.fixture(scope="session")
def made() -> Iterator[dict[str, ArmEnv]]:
    """The environments made so far, by name: one each for all tests, as each test resets them."""
    made = dict[str, ArmEnv]()
    yield made
    for env in made.values():
        env.close()


@pytest.fixture
def env(request: pytest.FixtureRequest, made: dict[str, ArmEnv]) -> ArmEnv:
    """The environment whose name a test is parametrised with, indirectly; it draws no frames."""
    name: str = request.param
    if name not in made:
        made[name] = make_env(name, image_size=16)
        made[name].observing = False
    return made[name]
