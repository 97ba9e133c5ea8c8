"""A robot that says exactly what a test tells it to, right or wrong."""

from collections.abc import Sequence

import numpy as np
import zmq

from loopdit.deploy.messages import Error, Hello, Message, Obs, Welcome
from loopdit.deploy.protocol import decode, encode

ANY_PORT = "tcp://127.0.0.1:0"
Answer = tuple[Message, dict[str, np.ndarray]]


class RawClient:
    def __init__(self, endpoint: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(endpoint)

    def __enter__(self) -> "RawClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._context.destroy(linger=0)

    def send(self, message: Message, tensors: dict[str, np.ndarray] | None = None) -> None:
        self._socket.send_multipart(encode(message, tensors))

    def send_at_once(self, message: Message) -> bool:
        """Whether there was room for it."""
        try:
            self._socket.send_multipart(encode(message), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def send_frames(self, frames: Sequence[bytes]) -> None:
        self._socket.send_multipart(frames)

    def receive(self, timeout_s: float = 10.0) -> Answer:
        assert self._socket.poll(int(timeout_s * 1e3)), "no answer came"
        return decode(self._socket.recv_multipart(), 1 << 20)

    def has_answer(self, within_s: float) -> bool:
        return bool(self._socket.poll(int(within_s * 1e3)))

    def open(self, session: int = 1) -> Welcome:
        self.send(Hello(1, 1, 1, session))
        welcome, _ = self.receive()
        assert isinstance(welcome, Welcome), welcome
        return welcome

    def observe(self, seq: int, observation: dict[str, np.ndarray], epoch: int = 1) -> None:
        self.send(Obs(seq=seq, epoch=epoch), observation)


def refusal(answer: Answer) -> tuple[int, str]:
    """The seq that was refused, and why."""
    message = answer[0]
    assert isinstance(message, Error), message
    return message.seq, message.code
