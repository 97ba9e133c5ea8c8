"""`policy-serve mode=control` where others can reach it: keys, at each of its three addresses."""

import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import pytest
from tests.deploy.operation.conftest import Watched, a_free_port
from tests.deploy.raw_client import ANY_PORT
from tests.deploy.serving.serving_process import Serving, serving

from loopdit.deploy.bundle.bundle import Bundle, default_bundle
from loopdit.deploy.messages import ErrorCode, WireError
from loopdit.deploy.robot.control.panel import operator
from loopdit.deploy.robot.control.robot_link import RobotLink
from loopdit.deploy.security.keys import make_keys

ANYWHERE = (
    f"address={ANY_PORT}",
    f"control.actions={ANY_PORT}",
    f"control.observations={ANY_PORT}",
)


class Keys(TypedDict, total=False):
    keys: str
    server_key: str


@dataclass
class Secured:
    server: Serving
    said: dict[str, str]
    keys: Keys  # of the one client that it knows
    stranger: Keys


@contextmanager
def secured(folder: Path, *options: str) -> Generator[Secured]:
    public, secret = make_keys(folder, "server")
    _, known = make_keys(folder / "clients", "robot")
    _, unknown = make_keys(folder / "else", "stranger")
    curve = (f"curve.keys={secret}", f"curve.clients={folder}/clients")
    with serving("mode=control", "policy=zeros", *ANYWHERE, *curve, *options) as server:
        said = {line.split()[0]: line.split()[1].rstrip(",") for line in server.until("ready")}
        yield Secured(
            server,
            said,
            {"keys": str(known), "server_key": str(public)},
            {"keys": str(unknown), "server_key": str(public)},
        )


def moved(link: RobotLink, within_s: float = 20.0) -> bool:
    """Whether an action came for what is observed."""
    spec = Bundle.open(default_bundle()).spec
    seen = {t.name: np.zeros(t.shape, t.dtype) for t in spec.observations}
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        link.observe(seen)
        if link.action(0.05) is not None:
            return True
    return False


@pytest.mark.system
def test_who_shows_a_known_key_is_moved_and_may_stop_it_and_nobody_else(tmp_path: Path):
    port = a_free_port()
    with secured(tmp_path, f"http_port={port}") as world:
        actions, observed = world.said["actions"], world.said["observed"]
        with RobotLink(actions, observed, **world.keys) as robot:
            assert moved(robot)
        for shown in (world.stranger, Keys()):
            began = time.monotonic()
            with RobotLink(actions, observed, **shown) as robot, pytest.raises(WireError) as caught:
                moved(robot)
            assert caught.value.code == ErrorCode.HANDSHAKE
            assert time.monotonic() - began < 5
            with (
                closing(operator(world.said["ready"], **shown)) as line,
                pytest.raises(WireError) as caught,
            ):
                line.stop(True, "a stranger")
            assert caught.value.code == ErrorCode.HANDSHAKE
        with closing(operator(world.said["ready"], **world.keys)) as line:
            assert not line.stop(False).pressed
            assert line.stop(True, "the panel").pressed
        # What it shows to a browser of its own machine needs no key of the user's.
        console = Watched(None, f"http://127.0.0.1:{port}")  # pyright: ignore[reportArgumentType]
        assert console.get("/healthz")[0] == 200


@pytest.mark.slow
def test_the_simulated_robot_is_given_keys_of_its_own(tmp_path: Path):
    with secured(tmp_path, "control.env=reach", "control.episodes=1") as world:
        assert any("seed 900000" in line for line in world.server.until("reach seed"))


@pytest.mark.system
def test_an_address_that_others_reach_needs_keys_or_the_users_word():
    addresses = ("address=tcp://0.0.0.0:0", *ANYWHERE[1:])
    with serving("mode=control", "policy=zeros", *addresses) as server:
        status, errors = server.end()
    assert status == 1
    assert "0.0.0.0 is not this machine's loopback address" in errors
    with serving("mode=control", "policy=zeros", *addresses, "open_to_network=true") as server:
        assert server.until("ready")[-1].startswith("ready tcp://0.0.0.0:")
