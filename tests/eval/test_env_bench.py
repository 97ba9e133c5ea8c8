# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from loopdit.envs.registry import make_env
from loopdit.errors import ConfigError
from loopdit.eval.env_bench import (
    ENV,
    RAW,
    RESULTS,
    ROBOSUITE,
    EnvBenchConfig,
    ratios,
    run_env_bench,
    tables,
)
from loopdit.eval.env_workloads import ChildLoop, EnvLoop, RawLoop, record


@pytest.mark.parametrize("name", ["lift", "catch-roll"])
def test_mujoco_alone_does_the_same_physics_as_the_environment_it_is_compared_with(name: str):
    env = make_env(name, image_size=16)
    recording = record(env, seed=4)
    raw = RawLoop(env.arm.model, recording)
    assert raw.rate(1e-9) > 0  # one episode
    np.testing.assert_allclose(raw.data.qpos, recording.end, atol=1e-9)
    EnvLoop(env, recording, observing=False).rate(1e-9)
    np.testing.assert_array_equal(env.arm.data.qpos, recording.end)
    env.close()


def test_a_ratio_is_taken_within_a_repetition():
    # The machine was ten times slower in the second one: that is no difference between the two.
    rates = {ENV: [80.0, 8.0, 70.0], RAW: [100.0, 10.0, 100.0]}
    (found,) = ratios(rates)
    assert (found["median"], found["low"], found["high"]) == pytest.approx((0.8, 0.75, 0.8))


@pytest.mark.system
def test_every_workload_is_measured_and_written(tmp_path: Path):
    config = EnvBenchConfig(
        image_size=16, repetitions=2, block_s=0.01, robosuite="", out=str(tmp_path)
    )
    results = run_env_bench(config, Console(quiet=True))
    written = json.loads((tmp_path / RESULTS).read_text())
    assert written["rates"] == results["rates"]
    assert all(rate > 0 for rates in written["rates"].values() for rate in rates)
    assert len(written["rates"]) == 7
    assert ROBOSUITE not in written["rates"]
    assert written["versions"]["mujoco"]
    assert [table.row_count for table in tables(results)] == [7, 5]


def test_another_python_that_ends_early_is_named_with_its_last_words():
    with pytest.raises(ConfigError, match="ended before its time: no such suite"):
        ChildLoop([sys.executable, "-c", "import sys; sys.exit('no such suite')"])


def test_another_python_answers_seconds_by_a_rate():
    answer = "print('ready x 1')\nfor line in iter(input, ''): print('noise'); print('rate', 3.5)"
    child = ChildLoop([sys.executable, "-uc", answer])
    assert (child.version, child.rate(0.1), child.rate(0.1)) == ("x 1", 3.5, 3.5)
    child.close()


@pytest.mark.parametrize("option", [{"env": "lfit"}, {"repetitions": 0}, {"block_s": 0.0}])
def test_what_cannot_be_measured_is_refused(option: dict[str, str]):
    with pytest.raises(ConfigError, match=next(iter(option))):
        EnvBenchConfig(**option)  # pyright: ignore[reportArgumentType] - the wrong values are meant
