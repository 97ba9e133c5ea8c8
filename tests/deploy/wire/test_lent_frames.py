"""Large frames are sent out of their owner's memory: never what is written there afterwards."""

import contextlib
import socket
import threading

import numpy as np
import pytest
import zmq

from loopdit.datasets.spec import PolicySpec, TensorSpec
from loopdit.deploy.client import PolicyClient
from loopdit.deploy.messages import Hello, Obs, WireError
from loopdit.deploy.protocol import decode, encode
from loopdit.deploy.serving.offer import offer_of
from loopdit.deploy.serving.zeros_policy import ZerosPolicy

MIB = 2**20
SIDE = 2048  # 12 MiB a frame: more than all buffers on the way
SPEC = PolicySpec(
    observations=(
        TensorSpec("images.front", (SIDE, SIDE, 3), "uint8"),
        TensorSpec("proprio", (1,), "float32"),
    ),
    action=TensorSpec("action", (1,), "float32"),
    action_frame="none",
    control_period_s=0.1,
)


class HeldUp:
    """A way to a server on which nothing larger than a greeting passes until `let_pass`."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.let_pass = threading.Event()
        self._sockets = [socket.create_server(("127.0.0.1", 0))]
        self._sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        self.endpoint = f"tcp://127.0.0.1:{self._sockets[0].getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._sockets[0].accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                self._sockets += [near, far]
                for ends in ((near, far, 16384), (far, near, 1 << 40)):
                    self._threads.append(threading.Thread(target=self._pump, args=ends))
                    self._threads[-1].start()

    def _pump(self, here: socket.socket, there: socket.socket, free: int) -> None:
        """What comes here goes there, all that is beyond `free` bytes when it may pass."""
        passed = 0
        with contextlib.suppress(OSError):
            while some := here.recv(4096):
                passed += len(some)
                if passed > free:
                    self.let_pass.wait()
                there.sendall(some)
            there.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.let_pass.set()
        for one in list(self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join()
        for one in self._sockets:
            one.close()


class Server:
    """Greets each client, answers nothing else, and keeps the observations that come."""

    def __init__(self) -> None:
        self._context = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.LINGER, 0)
        self.port = self._router.bind_to_random_port("tcp://127.0.0.1")
        self._offer = offer_of(ZerosPolicy(SPEC, 2), 0, 0)
        self.frames: list[np.ndarray] = []
        self.seen = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._ended.is_set():
            if self._router.poll(20):
                peer, *frames = self._router.recv_multipart()
                message, tensors = decode(frames, 64 * MIB)
                if isinstance(message, Hello):
                    self._router.send_multipart(
                        [peer, *encode(self._offer.welcome(message, 1, ""))]
                    )
                if isinstance(message, Obs):
                    self.frames.append(tensors["images.front"].copy())
                    self.seen.set()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._context.destroy(linger=0)


def test_what_was_given_up_never_arrives_with_what_was_written_over_it():
    with (
        contextlib.closing(Server()) as server,
        contextlib.closing(HeldUp(server.port)) as way,
    ):
        frame = np.full((SIDE, SIDE, 3), 1, np.uint8)
        with PolicyClient(way.endpoint, timeout_s=5, shared_memory=False) as client:
            client.timeout_s = 0.5
            for value in (2, 3):
                with pytest.raises(WireError, match="no answer"):
                    client.infer({"images.front": frame, "proprio": np.zeros(1, np.float32)})
                frame[:] = value  # a camera's next picture, in the same memory
            way.let_pass.set()
            with pytest.raises(WireError, match="no answer"):
                client.infer({"images.front": frame, "proprio": np.zeros(1, np.float32)})
            assert server.seen.wait(60)
        arrived = server.frames
    assert [(int(one.min()), int(one.max())) for one in arrived] == [(3, 3)]
