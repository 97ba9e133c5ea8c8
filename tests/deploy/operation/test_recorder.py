"""What a real server records, read back as any other data set."""

import logging
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.deploy.echo_policy import (
    HORIZON,
    SPEC,
    EchoPolicy,
    FailingPolicy,
    expected_actions,
    observation,
)
from tests.deploy.operation.conftest import watched_server
from tests.deploy.raw_client import ANY_PORT

from loopdit.datasets.spec import FROM_COMMITTED, Observation, TensorSpec
from loopdit.datasets.store import EpisodeStore
from loopdit.datasets.summary import summary
from loopdit.deploy.client import PolicyClient
from loopdit.deploy.messages import WireError
from loopdit.deploy.operation.opening import watched
from loopdit.deploy.operation.recorded_episodes import RecordedEpisodes, Step
from loopdit.deploy.operation.recorder import Recorder
from loopdit.deploy.robot.committed import with_committed
from loopdit.deploy.serving.served_policy import Inference
from loopdit.deploy.serving.server import PolicyServer
from loopdit.errors import SpecMismatch, StoreError
from loopdit.policy.checkpoint import load_policy
from loopdit.policy.looped_dit_config import LoopedDiTConfig
from loopdit.policy.training.config import TrainConfig
from loopdit.policy.training.train import train


def recording(path: Path, record_mb: int = 64) -> dict[str, Any]:
    return {"record": str(path), "record_mb": record_mb}


def test_each_observation_is_recorded_with_what_it_was_answered(tmp_path: Path, free_port: int):
    path = tmp_path / "served.zarr"
    seen = [observation(0.1 * i, 10 * i) for i in range(7)]
    with watched_server(EchoPolicy(), free_port, **recording(path)) as server:
        with PolicyClient(server.server.endpoint) as robot:
            for one in seen[:3]:
                robot.infer(one, instruction="lift")
            robot.reset()
            for one in seen[3:5]:
                robot.infer(one, instruction="lift")
        with PolicyClient(server.server.endpoint, shared_memory=False) as robot:
            for one in seen[5:]:
                robot.infer(one, loops=1, steps=3)
    store = EpisodeStore.open(path)
    assert store.spec == SPEC
    assert [(e.length, e.instruction) for e in store.episodes] == [
        (3, "lift"),
        (2, "lift"),
        (2, ""),
    ]
    places = [(episode, step) for episode, record in enumerate(store.episodes)
              for step in range(record.length)]  # fmt: skip
    for (episode, step), one in zip(places, seen, strict=True):
        kept, extras = store.arrays(episode), store.extras(episode)
        loops, steps = (1, 3) if episode == 2 else (2, 10)
        chunk = expected_actions(one, loops=loops, steps=steps)
        for name, value in one.items():
            np.testing.assert_array_equal(kept[name][step], value)
        np.testing.assert_array_equal(extras["chunk"][step], chunk)
        np.testing.assert_array_equal(kept["action"][step], chunk[0])
        assert (extras["loops"][step], extras["steps"][step]) == (loops, steps)
    assert store.metadata(1)["epoch"] == store.metadata(0)["epoch"] + 1
    assert store.metadata(0)["model_id"] == "echo-0"


class LargeFrames(EchoPolicy):
    """Frames that are handed over in shared memory."""

    spec = replace(
        SPEC, observations=(TensorSpec("images.front", (96, 96, 3), "uint8"), SPEC.proprio)
    )


def test_frames_in_shared_memory_are_recorded_before_their_robot_overwrites_them(
    tmp_path: Path, free_port: int
):
    path = tmp_path / "served.zarr"
    with (
        watched_server(LargeFrames(), free_port, **recording(path)) as server,
        PolicyClient(server.server.endpoint) as robot,
    ):
        if robot.transport != "shared memory":
            pytest.skip("this system has no memory to share")
        for i in range(40):
            frame = np.full((96, 96, 3), i, np.uint8)
            robot.infer({**observation(i), "images.front": frame})
    kept = EpisodeStore.open(path).arrays(0)["images.front"]
    assert (kept == np.arange(40)[:, None, None, None]).all()


