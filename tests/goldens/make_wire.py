"""Writes the golden messages of wire v1: one file a message, its frames one after the other.

Each frame is preceded by its length, 4 bytes little-endian. The difference to the committed files
is a change of the wire: old clients and servers must still understand it.
"""

import struct
import sys
from pathlib import Path

import numpy as np

from loopdit.datasets.spec import PolicySpec, TensorSpec
from loopdit.deploy.messages import (
    Bye,
    Chunk,
    Error,
    Estop,
    EstopAck,
    Hello,
    Message,
    Obs,
    Ping,
    Pong,
    Reset,
    ResetAck,
    Timing,
    Welcome,
)
from loopdit.deploy.protocol import encode

GOLDEN = Path(__file__).with_name("wire_v1")

SPEC = PolicySpec(
    observations=(
        TensorSpec("images.front", (2, 3, 3), "uint8"),
        TensorSpec("proprio", (2,), "float32", ("joint", "gripper"), ("rad", "m")),
    ),
    action=TensorSpec(
        "action", (2,), "float32", ("x", "gripper"), ("m", "1"), (-1.0, 0.0), (1.0, 1.0)
    ),
    action_frame="base of the robot",
    control_period_s=0.1,
)
OBSERVATION = {
    "images.front": np.arange(18, dtype=np.uint8).reshape(2, 3, 3),
    "proprio": np.array([0.25, -1.5], np.float32),
}
ACTIONS = {"action": np.array([[0.125, 1.0], [-0.25, 0.0], [0.5, 1.0]], np.float32)}


def golden_messages() -> dict[str, tuple[Message, dict[str, np.ndarray]]]:
    hello = Hello(1, 1, 1, 2**63 - 1, "loopdit-python 0.1.0", "0123456789abcdef")
    welcome = Welcome(
        *(1, 1, 2**63 - 1, 1, "model-0", 3, (1, 2, 4), 4, 10, "0123456789abcdef", SPEC.to_dict()),
        encodings=("jpeg",),
    )
    obs = Obs(3, 2, 17, 123_456_789_012, 40_000, 2, 5, 99, "lift the cube — slowly")
    as_jpeg = Obs(4, 2, 18, 123_456_889_012, jpeg=("images.front",))
    jpeg = {**OBSERVATION, "images.front": np.frombuffer(b"\xff\xd8 and so on \xff\xd9", np.uint8)}
    timing = Timing(120, 45, 8_000, 21_000, 30)
    chunk = Chunk(3, 2, 17, 123_456_789_012, 2, 5, "model-0", timing)
    error = Error(4, "SHAPE", False, "proprio has shape (3,) and dtype float32; ...")
    return {
        "hello": (hello, {}),
        "welcome": (welcome, {}),
        "obs": (obs, OBSERVATION),
        "obs_jpeg": (as_jpeg, jpeg),
        "chunk": (chunk, ACTIONS),
        "reset": (Reset(2, 2, 1_000_000), {}),
        "reset_ack": (ResetAck(2, 2, 1_000_000), {}),
        "ping": (Ping(5), {}),
        "pong": (Pong(5, "model-0", 12_000, 34_000, 1, 2, 300, 4, 5_000_000), {}),
        "estop": (Estop(7, True, "the red button"), {}),
        "estop_ack": (EstopAck(7, True, "the red button"), {}),
        "error": (error, {}),
        "bye": (Bye(6, "the server is stopping."), {}),
    }


def to_file(message: Message, tensors: dict[str, np.ndarray]) -> bytes:
    frames = [bytes(frame) for frame in encode(message, tensors)]
    return b"".join(struct.pack("<I", len(frame)) + frame for frame in frames)


def write_golden(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name, (message, tensors) in golden_messages().items():
        (folder / f"{name}.bin").write_bytes(to_file(message, tensors))


if __name__ == "__main__":
    write_golden(GOLDEN)
    sys.stdout.write(f"wrote {GOLDEN}\n")
