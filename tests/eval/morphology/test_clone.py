import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loopdit.envs.suites.locomotion import Locomotion
from loopdit.errors import ConfigError
from loopdit.eval.morphology.clone import FILE, WEIGHTS, CloneConfig, run
from loopdit.eval.morphology.cloning import CloningConfig
from loopdit.eval.morphology.running import run_policy
from loopdit.policy.loops.config import LoopConfig
from loopdit.policy.morphology.morphology_dit import MorphologyConfig


def test_robots_side_by_side_earn_what_they_earn_alone():
    task, seeds = "Hopper-v5", [3, 4, 5]

    def act(seen: np.ndarray) -> np.ndarray:
        first = np.clip(seen[:, None, [2, 3, 4]] * 3, -1, 1)
        return np.concatenate([first, -first], axis=1)

    def play(*seeds: int) -> np.ndarray:
        robots = [Locomotion(task) for _ in seeds]
        return run_policy(robots, act, seeds, execute=2, steps=80).returns

    together = play(*seeds)
    np.testing.assert_allclose(together, np.concatenate([play(seed) for seed in seeds]))
    assert len(set(together.tolist())) == 3


@pytest.mark.system
@pytest.mark.parametrize("bodies", [True, False])
def test_a_clone_of_two_bodies_is_better_than_a_constant_and_outruns_chance(
    tmp_path: Path, bodies: bool
):
    config = CloneConfig(
        envs=["gymnasium/Swimmer-v5", "gymnasium/HalfCheetah-v5"],
        out=str(tmp_path),
        demonstrations=4,
        held_out=1,
        episodes=4,
        policy=MorphologyConfig(
            width=32, heads=2, blocks=1, horizon=4, bodies=bodies, loops=LoopConfig(loops=2)
        ),
        cloning=CloningConfig(steps=300, batch=64, learning_rate=3e-3),
    )
    run(config)
    written = json.loads((tmp_path / FILE).read_text())
    assert (tmp_path / WEIGHTS).is_file()
    for row in written["bodies"]:
        error = row["error"]
        assert error["first"] < 0.5 * error["constant_first"]
        assert error["chunk"] < 0.8 * error["constant_chunk"]
        returns = row["returns"]
        # Its ordinary episode beats the best one of chance. Not every one must: runners trip.
        assert np.median(returns["policy"]) > max(returns["random"])
        assert np.median(returns["expert"]) > max(returns["random"])


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"execute": 9}, r"execute=9 is not within a chunk: use 1 to policy\.horizon=8"),
        ({"envs": ["gymnasium/Ant-v5"] * 2}, "names a runner twice"),
        ({"demonstrations": 0}, "demonstrations=0 must be at least 1"),
    ],
)
def test_options_that_cannot_work_are_refused(wrong: dict[str, Any], reason: str):
    with pytest.raises(ConfigError, match=reason):
        CloneConfig(**wrong)


def test_an_environment_that_is_no_runner_is_refused_with_those_that_are(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"env=lift is none .* gymnasium/HalfCheetah-v5"):
        run(CloneConfig(envs=["lift"], out=str(tmp_path)))


def test_the_same_seed_clones_the_same_policy():
    from tests.policy.morphology.bodies import star

    from loopdit.eval.morphology.cloning import Demonstrated, clone
    from loopdit.eval.morphology.demonstrations import windows_of
    from loopdit.eval.morphology.running import Run
    from loopdit.policy.morphology.morphology_policy import MorphologyPolicy
    from loopdit.policy.objectives.objective import ObjectiveConfig

    rng = np.random.default_rng(0)
    seen, done = rng.normal(size=(40, 6)), rng.uniform(-0.5, 0.5, size=(40, 2))
    windows = windows_of([Run(seen.astype(np.float32), done.astype(np.float32), 0.0)], horizon=4)
    robot = Demonstrated(star(), windows, windows)
    small = MorphologyConfig(width=32, heads=2, blocks=1, horizon=4, loops=LoopConfig(loops=1))

    def cloned(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        policy = MorphologyPolicy(small, ObjectiveConfig())
        clone(policy, [robot], CloningConfig(steps=5, batch=8, seed=seed))
        return torch.cat([parameter.detach().flatten() for parameter in policy.parameters()])

    assert torch.equal(cloned(0), cloned(0))
    assert not torch.equal(cloned(0), cloned(1))
