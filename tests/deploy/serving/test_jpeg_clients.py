"""A real server and clients that send their frames as JPEG."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.deploy.echo_policy import SPEC, EchoPolicy, expected_actions
from tests.deploy.operation.conftest import a_free_port, watched_server
from tests.deploy.planned_policy import PlannedEcho
from tests.deploy.raw_client import ANY_PORT, RawClient

from loopdit.datasets.spec import TensorSpec
from loopdit.datasets.store import EpisodeStore
from loopdit.deploy import jpeg_frames
from loopdit.deploy.client import PolicyClient
from loopdit.deploy.jpeg_frames import encoded
from loopdit.deploy.messages import Chunk, Error, ErrorCode, Hello, Obs, WireError
from loopdit.deploy.protocol import encode
from loopdit.deploy.serving.dispatcher import Dispatcher
from loopdit.deploy.serving.offer import offer_of
from loopdit.deploy.serving.server import PolicyServer
from loopdit.deploy.serving.worker import computation
from loopdit.errors import ConfigError

LARGE = replace(SPEC, observations=(TensorSpec("images.front", (64, 96, 3), "uint8"), SPEC.proprio))


class LargeFrames(EchoPolicy):
    spec = LARGE


class PlannedFrames(PlannedEcho):
    spec = LARGE


class StillClock:
    now = 0.0


@pytest.fixture
def server() -> Iterator[PolicyServer]:
    with PolicyServer(LargeFrames(), ANY_PORT) as server:
        yield server


def seen(brightness: int, x: float = 0.0) -> dict[str, np.ndarray]:
    ramp = np.arange(96, dtype=np.uint8)[None, :, None]
    return {
        "images.front": np.broadcast_to(ramp + np.uint8(brightness), (64, 96, 3)).copy(),
        "proprio": np.array([x, -x, 0.5], np.float32),
    }


def as_decoded(frames: dict[str, np.ndarray], quality: int) -> dict[str, np.ndarray]:
    """What another decoder makes of them."""
    out = io.BytesIO()
    Image.fromarray(frames["images.front"]).save(out, "JPEG", quality=quality)
    return {**frames, "images.front": np.asarray(Image.open(out))}


def broken() -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Whose header is right, and whose picture breaks off."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 96, 3)).astype(np.uint8)
    frames, names = encoded({**seen(0), "images.front": noise}, LARGE, 80)
    return {**dict(frames), "images.front": frames["images.front"][:-300]}, names


@pytest.mark.parametrize("shared_memory", [False, True])
def test_a_client_sends_jpegs_and_the_policy_sees_frames(server: PolicyServer, shared_memory: bool):
    with PolicyClient(server.endpoint, shared_memory=shared_memory, jpeg_quality=85) as client:
        for brightness in (0, 40, 80):
            reply = client.infer(seen(brightness), seed=3)
            told = as_decoded(seen(brightness), 85)
            np.testing.assert_array_equal(reply.actions, expected_actions(told, seed=3))
            assert reply.timing_us["decode"] > 0


def test_a_picture_that_breaks_off_is_its_senders_error_alone(server: PolicyServer):
    with RawClient(server.endpoint) as raw, PolicyClient(server.endpoint) as other:
        raw.open()
        frames, names = broken()
        raw.send(Obs(seq=2, epoch=1, jpeg=names), frames)
        answer, _ = raw.receive()
        assert isinstance(answer, Error)
        assert (answer.seq, answer.code) == (2, ErrorCode.MALFORMED)
        assert "images.front is no whole JPEG" in answer.message
        np.testing.assert_array_equal(other.infer(seen(5)).actions, expected_actions(seen(5)))
        raw.send(Obs(seq=3, epoch=1), seen(6))
        assert isinstance(raw.receive()[0], Chunk)


def test_what_a_header_claims_is_refused_when_it_comes(server: PolicyServer):
    low = replace(LARGE, observations=(TensorSpec("images.front", (32, 96, 3), "uint8"),))
    small = encoded({"images.front": np.zeros((32, 96, 3), np.uint8)}, low, 80)[0]
    with RawClient(server.endpoint) as raw:
        raw.open()
        raw.send(Obs(seq=2, epoch=1, jpeg=("images.front",)), {**seen(0), **small})
        answer, _ = raw.receive()
        assert isinstance(answer, Error)
        assert answer.code == ErrorCode.SHAPE
        assert "96 x 32, RGB; the policy takes 96 x 64" in answer.message


def test_in_a_batch_one_that_breaks_off_leaves_the_others_their_chunks():
    policy, clock = PlannedFrames(), StillClock()
    dispatcher = Dispatcher(offer_of(policy), clock)
    for number in range(2):
        peer = b"robot-%d" % number
        frames, names = encoded(seen(10, x=number), LARGE, 90) if number else broken()
        for message, tensors in (
            (Hello(1, 1, 1, number), None),
            (Obs(seq=2, epoch=1, jpeg=names), frames),
        ):
            dispatcher.receive(peer, [bytes(frame) for frame in encode(message, tensors)])
    job = dispatcher.next_job()
    assert job is not None
    assert len(job.requests) == 2
    done, outcomes = computation(policy, clock)(job)
    replies = {r.peer: r for r in dispatcher.finish(done, outcomes, 0.0)}
    refused = replies[b"robot-0"].message
    assert isinstance(refused, Error)
    assert refused.code == ErrorCode.MALFORMED
    told = as_decoded(seen(10, x=1), 90)
    np.testing.assert_array_equal(replies[b"robot-1"].tensors["action"], expected_actions(told))


def test_what_is_recorded_and_shown_are_the_frames_that_the_policy_saw(tmp_path: Path):
    path = tmp_path / "served.zarr"
    with (
        watched_server(LargeFrames(), a_free_port(), record=str(path), record_mb=64) as watched,
        PolicyClient(watched.server.endpoint, jpeg_quality=85) as robot,
    ):
        watched.json("/live.json")  # somebody looks
        robot.infer(seen(20))
        shown = watched.get("/camera/images.front")[1]
    told = as_decoded(seen(20), 85)["images.front"]
    np.testing.assert_array_equal(EpisodeStore.open(path).arrays(0)["images.front"][0], told)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(shown))), told)


def test_where_jpegs_cannot_be_read_or_made_the_client_is_told_when_it_connects(
    monkeypatch: pytest.MonkeyPatch, server: PolicyServer
):
    with pytest.raises(ConfigError, match="1 to 100"):
        PolicyClient(server.endpoint, jpeg_quality=101)
    monkeypatch.setattr(jpeg_frames, "available", lambda: False)
    with pytest.raises(ConfigError, match=r"pip install 'loopdit\[jpeg\]'"):
        PolicyClient(server.endpoint, jpeg_quality=80)


def test_a_server_that_takes_no_jpegs_is_said_to_be_one():
    class Blind(EchoPolicy):
        spec = replace(SPEC, observations=(SPEC.proprio,))

    with (
        PolicyServer(Blind(), ANY_PORT) as server,
        pytest.raises(WireError, match="takes no JPEG frames") as caught,
    ):
        PolicyClient(server.endpoint, jpeg_quality=80)
    assert caught.value.code == ErrorCode.UNSUPPORTED
