"""A client of the echoing server that says whatever it is told to."""

from collections.abc import Iterator

import pytest
from tests.deploy.raw_client import RawClient

from loopdit.deploy.serving.server import PolicyServer


@pytest.fixture
def client(echo: PolicyServer) -> Iterator[RawClient]:
    with RawClient(echo.endpoint) as client:
        yield client
