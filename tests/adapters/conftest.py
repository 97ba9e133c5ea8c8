"""Everything here needs suites in environments of their own: `make suites`, then
`make test-adapters`. A suite that is absent is skipped, with the command that installs it."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

import loopdit
from loopdit.envs.suites.catalogue import suite_of
from loopdit.eval.environment import Environment
from loopdit.eval.suite_env import make_suite_env

HERE = Path(__file__).parent

MakeSuiteEnv = Callable[..., Environment]


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("adapters")


@pytest.fixture
def make() -> Iterator[MakeSuiteEnv]:
    """`make_suite_env`, closed at the end; skips where the suite is absent."""
    made: list[Environment] = []

    def make_one(name: str, image_size: int = 0) -> Environment:
        suite = suite_of(name)
        assert suite is not None
        root = Path(loopdit.__file__).parents[2]
        suites = Path(os.environ.get("LOOPDIT_SUITES") or root / ".suites")
        if not suite.importable() and not (suites / suite.folder).exists():
            pytest.skip(f"{suite.package} is absent: make suites SUITE={suite.folder}")
        env = make_suite_env(name, image_size)
        made.append(env)
        return env

    yield make_one
    for env in made:
        env.close()