def test_a_refused_request_is_no_step(tmp_path: Path, free_port: int):
    path = tmp_path / "served.zarr"
    with (
        watched_server(FailingPolicy(), free_port, **recording(path)) as server,
        PolicyClient(server.server.endpoint) as robot,
    ):
        robot.infer(observation(1))
        with pytest.raises(WireError):
            robot.infer(observation(-1))
        robot.infer(observation(2))
    store = EpisodeStore.open(path)
    assert [record.length for record in store.episodes] == [2]
    assert list(store.arrays(0)["proprio"][:, 0]) == [1, 2]


class AfterCommitted(EchoPolicy):
    """Its chunk comes after the actions in flight; it is given the last two observations."""

    spec = SPEC.with_history(2).with_committed(3, FROM_COMMITTED)

    def infer(
        self, observation: Observation, *, seed: int, loops: int, steps: int, instruction: str = ""
    ) -> Inference:
        return Inference(np.full((HORIZON, 3), 9, np.float32), loops, steps, 1, 1)


def test_what_only_a_policy_is_given_is_left_out_and_the_action_is_that_of_the_step(
    tmp_path: Path, free_port: int
):
    path, spec = tmp_path / "served.zarr", AfterCommitted.spec
    two = {name: np.stack([observation(1)[name], observation(2)[name]]) for name in observation()}
    in_flight = np.array([[4, 5, 6], [7, 8, 9]], np.float32)
    with (
        watched_server(AfterCommitted(), free_port, **recording(path)) as server,
        PolicyClient(server.server.endpoint) as robot,
    ):
        robot.infer(with_committed(two, in_flight, spec))
        robot.infer(with_committed(two, in_flight[:0], spec))
    store = EpisodeStore.open(path)
    assert store.spec == SPEC
    kept = store.arrays(0)
    np.testing.assert_array_equal(kept["proprio"], [observation(2)["proprio"]] * 2)
    np.testing.assert_array_equal(kept["action"], [[4, 5, 6], [9, 9, 9]])


def test_recording_goes_on_with_its_store_and_refuses_another_robots(
    tmp_path: Path, free_port: int
):
    path = tmp_path / "served.zarr"
    for _ in range(2):
        with (
            watched_server(EchoPolicy(), free_port, **recording(path)) as server,
            PolicyClient(server.server.endpoint) as robot,
        ):
            robot.infer(observation())
    assert len(EpisodeStore.open(path).episodes) == 2
    with pytest.raises(SpecMismatch):
        Recorder(path, replace(SPEC, control_period_s=0.5), HORIZON, 1 << 20)
    (tmp_path / "other").write_text("no store")
    with pytest.raises(StoreError):
        Recorder(tmp_path / "other", SPEC, HORIZON, 1 << 20)


def test_a_server_whose_recorder_cannot_start_gives_its_address_back(tmp_path: Path):
    (tmp_path / "file").write_text("no store")
    server = PolicyServer(EchoPolicy(), ANY_PORT)
    endpoint = server.endpoint
    opened = watched(server, "127.0.0.1", lambda line: None, **recording(tmp_path / "file"))
    with pytest.raises(StoreError), opened:
        pass
    PolicyServer(EchoPolicy(), endpoint).stop()


