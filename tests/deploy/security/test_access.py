"""Who may reach a server: addresses, keys, limits."""

import contextlib
import logging
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
import zmq.auth
from hypothesis import given
from hypothesis import strategies as st
from tests.deploy.echo_policy import EchoPolicy, expected_actions, observation
from tests.deploy.raw_client import ANY_PORT, RawClient

from loopdit.deploy.client import PolicyClient
from loopdit.deploy.messages import Chunk, Error, ErrorCode, Obs, Ping, Pong, WireError
from loopdit.deploy.security.access import Access, CurveConfig, access_of
from loopdit.deploy.security.curve import own_keys, public_key, server_keys
from loopdit.deploy.security.endpoints import check_endpoint, reaches_only_this_machine
from loopdit.deploy.security.keys import make_keys
from loopdit.deploy.security.limits import RateLimit
from loopdit.deploy.serving.server import PolicyServer
from loopdit.errors import ConfigError


@pytest.mark.parametrize(
    "endpoint", ["tcp://0.0.0.0:1", "tcp://*:1", "tcp://10.1.2.3:1", "tcp://robot.example:1"]
)
def test_an_address_that_others_reach_needs_keys_or_the_users_word(endpoint: str):
    with pytest.raises(ConfigError, match=r"policy-serve keys.*open_to_network=true"):
        check_endpoint(endpoint)
    assert check_endpoint(endpoint, trusted=True) == endpoint
    assert not reaches_only_this_machine(endpoint)


def test_sockets_in_the_file_system_are_this_machines(tmp_path: Path):
    assert check_endpoint(f"ipc://{tmp_path}/socket") == f"ipc://{tmp_path}/socket"
    assert reaches_only_this_machine(f"ipc://{tmp_path}/socket")
    with pytest.raises(ConfigError, match="there is no folder"):
        check_endpoint(f"ipc://{tmp_path}/none/socket")
    for path in ("", "*", "x" * 108):
        with pytest.raises(ConfigError, match="names no socket"):
            check_endpoint(f"ipc://{path}")


def test_a_server_that_is_said_to_be_open_listens_everywhere():
    access = Access(open_to_network=True)
    with (
        PolicyServer(EchoPolicy(), "tcp://0.0.0.0:0", access=access) as server,
        PolicyClient(server.endpoint.replace("0.0.0.0", "127.0.0.1")) as client,
    ):
        assert client.infer(observation(1)).actions.shape == (5, 3)


def test_keys_are_their_owners_alone(tmp_path: Path):
    old = os.umask(0)  # even where the user's umask would let everybody read
    try:
        public, secret = make_keys(tmp_path / "keys", "server")
    finally:
        os.umask(old)
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert secret.stat().st_mode & 0o777 == 0o600
    assert public.stat().st_mode & 0o777 == 0o644
    # pyzmq's own reader finds the same.
    assert zmq.auth.load_certificate(public) == (public_key(public), None)
    keys = own_keys(secret)
    assert zmq.auth.load_certificate(secret) == (keys.public, keys.secret)
    assert zmq.curve_public(keys.secret) == keys.public
    assert keys.secret.decode() not in repr(keys)
    with pytest.raises(ConfigError, match=r"there is .* already"):
        make_keys(tmp_path / "keys", "server")
    secret.chmod(0o640)
    with pytest.raises(ConfigError, match=r"others can read .* chmod 600"):
        own_keys(secret)


def test_files_that_are_no_keys_are_refused(tmp_path: Path):
    public, whole = make_keys(tmp_path, "server")
    with pytest.raises(ConfigError, match="has a public key alone"):
        own_keys(public)
    with pytest.raises(ConfigError, match="has a secret key in it"):
        public_key(whole)
    with pytest.raises(ConfigError, match="cannot be read"):
        own_keys(tmp_path / "absent")
    (tmp_path / "x.key").write_text('public-key = "short"')
    with pytest.raises(ConfigError, match="no public key of 40 characters"):
        public_key(tmp_path / "x.key")
    secret = str(tmp_path / "server.key_secret")
    with pytest.raises(ConfigError, match="is no folder"):
        server_keys(secret, str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="nobody could connect"):
        server_keys(secret, str(tmp_path / "empty"))
    with pytest.raises(ConfigError, match=r"x\.key has no public key"):  # and not later, in silence
        server_keys(secret, str(tmp_path))


