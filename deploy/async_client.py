"""`PolicyClient` for asyncio: the same methods, awaited.

    async with await AsyncPolicyClient.connect("tcp://127.0.0.1:5555") as policy:
        chunk = await policy.infer({"images.front": rgb, "proprio": joints})

The requests of one client take turns, in a thread of its own, so the event loop goes on meanwhile.
A task that is cancelled while it waits gives its request up: its answer is dropped when it comes.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from loopdit.datasets.spec import Observation, PolicySpec
from loopdit.deploy.client import ChunkReply, PolicyClient

Result = TypeVar("Result")


class AsyncPolicyClient:
    """Made by `connect`. `client` has what the server said in its welcome."""

    def __init__(self, client: PolicyClient, thread: ThreadPoolExecutor) -> None:
        self.client = client
        self._thread = thread

    @classmethod
    async def connect(cls, *arguments: Any, **options: Any) -> "AsyncPolicyClient":
        """Arguments and errors are PolicyClient's."""
        thread = ThreadPoolExecutor(1, thread_name_prefix="policy-client")
        loop = asyncio.get_running_loop()
        try:
            opened = partial(PolicyClient, *arguments, **options)
            client = await loop.run_in_executor(thread, opened)
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return cls(client, thread)

    @property
    def spec(self) -> PolicySpec:
        """What the policy is given and commands."""
        return self.client.spec

    async def __aenter__(self) -> "AsyncPolicyClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def infer(
        self,
        observation: Observation,
        *,
        loops: int = 0,
        steps: int = 0,
        seed: int = 0,
        instruction: str = "",
        budget_s: float | None = None,
    ) -> ChunkReply:
        """See `PolicyClient.infer`."""
        return await self._in_thread(
            partial(
                self.client.infer,
                observation,
                loops=loops,
                steps=steps,
                seed=seed,
                instruction=instruction,
                budget_s=budget_s,
            )
        )

    async def reset(self, seed: int = 0) -> None:
        """See `PolicyClient.reset`."""
        await self._in_thread(partial(self.client.reset, seed))

    async def ping(self) -> dict[str, int | str]:
        """See `PolicyClient.ping`."""
        return await self._in_thread(self.client.ping)

    async def close(self) -> None:
        """See `PolicyClient.close`."""
        await self._in_thread(self.client.close)
        self._thread.shutdown(wait=False)

    async def _in_thread(self, call: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)
