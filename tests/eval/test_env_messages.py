import runpy
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loopdit.errors import ConfigError, RenderingError, SpecMismatch
from loopdit.eval.env_messages import ENV_WIRE, EnvMessage, code_of, raised_for

GOLDENS = Path(__file__).parents[1] / "goldens"
made: dict[str, Any] = runpy.run_path(str(GOLDENS / "make_env_wire.py"))
golden_messages: dict[str, tuple[EnvMessage, dict[str, np.ndarray]]] = made["golden_messages"]()


@pytest.mark.parametrize("name", golden_messages)
def test_messages_are_the_bytes_they_have_always_been(name: str):
    assert made["to_file"](*golden_messages[name]) == golden(name)


@pytest.mark.parametrize("name", golden_messages)
def test_recorded_bytes_are_read_as_the_message_they_were(name: str):
    message, tensors = golden_messages[name]
    data, frames = golden(name), list[bytes]()
    while data:
        (size,) = struct.unpack("<I", data[:4])
        frames.append(data[4 : 4 + size])
        data = data[4 + size :]
    read, arrays = ENV_WIRE.decode(frames, 1 << 20)
    assert type(read) is type(message)
    assert {n: a.tolist() for n, a in arrays.items()} == {n: a.tolist() for n, a in tensors.items()}
    without_tensors = ENV_WIRE.encode(message)[0]
    assert ENV_WIRE.decode([bytes(without_tensors)], 0)[0] == message


def test_an_error_arrives_as_what_was_raised():
    assert raised_for(code_of(ConfigError("x"))) is ConfigError
    assert raised_for(code_of(RenderingError("x"))) is RenderingError
    assert raised_for(code_of(SpecMismatch("x"))) is None  # a plain ServerError


def golden(name: str) -> bytes:
    return (GOLDENS / "env_wire_v1" / f"{name}.bin").read_bytes()
