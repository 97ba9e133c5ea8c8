"""Frames in shared memory: the same chunks, nothing left behind, and hostile clients refused."""

import array
import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.deploy.echo_policy import EchoPolicy, expected_actions, observation
from tests.deploy.raw_client import ANY_PORT, RawClient

from loopdit.deploy.client import PolicyClient
from loopdit.deploy.messages import ErrorCode, Hello, Obs, Welcome, WireError
from loopdit.deploy.protocol import decode, encode
from loopdit.deploy.security.access import Access
from loopdit.deploy.serving.server import PolicyServer
from loopdit.deploy.wire import lane_link
from loopdit.deploy.wire.lane_datagram import INLINE, pack, unpack

pytestmark = pytest.mark.skipif(not lane_link.AVAILABLE, reason="shared memory lanes need Linux")


class BigEchoPolicy(EchoPolicy):
    """Its frames are too large to travel in a datagram."""

    spec = EchoPolicy.spec.__class__.from_dict(
        EchoPolicy.spec.to_dict()
        | {
            "observations": [
                {**t, "shape": [40, 60, 3]} if t["name"] == "images.front" else t
                for t in EchoPolicy.spec.to_dict()["observations"]
            ]
        }
    )


def large(value: float) -> dict[str, np.ndarray]:
    return observation(value) | {"images.front": np.full((40, 60, 3), int(value), np.uint8)}


@pytest.fixture
def server() -> Iterator[PolicyServer]:
    with PolicyServer(BigEchoPolicy(), ANY_PORT) as running:
        yield running


def test_chunks_are_the_same_over_every_transport(server: PolicyServer):
    with (
        PolicyClient(server.endpoint) as lane,
        PolicyClient(server.endpoint, shared_memory=False) as tcp,
    ):
        assert (lane.transport, tcp.transport) == ("shared memory", "tcp")
        for value in range(8):  # more than there are slots
            for client in (lane, tcp):
                actions = client.infer(large(value)).actions
                np.testing.assert_array_equal(actions, expected_actions(large(value)))


def test_a_server_over_ipc_offers_both(tmp_path_factory: pytest.TempPathFactory):
    endpoint = f"ipc://{tmp_path_factory.mktemp('i')}/s"
    with (
        PolicyServer(EchoPolicy(), endpoint),
        PolicyClient(endpoint) as lane,
        PolicyClient(endpoint, shared_memory=False) as ipc,
    ):
        assert (lane.transport, ipc.transport) == ("shared memory", "ipc")
        for client in (lane, ipc):
            actions = client.infer(observation(2)).actions
            np.testing.assert_array_equal(actions, expected_actions(observation(2)))


def test_a_server_that_offers_no_lane_is_talked_to_over_sockets():
    with (
        PolicyServer(EchoPolicy(), ANY_PORT, access=Access(shared_memory=False)) as server,
        PolicyClient(server.endpoint) as client,
    ):
        assert client.transport == "tcp"
        assert client.infer(observation(1)).actions.shape == (5, 3)


def test_frames_that_the_client_writes_after_its_answer_change_nothing(server: PolicyServer):
    with PolicyClient(server.endpoint) as client:
        first = client.infer(large(1)).actions
        client.infer(large(2))
        np.testing.assert_array_equal(first, expected_actions(large(1)))


def descriptors(process: int) -> int:
    return len(os.listdir(f"/proc/{process}/fd"))


def test_nothing_is_left_of_clients_that_were_killed(server: PolicyServer):
    code = (
        "import sys, numpy as np\n"
        "from loopdit.deploy.client import PolicyClient\n"
        f"client = PolicyClient({server.endpoint!r})\n"
        "client.infer({'images.front': np.zeros((40, 60, 3), np.uint8),\n"
        "    'proprio': np.zeros(3, np.float32)})\n"
        "print(client.transport, flush=True); sys.stdin.read()\n"
    )
    with PolicyClient(server.endpoint) as first:  # what a process opens once and keeps
        first.infer(large(1))
    before = descriptors(os.getpid())
    names = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    client = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert client.stdout is not None
    assert client.stdout.readline() == "shared memory\n"
    assert server.status().startswith("sessions 1")
    client.send_signal(signal.SIGKILL)
    client.communicate()
    deadline = time.monotonic() + 10
    while not server.status().startswith("sessions 0"):
        assert time.monotonic() < deadline, server.status()
        time.sleep(0.01)
    with PolicyClient(server.endpoint) as other:  # which makes the server look at its lanes
        other.infer(large(1))
    deadline = time.monotonic() + 10
    while descriptors(os.getpid()) > before + 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert descriptors(os.getpid()) <= before + 2
    if os.path.isdir("/dev/shm"):
        assert set(os.listdir("/dev/shm")) <= names


