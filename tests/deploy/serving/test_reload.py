"""Another policy in the place of the served one, while clients go on asking."""

import gc
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace

import pytest
from tests.deploy.echo_policy import SPEC, EchoPolicy, HeldPolicy, observation
from tests.deploy.planned_policy import mortal_policy
from tests.deploy.raw_client import ANY_PORT, RawClient

from loopdit.deploy.messages import Chunk
from loopdit.deploy.serving.reload import Reloader
from loopdit.deploy.serving.replica import start_replicas
from loopdit.deploy.serving.served_policy import ServedPolicy
from loopdit.deploy.serving.server import PolicyServer
from loopdit.errors import BundleError, ConfigError, SpecMismatch


@pytest.fixture(autouse=True)
def garbage_of_tests_is_collected() -> Generator[None]:
    yield
    gc.unfreeze()


class NewEcho(EchoPolicy):
    model_id = "echo-1"


class LongerEcho(EchoPolicy):
    horizon = 9


class FasterEcho(EchoPolicy):
    spec = replace(SPEC, control_period_s=0.02)


def test_what_is_in_compute_is_finished_by_the_old_policy_and_what_waits_by_the_new():
    old = HeldPolicy()
    with (
        PolicyServer(old, ANY_PORT) as server,
        RawClient(server.endpoint) as one,
        RawClient(server.endpoint) as two,
    ):
        one.open(1)
        two.open(2)
        one.observe(2, observation())
        assert old.began.acquire(timeout=10)
        two.observe(2, observation())
        server.replace(NewEcho())
        answer = two.receive()[0]  # while the old one still computes
        assert isinstance(answer, Chunk)
        assert answer.model_id == "echo-1"
        assert not one.has_answer(within_s=0.0)
        old.let_go.release()
        answer = one.receive()[0]
        assert isinstance(answer, Chunk)
        assert answer.model_id == "echo-0"
        assert one.open(1).model_id == "echo-1"


def test_no_request_is_lost_while_policies_are_swapped_under_load():
    with PolicyServer(EchoPolicy(), ANY_PORT) as server:
        done = threading.Event()
        seen: list[list[str]] = []

        def ask(session: int) -> None:
            models: list[str] = []
            seen.append(models)
            with RawClient(server.endpoint) as client:
                client.open(session)
                seq = 2
                while not done.is_set():
                    client.observe(seq, observation(seq))
                    chunk = client.receive()[0]
                    assert isinstance(chunk, Chunk)
                    assert chunk.seq == seq
                    models.append(chunk.model_id)
                    seq += 1
            models.append("whole")

        clients = [threading.Thread(target=ask, args=(n,)) for n in (1, 2, 3)]
        for client in clients:
            client.start()
        for swap in range(20):
            server.replace(NewEcho() if swap % 2 == 0 else EchoPolicy())
            time.sleep(0.005)
        done.set()
        for client in clients:
            client.join(timeout=30)
        assert [models[-1] for models in seen] == ["whole"] * 3
        assert all({"echo-0", "echo-1"} < set(models) for models in seen)


@pytest.mark.parametrize(
    ("new", "error", "words"),
    [
        (FasterEcho(), SpecMismatch, "control_period_s"),
        (LongerEcho(), ConfigError, "chunks of 9 actions, the served one of 5"),
    ],
)
def test_a_policy_that_the_robots_were_not_made_for_is_refused(
    new: ServedPolicy, error: type[Exception], words: str
):
    with PolicyServer(EchoPolicy(), ANY_PORT) as server:
        with pytest.raises(error, match=words):
            server.replace(new)
        assert server.offer.model_id == "echo-0"


class Loads:
    """What a Reloader finds, one after the other."""

    def __init__(self, *found: ServedPolicy | Exception) -> None:
        self._found = list(found)

    def __call__(self) -> Sequence[ServedPolicy]:
        found = self._found.pop(0)
        if isinstance(found, Exception):
            raise found
        return [found]


def test_a_reload_that_fails_is_one_line_and_the_old_policy_serves_on(
    caplog: pytest.LogCaptureFixture,
):
    said: list[str] = []
    loads = Loads(BundleError("model.safetensors was\naltered."), FasterEcho(), NewEcho())
    with PolicyServer(EchoPolicy(), ANY_PORT) as server, RawClient(server.endpoint) as client:
        reloader = Reloader(server, loads, said.append)
        for refused in (1, 2):
            reloader.ask()
            until(lambda refused=refused: len(caplog.records) == refused)
            assert client.open().model_id == "echo-0"
        reloader.ask()
        until(lambda: bool(said))
        assert client.open().model_id == "echo-1"
    assert said == ["reloaded: model echo-1 in the place of echo-0"]
    first, second = [record.getMessage() for record in caplog.records]
    assert first == ("not reloaded, model echo-0 is served on: model.safetensors was altered.")
    assert "control_period_s" in second


def test_the_processes_of_the_old_policy_end_when_it_is_replaced():
    old = start_replicas(1, mortal_policy, "old-1")
    with PolicyServer(old, ANY_PORT) as server, RawClient(server.endpoint) as client:
        server.replace(start_replicas(1, mortal_policy, "new-1"))
        assert client.open().model_id == "new-1"
        until(lambda: not old[0].alive)


def until(true: Callable[[], bool], within_s: float = 20.0) -> None:
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)
