"""Writes the golden messages of wire LDE1, which drives environments in other processes.

Framed in the files as those of `make_wire.py`. The difference to the committed files is a change
of the wire: both sides may come from different checkouts.
"""

import struct
import sys
from pathlib import Path

import numpy as np

from loopdit.datasets.spec import PolicySpec, TensorSpec
from loopdit.deploy.messages import Bye, Error
from loopdit.eval.env_messages import (
    ENV_WIRE,
    Ask,
    EnvMessage,
    Given,
    Moment,
    Open,
    Opened,
    Start,
    Step,
)

GOLDEN = Path(__file__).with_name("env_wire_v1")

SPEC = PolicySpec(
    observations=(TensorSpec("proprio", (2,), "float32", ("joint", "gripper"), ("rad", "m")),),
    action=TensorSpec("action", (1,), "float32", ("x",), ("m",), (-1.0,), (1.0,)),
    action_frame="base of the robot",
    control_period_s=0.0125,
)
ACTION = {"action": np.array([0.25], np.float32)}
OBSERVATION = {"proprio": np.array([0.25, -1.5], np.float32)}
STATE = {"value": np.array([1.0, -2.5e-300], np.float64)}


def golden_messages() -> dict[str, tuple[EnvMessage, dict[str, np.ndarray]]]:
    info = {"success": True, "unstable": False, "stage": "lifted", "rejected": False, "height": 0.5}
    opened = Opened(
        1,
        1,
        "suite/task",
        "lift — slowly",
        0.0125,
        500,
        ("lifted",),
        "mujoco 3.3.0",
        SPEC.to_dict(),
    )
    return {
        "open": (Open(1, 1, 2**63 - 1, 64, "suite/task"), {}),
        "opened": (opened, {}),
        "start": (Start(2, 900_000, False), {}),
        "start_any": (Start(2, None), {}),
        "step": (Step(3), ACTION),
        "moment": (Moment(3, 1.0, True, False, info), OBSERVATION),
        "ask": (Ask(4, "state"), {}),
        "given": (Given(4), STATE),
        "error": (Error(5, "CONFIG", False, "env=suite/task has no scripted expert."), {}),
        "bye": (Bye(6, ""), {}),
    }


def to_file(message: EnvMessage, tensors: dict[str, np.ndarray]) -> bytes:
    frames = [bytes(frame) for frame in ENV_WIRE.encode(message, tensors)]
    return b"".join(struct.pack("<I", len(frame)) + frame for frame in frames)


def write_golden(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name, (message, tensors) in golden_messages().items():
        (folder / f"{name}.bin").write_bytes(to_file(message, tensors))


if __name__ == "__main__":
    write_golden(GOLDEN)
    sys.stdout.write(f"wrote {GOLDEN}\n")
