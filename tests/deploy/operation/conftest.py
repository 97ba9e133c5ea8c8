"""A real server of the echoing policy with its HTTP port, as `policy-serve` puts them together."""

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from tests.deploy.echo_policy import EchoPolicy
from tests.deploy.raw_client import ANY_PORT

from loopdit.deploy.operation.opening import watched
from loopdit.deploy.serving.served_policy import ServedPolicy
from loopdit.deploy.serving.server import PolicyServer


@dataclass
class Watched:
    server: PolicyServer
    url: str

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        return self.request(path, None, headers)

    def json(self, path: str) -> Any:
        return json.loads(self.get(path)[1])

    def request(self, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        asked = urllib.request.Request(self.url + path, body, headers)
        try:
            with urllib.request.urlopen(asked, timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.read()

    @property
    def token(self) -> str:
        page = self.get("/")[1].decode()
        return page.split('name="token" content="')[1].partition('"')[0]


@contextmanager
def watched_server(
    policy: ServedPolicy, free_port: int, start: bool = True, **options: Any
) -> Generator[Watched]:
    server = PolicyServer(policy, ANY_PORT)
    with watched(server, "127.0.0.1", lambda line: None, http_port=free_port, **options):
        if start:
            server.start()
        yield Watched(server, f"http://127.0.0.1:{free_port}")


def a_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def free_port() -> int:
    return a_free_port()


@pytest.fixture
def echo(free_port: int) -> Iterator[Watched]:
    with watched_server(EchoPolicy(), free_port) as server:
        yield server
