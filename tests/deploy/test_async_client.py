"""The client in asyncio and in threads, and what importing it costs."""

import asyncio
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from tests.deploy.echo_policy import EchoPolicy, HeldPolicy, expected_actions, observation
from tests.deploy.raw_client import ANY_PORT

from loopdit.deploy.async_client import AsyncPolicyClient
from loopdit.deploy.client import PolicyClient
from loopdit.deploy.messages import WireError
from loopdit.deploy.serving.server import PolicyServer


def test_several_clients_share_one_event_loop(echo: PolicyServer):
    async def robot(offset: int) -> None:
        async with await AsyncPolicyClient.connect(echo.endpoint) as policy:
            assert policy.spec == EchoPolicy.spec
            await policy.reset(seed=0)
            for value in range(5):
                reply = await policy.infer(observation(offset + value), seed=1)
                expected = expected_actions(observation(offset + value), seed=1)
                np.testing.assert_array_equal(reply.actions, expected)
            assert (await policy.ping())["model_id"] == "echo-0"

    async def fleet() -> None:
        await asyncio.gather(*(robot(10 * number) for number in range(5)))

    asyncio.run(fleet())


def test_the_event_loop_goes_on_while_a_chunk_is_awaited():
    policy = HeldPolicy()

    async def ticks(endpoint: str) -> int:
        async with await AsyncPolicyClient.connect(endpoint) as client:
            waiting = asyncio.ensure_future(client.infer(observation(1)))
            count = 0
            while not policy.began.acquire(blocking=False):
                await asyncio.sleep(0.001)
            for _ in range(10):
                await asyncio.sleep(0.001)
                count += not waiting.done()
            policy.let_go.release()
            await waiting
            return count

    with PolicyServer(policy, ANY_PORT) as server:
        assert asyncio.run(ticks(server.endpoint)) == 10


def test_a_server_that_is_not_there_is_the_same_error_awaited():
    async def connect() -> None:
        await AsyncPolicyClient.connect("tcp://127.0.0.1:9", timeout_s=0.2)

    with pytest.raises(WireError, match="is policy-serve running there"):
        asyncio.run(connect())


def test_threads_that_share_a_client_get_their_own_answers(echo: PolicyServer):
    wrong: list[int] = []
    with PolicyClient(echo.endpoint) as client:

        def ask(number: int) -> None:
            for value in range(20):
                seen = observation(100 * number + value)
                actions = client.infer(seen).actions
                if not np.array_equal(actions, expected_actions(seen)):
                    wrong.append(number)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def imported_by(modules: str) -> set[str]:
    """All modules that a fresh interpreter has after importing these."""
    code = f"import sys, {modules}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return set(done.stdout.split())


@pytest.mark.system
def test_importing_the_client_brings_no_package_but_the_three_it_stands_on():
    # Its time is of the machine (docs/bench.md). What would add much to it is another package.
    beyond = imported_by("loopdit.deploy.client") - imported_by("numpy, zmq, msgspec")
    packages = {name.partition(".")[0] for name in beyond}
    assert packages - set(sys.stdlib_module_names) == {"loopdit"}
    assert not packages & {"asyncio", "concurrent"}  # slow to import, and the client needs neither


def test_asking_takes_five_lines(echo: PolicyServer):
    began = time.monotonic()
    with PolicyClient(echo.endpoint) as policy:
        chunk = policy.infer(observation(1))
    assert chunk.actions.shape == (5, 3)
    assert time.monotonic() - began < 5
