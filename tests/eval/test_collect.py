"""Real environments, real worker processes, a real store."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loopdit.datasets.store import EpisodeRecord, EpisodeStore
from loopdit.envs.registry import make_env
from loopdit.errors import ConfigError, SpecMismatch, StoreError
from loopdit.eval.collect import CollectConfig, Collected, collect
from loopdit.eval.demonstration import demonstrate, perturbation_of
from loopdit.eval.perturb import NoiseConfig


def test_two_workers_record_what_one_process_demonstrates(
    store: EpisodeStore, collect_config: CollectConfig
):
    assert sorted(map(_seed, store.episodes)) == [7, 8, 9, 10]
    env = make_env("lift", collect_config.image_size)
    for index, record in enumerate(store.episodes):
        episode = demonstrate(env, _seed(record), collect_config.noise, collect_config.hold_steps)
        assert episode is not None
        stored = store.arrays(index)
        np.testing.assert_array_equal(stored["action"], episode.actions)
        for name, value in episode.observations.items():
            np.testing.assert_array_equal(stored[name], value)
        assert (record.instruction, record.success) == (env.instruction, True)
    env.close()


def test_labels_are_the_experts_clean_actions_while_perturbed_ones_are_executed(
    store: EpisodeStore, collect_config: CollectConfig
):
    env = make_env("lift", collect_config.image_size)
    seed = _seed(store.episodes[0])
    stored = store.arrays(0)
    observation, _ = env.reset(seed=seed)
    expert = env.expert()
    perturbation = perturbation_of(seed, collect_config.noise, env.policy_spec.action, steps=200)
    differing = 0
    for step, label in enumerate(stored["action"]):
        np.testing.assert_array_equal(observation["proprio"], stored["proprio"][step])
        np.testing.assert_array_equal(expert.action(), label)
        executed = perturbation.apply(label, step)
        differing += not np.array_equal(executed, label)
        observation = env.step(executed)[0]
    assert differing == len(stored["action"])
    env.close()


def test_an_episode_goes_on_for_the_hold_steps_after_success():
    env = make_env("lift", 16)
    quiet = NoiseConfig(translation_m=0, yaw_rad=0, kick_probability=0)
    short, held = (demonstrate(env, 0, quiet, hold_steps) for hold_steps in (0, 4))
    assert short is not None
    assert held is not None
    assert len(held.actions) == len(short.actions) + 4
    np.testing.assert_array_equal(held.actions[: len(short.actions)], short.actions)
    env.close()


def test_an_expert_that_is_kicked_all_the_time_demonstrates_nothing():
    env = make_env("lift", 16)
    assert demonstrate(env, 0, NoiseConfig(kick_probability=1), hold_steps=0) is None
    env.close()


def test_store_says_how_it_was_made(store: EpisodeStore):
    settings = store.provenance["settings"]
    assert (settings["env"], settings["seed"], settings["episodes"]) == ("lift", 7, 4)
    assert settings["noise"]["translation_m"] == NoiseConfig().translation_m
    assert "mujoco" in store.provenance["versions"]


def test_append_goes_on_with_the_first_seeds_that_are_not_there(tmp_path: Path):
    config = CollectConfig(episodes=2, workers=1, image_size=16, out=str(tmp_path / "a.zarr"))
    assert collect(config).episodes == 2
    assert collect(replace(config, episodes=1, append=True)).episodes == 1
    seeds = [record.seed for record in EpisodeStore.open(config.out).episodes]
    assert seeds == [0, 1, 2]
    assert collect(replace(config, episodes=1, seed=1000, append=True)).episodes == 1
    assert collect(replace(config, episodes=1, append=True)).episodes == 1
    seeds = [record.seed for record in EpisodeStore.open(config.out).episodes]
    assert seeds == [0, 1, 2, 1000, 3]


def test_append_makes_the_store_where_there_is_none(tmp_path: Path):
    out = str(tmp_path / "a.zarr")
    config = CollectConfig("reach", episodes=1, seed=1000, workers=1, image_size=16, out=out)
    assert collect(replace(config, append=True)).episodes == 1
    assert EpisodeStore.open(out).episodes[0].seed == 1000


def test_a_store_at_an_address_is_recorded_into_and_appended_to(tmp_path: Path):
    out = f"file://{tmp_path}/a.zarr"
    config = CollectConfig("reach", 1, workers=1, image_size=16, out=out, frames="jpeg")
    collect(config)
    collect(replace(config, append=True))
    store = EpisodeStore.open(out)
    assert sorted(map(_seed, store.episodes)) == [0, 1]
    assert store.frames == "jpeg"


@pytest.mark.system
def test_collections_at_once_into_one_store_record_each_seed_once(tmp_path: Path):
    program = Path(sys.executable).with_name("policy-collect")
    out = tmp_path / "a.zarr"
    command = [str(program), "env=reach", "episodes=6", "image_size=16", "workers=1"]
    command += [f"out={out}", "append=true"]
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(3)]
    assert [process.wait(timeout=120) for process in running] == [0, 0, 0]
    store = EpisodeStore.open(out)
    assert sorted(map(_seed, store.episodes)) == list(range(18))
    assert not list((out / "claims").iterdir())


@pytest.mark.slow
def test_ray_records_the_same_episodes_as_processes(tmp_path: Path):
    config = CollectConfig("reach", episodes=5, image_size=16, workers=2)
    digests: list[str] = []
    for launcher in ("processes", "ray"):
        out = str(tmp_path / launcher)
        assert collect(replace(config, launcher=launcher, out=out)).episodes == 5
        digests.append(EpisodeStore.open(out).digest())
    assert digests[0] == digests[1]


def test_an_existing_store_is_not_written_to_unless_told(
    collected: Collected, collect_config: CollectConfig
):
    del collected
    with pytest.raises(StoreError, match="already exists"):
        collect(collect_config)


def test_append_with_another_image_size_is_refused_and_says_both(
    collected: Collected, collect_config: CollectConfig
):
    del collected
    with pytest.raises(SpecMismatch, match=r"images\.front.*16.*32"):
        collect(replace(collect_config, image_size=32, append=True))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"env": "juggle"}, "env=juggle is unknown.* reach, lift"),
        ({"episodes": 0}, "episodes=0"),
        ({"workers": -1}, "workers=-1"),
        ({"out": "memory://a.zarr"}, "out=memory://a.zarr is the memory of one process"),
        ({"launcher": "slurm"}, "launcher=slurm is unknown. Use processes or ray"),
        ({"seed": 799_990, "episodes": 20}, "training and selection.*must be for training"),
    ],
)
def test_a_mistake_is_named_with_its_value(settings: dict[str, object], said: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=said):
        collect(CollectConfig(**{"out": str(tmp_path / "a.zarr"), **settings}))  # pyright: ignore[reportArgumentType] - the cases mix types


def test_an_expert_that_keeps_failing_ends_the_collection(tmp_path: Path):
    hopeless = NoiseConfig(kick_probability=1)
    out = tmp_path / "a.zarr"
    config = CollectConfig(episodes=1, workers=1, image_size=16, noise=hopeless, out=str(out))
    with pytest.raises(ConfigError, match=r"failed on 12 of 12 seeds.*holds 0 episodes"):
        collect(config)


@pytest.mark.slow
def test_ctrl_c_keeps_the_finished_episodes_and_says_how_to_go_on(tmp_path: Path):
    program = Path(sys.executable).with_name("policy-collect")
    out = tmp_path / "a.zarr"
    command = [str(program), "episodes=500", "image_size=16", f"out={out}"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    ) as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not _episodes(out):
            time.sleep(0.2)
        # As a terminal does it: the whole process group gets the signal.

        os.killpg(process.pid, signal.SIGINT)
        printed, errors = process.communicate(timeout=60)
    stored = _episodes(out)
    assert process.returncode == 130
    assert stored >= 1
    assert f"holds {stored} episodes" in printed.splitlines()[-1]
    assert f"append=true episodes={500 - stored}" in printed
    assert "Traceback" not in errors


def _seed(record: EpisodeRecord) -> int:
    assert record.seed is not None
    return record.seed


def _episodes(out: Path) -> int:
    return len(EpisodeStore.open(out).episodes) if out.exists() else 0
