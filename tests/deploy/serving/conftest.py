"""A server of an echoing policy, and a client of it that says whatever it is told to."""

from collections.abc import Iterator

import pytest
from tests.deploy.echo_policy import EchoPolicy
from tests.deploy.raw_client import ANY_PORT, RawClient

from loopdit.deploy.serving.server import PolicyServer


@pytest.fixture
def echo() -> Iterator[PolicyServer]:
    with PolicyServer(EchoPolicy(), ANY_PORT) as server:
        yield server


@pytest.fixture
def client(echo: PolicyServer) -> Iterator[RawClient]:
    with RawClient(echo.endpoint) as client:
        yield client
