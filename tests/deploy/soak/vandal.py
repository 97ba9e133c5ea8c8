"""What comes to an open port besides robots: noise, half messages, floods, connections that hang.

python -m tests.deploy.soak.vandal ENDPOINT SEED SECONDS
"""

import contextlib
import socket
import sys
import time
from collections.abc import Callable

import numpy as np
import zmq

from loopdit.deploy.messages import Hello, Obs, Ping
from loopdit.deploy.protocol import MAGIC, encode

_PAUSE_S = 0.2


def noise(port: int, random: np.random.Generator) -> None:
    """Bytes that are no ZeroMQ."""
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(random.bytes(int(random.integers(1, 5000))))


def silence(port: int, random: np.random.Generator) -> None:
    """A connection that says nothing and goes."""
    with socket.create_connection(("127.0.0.1", port), 5):
        time.sleep(_PAUSE_S)


def with_dealer(
    say: Callable[["zmq.Socket[bytes]", np.random.Generator], None],
) -> Callable[[int, np.random.Generator], None]:
    """The same over ZeroMQ, and hung up without a word."""

    def come(port: int, random: np.random.Generator) -> None:
        with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
            dealer.setsockopt(zmq.LINGER, 0)
            dealer.setsockopt(zmq.SNDTIMEO, 1000)
            dealer.connect(f"tcp://127.0.0.1:{port}")
            say(dealer, random)
            time.sleep(_PAUSE_S)

    return come


def nonsense(dealer: "zmq.Socket[bytes]", random: np.random.Generator) -> None:
    """Frames with the right magic, and nothing right behind it."""
    for _ in range(20):
        frames = [MAGIC + random.bytes(int(random.integers(0, 200)))]
        frames += [random.bytes(int(random.integers(0, 3000)))] * int(random.integers(0, 4))
        dealer.send_multipart(frames)


def flood(dealer: "zmq.Socket[bytes]", random: np.random.Generator) -> None:
    """Pings whose answers nobody reads."""
    for seq in range(1, 500):
        dealer.send_multipart(encode(Ping(seq)))


def left_alone(dealer: "zmq.Socket[bytes]", random: np.random.Generator) -> None:
    """A session whose observations are nonsense, and which is never closed."""
    dealer.send_multipart(encode(Hello(1, 1, 1, int(random.integers(2**62)))))
    rubbish = {"images.front": random.integers(0, 255, (9, 9)).astype(np.uint8)}
    for seq in range(2, 8):
        names = ("images.front",) if seq % 2 else ()
        dealer.send_multipart(encode(Obs(seq=seq, epoch=1, jpeg=names), rubbish))


WAYS = (noise, silence, with_dealer(nonsense), with_dealer(flood), with_dealer(left_alone))


def main() -> None:
    """One way after the other, for so long."""
    endpoint, seed, seconds = sys.argv[1:]
    port = int(endpoint.rpartition(":")[2])
    random = np.random.default_rng(int(seed))
    until_s = time.monotonic() + float(seconds)
    while time.monotonic() < until_s:
        with contextlib.suppress(OSError, zmq.Again):  # it hung up, as it should
            WAYS[int(random.integers(len(WAYS)))](port, random)
        time.sleep(_PAUSE_S)


if __name__ == "__main__":
    main()