class RawLane:
    """A client that says whatever a test wants over a lane."""

    def __init__(self, address: str, size: int = 4096, seals: int = fcntl.F_SEAL_SHRINK) -> None:
        name, _, token = address.partition("/")
        self.token = bytes.fromhex(token)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(10)
        self.socket.connect(f"\0{name}")
        self.memory = os.memfd_create("test", os.MFD_ALLOW_SEALING)
        os.ftruncate(self.memory, size)
        fcntl.fcntl(self.memory, fcntl.F_ADD_SEALS, seals)

    def introduce(self, token: bytes | None = None, memories: int = 1) -> bytes:
        beside = [
            (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [self.memory] * memories))
        ]
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendmsg([self.token if token is None else token], beside)
            return self.socket.recv(1)
        return b""

    def say(self, datagram: bytes) -> str:
        self.socket.send(datagram)
        message, _ = decode(unpack(self.socket.recv(1 << 18), memoryview(b"")), 1 << 20)
        return getattr(message, "code", type(message).__name__)

    def close(self) -> None:
        self.socket.close()
        os.close(self.memory)


@contextlib.contextmanager
def lane_to(server: PolicyServer, **options: int) -> Generator[RawLane]:
    with RawClient(server.endpoint) as client:
        lane = RawLane(client.open(session=99).shared_memory, **options)
        with contextlib.closing(lane):
            yield lane


def test_a_lane_needs_the_token_and_one_memory(server: PolicyServer):
    with lane_to(server) as lane:
        assert lane.introduce(token=bytes(16)) == b""
    with lane_to(server) as lane:
        assert lane.introduce(token=b"") == b""
    with lane_to(server) as lane:
        assert lane.introduce(memories=0) == b""
    with lane_to(server) as lane:
        assert lane.introduce(memories=2) == b""
    with lane_to(server) as lane:
        assert lane.introduce() == b"\1"


def test_a_memory_that_could_be_cut_short_is_refused(server: PolicyServer):
    with lane_to(server, seals=fcntl.F_SEAL_GROW) as lane:
        assert lane.introduce() == b""
    with lane_to(server, size=0) as lane:
        assert lane.introduce() == b""
    with PolicyClient(server.endpoint) as good:
        assert good.infer(large(1)).actions.shape == (5, 3)


def test_offsets_outside_of_the_memory_are_refused_and_the_others_served(server: PolicyServer):
    hello = bytes(encode(Hello(1, 1, 1, 99))[0])
    frames = [bytes(frame) for frame in encode(Obs(seq=2, epoch=2), large(1))]
    with lane_to(server, size=8192) as lane, PolicyClient(server.endpoint) as good:
        assert lane.introduce() == b"\1"
        assert lane.say(pack(hello, [], [])) == Welcome.__name__
        for place, size in ((8000, 7200), (2**63, 7200), (2**64 - 2, 7200), (0, 2**63)):
            said = lane.say(pack(frames[0], [(place, size), (INLINE, 12)], [frames[2]]))
            assert said == ErrorCode.MALFORMED
        assert lane.say(pack(frames[0], [(0, 100), (INLINE, 12)], [frames[2]])) == ErrorCode.SHAPE
        assert lane.say(b"\xff") == ErrorCode.MALFORMED
        assert lane.say(b"\xff" * 100) == ErrorCode.TOO_BIG
        assert lane.say(pack(frames[0], [(0, 7200), (INLINE, 12)], [frames[2]])) == "Chunk"
        np.testing.assert_array_equal(good.infer(large(3)).actions, expected_actions(large(3)))


@given(st.binary(max_size=200))
def test_any_datagram_is_frames_or_a_wire_error(datagram: bytes):
    memory = memoryview(bytes(64))
    try:
        frames = unpack(datagram, memory)
    except WireError:
        return
    assert len(frames) - 1 == int.from_bytes(datagram[:4], "little")


@given(st.lists(st.binary(max_size=30), max_size=5), st.binary(max_size=40))
def test_what_is_packed_is_unpacked(tensors: list[bytes], header: bytes):
    places = [(INLINE, len(t)) for t in tensors]
    memory = memoryview(b"0123456789")
    datagram = pack(header, [*places, (3, 4)], tensors)
    frames = [bytes(f) for f in unpack(datagram, memory)]
    assert frames == [header, *tensors, b"3456"]


def test_a_client_notices_at_once_that_its_server_died():
    server = PolicyServer(EchoPolicy(), ANY_PORT)
    server.start()
    with PolicyClient(server.endpoint, timeout_s=5) as client:
        client.infer(observation(1))
        server.stop()
        began = time.monotonic()
        client.timeout_s = 0.5
        with pytest.raises(WireError) as caught:
            client.infer(observation(1))
        assert caught.value.retryable
        with PolicyServer(EchoPolicy(), server.endpoint):
            client.timeout_s = 5
            assert client.infer(observation(1)).actions.shape == (5, 3)
            assert client.transport == "shared memory"
        assert time.monotonic() - began < 5