def test_memory_stays_bounded_and_nothing_is_lost_while_a_long_episode_goes_on(tmp_path: Path):
    # Ten steps' worth of memory, of 87 steps: it goes to the disk in parts.
    step_bytes = 4 * 6 * 3 + 3 * 4 + 4 * HORIZON * 3
    server = PolicyServer(EchoPolicy(), ANY_PORT)
    recorder = Recorder(tmp_path / "served.zarr", SPEC, HORIZON, 2 * 10 * step_bytes)
    server.observe(recorder)
    with server, PolicyClient(server.endpoint) as robot:
        answered = 0
        for i in range(87):
            before = recorder.recorded
            robot.infer(observation(i))
            answered += 1
            assert i - before.steps - before.dropped <= 10 + 1
    recorded = recorder.close()
    store = EpisodeStore.open(tmp_path / "served.zarr")
    assert recorded.steps == sum(record.length for record in store.episodes)
    assert recorded.steps + recorded.dropped == answered == 87
    assert recorded.dropped == 0 or recorded.episodes > 1
    xs = np.concatenate([store.arrays(i)["proprio"][:, 0] for i in range(len(store.episodes))])
    assert (np.diff(xs) > 0).all()
    assert [store.metadata(i)["part"] for i in range(len(store.episodes))] == list(
        range(len(store.episodes))
    )


def test_a_disk_that_is_full_ends_the_recording_and_not_the_serving(
    tmp_path: Path, free_port: int, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / "served.zarr"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with (
        caplog.at_level(logging.ERROR),
        watched_server(EchoPolicy(), free_port, **recording(path)) as server,
        PolicyClient(server.server.endpoint) as robot,
    ):
        robot.infer(observation(1))
        robot.reset()
        while server.json("/live.json")["recorded"]["episodes"] < 1:
            pass
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))  # no file may be longer
        try:
            robot.infer(observation(2))
            robot.reset()
            while server.json("/live.json")["recorded"]["going_on"]:
                pass
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        robot.infer(observation(3))
        assert b"loopdit_recording 0.0" in server.get("/metrics")[1]
        assert server.get("/healthz")[0] == 200
    said = [record.getMessage() for record in caplog.records]
    assert [line for line in said if "recording has stopped" in line] == said
    assert [record.length for record in EpisodeStore.open(path).episodes] == [1]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.booleans()), max_size=40))
def test_every_step_is_in_one_episode_in_its_order_and_no_episode_mixes_two(
    events: list[tuple[int, int, bool]],
):
    episodes, epochs, given_steps = RecordedEpisodes(), dict.fromkeys(range(3), 1), 0
    done = []
    for session, more_epochs, split in events:
        epochs[session] += more_epochs
        done += episodes.ended(epochs)
        given_steps += 1
        value = np.full(1, given_steps, np.float32)
        done += episodes.add(
            Step(session, epochs[session], "", "m", {"proprio": value}, value, {"chunk": value})
        )
        longest = episodes.longest() if split else None
        done += [] if longest is None else [longest]
    done += episodes.ended({})
    assert len(episodes) == 0
    numbers = [episode.observations["proprio"][:, 0] for episode in done]
    assert all((np.diff(one) > 0).all() for one in numbers)
    assert sorted(n for one in numbers for n in one) == list(range(1, given_steps + 1))
    parts = [(e.metadata["session"], e.metadata["epoch"], e.metadata["part"]) for e in done]
    assert len(parts) == len(set(parts))


@pytest.mark.system
def test_what_was_recorded_is_trained_on_as_it_is(tmp_path: Path, free_port: int):
    path = tmp_path / "served.zarr"
    with (
        watched_server(EchoPolicy(), free_port, **recording(path)) as server,
        PolicyClient(server.server.endpoint) as robot,
    ):
        for episode in range(3):
            robot.reset(episode)
            for i in range(8):
                robot.infer(observation(i / 8, i), instruction="lift")

    found = summary(EpisodeStore.open(path))  # what `policy-data info` prints
    assert (found["episodes"], found["steps"]) == (3, 24)
    trained = train(
        TrainConfig(
            data=[str(path)],
            out=str(tmp_path / "trained"),
            policy=LoopedDiTConfig(width=32, max_loops=1, action_horizon=4),
            steps=2,
            batch_size=4,
            threads=1,
            cache=str(tmp_path / "cache"),
        )
    )
    assert load_policy(trained).spec.recorded == SPEC