def test_options_that_do_not_go_together_are_refused():
    with pytest.raises(ConfigError, match="go together"):
        CurveConfig(keys="server.key_secret")
    with pytest.raises(ConfigError, match="does nothing with"):
        access_of(CurveConfig("a", "b"), open_to_network=True, messages_per_s=0)
    with pytest.raises(ConfigError, match="go together"):
        PolicyClient(keys="a")


class Keyring:
    def __init__(self, folder: Path) -> None:
        self.server, self.server_secret = make_keys(folder, "server")
        self.clients = folder / "clients"
        _, self.robot = make_keys(self.clients, "robot")
        self.stranger_public, self.stranger = make_keys(folder / "else", "stranger")

    @contextlib.contextmanager
    def serve(self) -> Generator[PolicyServer]:
        keys = server_keys(str(self.server_secret), str(self.clients))
        with PolicyServer(EchoPolicy(), ANY_PORT, access=Access(keys=keys)) as server:
            yield server


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path)


@pytest.mark.parametrize("shared_memory", [True, False])
def test_a_client_whose_key_is_known_is_served(keyring: Keyring, shared_memory: bool):
    with (
        keyring.serve() as server,
        PolicyClient(
            server.endpoint,
            keys=keyring.robot,
            server_key=keyring.server,
            shared_memory=shared_memory,
        ) as client,
    ):
        actions = client.infer(observation(3)).actions
        np.testing.assert_array_equal(actions, expected_actions(observation(3)))


def test_everybody_else_is_told_within_a_second(keyring: Keyring, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "wants to see a key"),
        ({"keys": keyring.stranger, "server_key": keyring.server}, "does not know this client"),
        ({"keys": keyring.robot, "server_key": keyring.stranger_public}, "is not its key"),
    ]
    with keyring.serve() as server:
        for options, words in wrong:
            began = time.monotonic()
            with pytest.raises(WireError, match=words) as caught:
                PolicyClient(server.endpoint, **options)
            assert caught.value.code == ErrorCode.HANDSHAKE
            assert time.monotonic() - began < 1
        with PolicyClient(server.endpoint, keys=keyring.robot, server_key=keyring.server) as good:
            assert good.infer(observation(1)).actions.shape == (5, 3)
    secrets = [own_keys(path).secret.decode() for path in (keyring.server_secret, keyring.robot)]
    assert not any(secret in caplog.text for secret in secrets)


def test_a_client_with_keys_is_told_that_the_server_has_none(keyring: Keyring):
    with PolicyServer(EchoPolicy(), ANY_PORT) as server:
        began = time.monotonic()
        with pytest.raises(WireError) as caught:
            PolicyClient(server.endpoint, keys=keyring.robot, server_key=keyring.server)
        assert caught.value.code == ErrorCode.HANDSHAKE
        assert time.monotonic() - began < 1


def test_a_client_that_asks_too_often_is_refused_and_the_others_are_not():
    access = Access(messages_per_s=20)
    with (
        PolicyServer(EchoPolicy(), ANY_PORT, access=access) as server,
        RawClient(server.endpoint) as flood,
        RawClient(server.endpoint) as good,
    ):
        good.open(session=2)
        for seq in range(1, 60):
            flood.send(Ping(seq=seq))
        answers = [flood.receive()[0] for _ in range(59)]
        assert sorted(a.seq for a in answers) == list(range(1, 60))
        refused = [a for a in answers if isinstance(a, Error)]
        assert 20 <= len(refused) <= 39
        assert all(a.code == ErrorCode.OVERLOAD and a.retryable for a in refused)
        assert isinstance(answers[0], Pong)
        good.send(Obs(seq=2, epoch=1), observation(1))
        assert isinstance(good.receive()[0], Chunk)


@given(
    rate=st.floats(0.5, 1000),
    gaps=st.lists(st.floats(0, 5), min_size=1, max_size=200),
)
def test_nobody_gets_more_than_a_burst_and_the_rate(rate: float, gaps: list[float]):
    limit, now, admitted = RateLimit(rate), 0.0, 0
    for index, gap in enumerate(gaps):
        now += gap
        admitted += limit.admit(b"peer", now)
        assert admitted <= max(1.0, rate) + rate * now + 1e-6
        assert limit.admit(b"another %d" % index, now)


def test_who_stays_below_the_rate_is_always_admitted():
    limit = RateLimit(50.0)
    assert all(limit.admit(b"robot", step / 50) for step in range(1000))
