"""The same as `test_worker_pool`, by Ray, where it is installed."""

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.eval.evaluations import comparable
from tests.eval.pool_jobs import start

from loopdit.errors import ConfigError, ServerError
from loopdit.eval.eval_config import EvalConfig
from loopdit.eval.evaluate import run
from loopdit.eval.runs.ray_pool import RayPool
from loopdit.eval.runs.worker_pool import ATTEMPTS, WorkerFailed

HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed: pip install loopdit[ray]")
# Ray's own warnings are its own.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def pool() -> Iterator[RayPool[str, str]]:
    pool = RayPool(start, 2)
    yield pool
    pool.close()


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed")
def test_without_ray_the_error_names_the_extra(tmp_path: Path):
    config = EvalConfig(policy="zeros", episodes=1, launcher="ray", out=str(tmp_path))
    with pytest.raises(ConfigError, match=r"launcher=ray needs Ray.*loopdit\[ray\]"):
        run(config)


@needs_ray
@pytest.mark.slow
def test_jobs_are_done_and_those_of_dead_workers_again(pool: RayPool[str, str], tmp_path: Path):
    deadly = f"die-once:{tmp_path / 'died'}"
    found = {f.job: f for f in pool.run(["echo:a", deadly, "die:", "echo:b"])}
    assert {job: (f.result, f.restarts) for job, f in found.items()} == {
        "echo:a": ("a", 0),
        deadly: (str(tmp_path / "died"), 1),
        "die:": (None, ATTEMPTS),
        "echo:b": ("b", 0),
    }


@needs_ray
@pytest.mark.slow
def test_mistakes_and_bugs_come_back(pool: RayPool[str, str]):
    with pytest.raises(ServerError, match="the server refused"):
        list(pool.run(["refuse:"]))
    with pytest.raises(WorkerFailed, match="ZeroDivisionError"):
        list(pool.run(["bug:"]))


@needs_ray
@pytest.mark.slow
def test_an_evaluation_by_ray_comes_to_the_same(tmp_path: Path):
    config = EvalConfig(policy="expert", episodes=3)
    run(replace(config, out=str(tmp_path / "here")))
    run(replace(config, launcher="ray", workers=2, out=str(tmp_path / "ray")))
    assert comparable(tmp_path / "ray") == comparable(tmp_path / "here")
    assert json.loads((tmp_path / "ray" / "eval.json").read_text())["restarts"] == 0
