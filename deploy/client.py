"""The robot's side: an observation in, an action chunk out, over wire v1.

    with PolicyClient("tcp://127.0.0.1:5555") as policy:
        chunk = policy.infer({"images.front": rgb, "proprio": joints})
        robot.play(chunk.actions)  # (H, A) float32, raw units

A policy may be given the last `policy.spec.history` observations in one: keep them with an
`observation_history.ObservationHistory`, which is the same for a policy without history. One whose
spec has `committed` is told which actions are in flight: see `committed`.
Imports numpy, pyzmq and msgspec only. Threads may share a client: they take turns. For asyncio
there is `async_client.AsyncPolicyClient`.
"""

import operator
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from loopdit.datasets.spec import Observation, PolicySpec
from loopdit.deploy.jpeg_frames import JPEG, encoded, require_available
from loopdit.deploy.messages import (
    Chunk,
    ErrorCode,
    Obs,
    Ping,
    Pong,
    Reset,
    ResetAck,
    WireError,
)
from loopdit.deploy.quick_check import QuickCheck
from loopdit.deploy.robot.guide import check_with_guide
from loopdit.deploy.security.curve import client_keys
from loopdit.deploy.security.endpoints import reaches_only_this_machine
from loopdit.deploy.wire import lane_link
from loopdit.deploy.wire.client_session import Answer, ClientSession
from loopdit.deploy.wire.dealer_link import DealerLink
from loopdit.deploy.wire.link import Link
from loopdit.errors import ConfigError

_MAX_BUDGET_S = 3600.0


@dataclass(frozen=True)
class ChunkReply:
    """An action chunk and what it took.

    `actions` (H, A) float32 in raw units. `timing_us` is the server's split (queue, decode, encode,
    denoise, send); `latency_s` is what this client waited, wire included.
    """

    actions: np.ndarray
    loops: int
    steps: int
    timing_us: dict[str, int]
    latency_s: float
    model_id: str


class PolicyClient:
    """A session with a policy server, opened here.

    From the server's welcome: `spec`, `horizon`, and `model_id`, `loops`, `default_loops` and
    `steps`, which change with a server that comes back. `timeout_s` may be changed.
    A `spec` given here refuses another policy with a SpecMismatch that names the fields.
    `keys` (this client's NAME.key_secret) and `server_key` (the server's NAME.key) are files, for a
    server that wants to see keys. `shared_memory`: hand over frames without copying them through
    sockets, where the server runs on this machine and offers it. `jpeg_quality` (1 to 100): send
    frames as JPEG, for a slow link; 0: as they are. `link` is used in place of a
    connection to `endpoint`, such as `PolicyServer.connect()` gives within the server's process.
    Every method raises WireError, a ServerError with a `code` (ConfigError for a setting it cannot
    send). After any of them the client can be used again, and greets a server that came back.
    """

    def __init__(
        self,
        endpoint: str = "tcp://127.0.0.1:5555",
        timeout_s: float = 5.0,
        spec: PolicySpec | None = None,
        *,
        keys: str | Path = "",
        server_key: str | Path = "",
        shared_memory: bool = True,
        jpeg_quality: int = 0,
        link: Link | None = None,
    ) -> None:
        if not 0 < timeout_s <= _MAX_BUDGET_S:
            raise ConfigError(f"timeout_s={timeout_s} must be above 0, at most {_MAX_BUDGET_S:g}.")
        if not 0 <= _count("jpeg_quality", jpeg_quality) <= 100:
            raise ConfigError(f"jpeg_quality={jpeg_quality} must be 1 to 100, or 0 for raw frames.")
        if jpeg_quality:
            require_available()
        self._jpeg_quality = jpeg_quality
        self.endpoint = endpoint
        self.timeout_s = timeout_s
        self._step = 0
        near = link is None and reaches_only_this_machine(endpoint)
        self._session = ClientSession(
            endpoint,
            link or DealerLink(endpoint, *client_keys(keys, server_key)),
            near and shared_memory and lane_link.AVAILABLE,
            {JPEG} if jpeg_quality else frozenset(),
        )
        try:
            welcome = self._session.open(timeout_s)
            self.spec = PolicySpec.from_dict(welcome.spec)
            self._check = QuickCheck(self.spec)
            if spec is not None:
                spec.require_equal(
                    self.spec,
                    mine="the robot",
                    theirs=f"the policy served at {endpoint}",
                    remedy="Serve the bundle the robot was set up for.",
                )
        except BaseException:
            self._session.close()
            raise
        self.horizon = welcome.horizon
        self._session.spec_digest = welcome.spec_digest

    def __enter__(self) -> "PolicyClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def infer(
        self,
        observation: Observation,
        *,
        loops: int = 0,
        steps: int = 0,
        seed: int = 0,
        instruction: str = "",
        budget_s: float | None = None,
    ) -> ChunkReply:
        """The chunk for `observation`; loops=0 and steps=0 leave the choice to the server.

        `budget_s`: the chunk is wanted within this of the server's receiving it. What is left to
        the server is chosen to be in time, and what cannot be is refused with LATE. The same
        observation, loops, steps and seed give the same actions. A guide may be
        beside the tensors that the spec names (`robot/guide.py`).
        Raises ObservationError before anything is sent, WireError otherwise.
        """
        if not isinstance(instruction, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"instruction={instruction!r} is no text. Leave it out for none.")
        arrays = {name: np.asarray(value) for name, value in observation.items()}
        if not self._check.passes(arrays):
            check_with_guide(arrays, self.spec)
        asked_s = time.monotonic()
        jpeg: tuple[str, ...] = ()
        if self._jpeg_quality:
            arrays, jpeg = encoded(arrays, self.spec, self._jpeg_quality)
        obs = Obs(
            seq=0,
            epoch=0,
            step=self._step,
            observed_ns=time.monotonic_ns(),
            budget_us=_budget_us(budget_s),
            loops=_count("loops", loops),
            steps=_count("steps", steps),
            seed=_count("seed", seed),
            instruction=instruction,
            jpeg=jpeg,
        )
        chunk, tensors = self._request(obs, Chunk, arrays)
        self._step += 1
        actions = tensors.get("action")
        if actions is None or actions.shape != (self.horizon, *self.spec.action.shape):
            raise WireError(
                ErrorCode.MALFORMED, f"{self.endpoint} answered without a whole action chunk."
            )
        return ChunkReply(
            actions=actions.copy(),  # its own memory, writable
            loops=chunk.loops,
            steps=chunk.steps,
            timing_us=msgspec.structs.asdict(chunk.timing_us),
            latency_s=time.monotonic() - asked_s,
            model_id=chunk.model_id,
        )

    def reset(self, seed: int = 0) -> None:
        """A new episode: chunks of the old one die, and `seed` is mixed into every later seed."""
        self._request(Reset(seq=0, epoch=0, seed=_count("seed", seed)), ResetAck)

    def ping(self) -> dict[str, int | str]:
        """How the server is, answered even while it computes: see protocol.Pong."""
        pong, _ = self._request(Ping(seq=0), Pong)
        return {k: v for k, v in msgspec.structs.asdict(pong).items() if k != "seq"}

    def close(self) -> None:
        """Say BYE and free the sockets."""
        self._session.close()

    @property
    def model_id(self) -> str:
        """Of the policy that the server had when it was last greeted."""
        return self._session.welcome.model_id

    @property
    def loops(self) -> tuple[int, ...]:
        """The loop counts that it offers."""
        return self._session.welcome.loops

    @property
    def default_loops(self) -> int:
        """What is run where a request does not say, and has the time."""
        return self._session.welcome.default_loops

    @property
    def steps(self) -> int:
        """Its denoising steps by default."""
        return self._session.welcome.default_steps

    @property
    def transport(self) -> str:
        """What observations go over: "shared memory", or the scheme of the endpoint."""
        over_lane = self._session.over_shared_memory
        return "shared memory" if over_lane else self.endpoint.partition("://")[0]

    def _request(
        self, message: Obs | Reset | Ping, answer: type[Answer], arrays: Observation | None = None
    ) -> tuple[Answer, dict[str, np.ndarray]]:
        return self._session.request(message, answer, self.timeout_s, arrays)


def _count(name: str, value: int) -> int:
    """As a plain integer (numpy's are not), within what the wire carries."""
    try:
        number = operator.index(value)
    except TypeError:
        raise ConfigError(f"{name}={value!r} is not a whole number.") from None
    if not 0 <= number < 2**63:
        raise ConfigError(f"{name}={value} must be from 0 to 2**63 - 1.")
    return number


def _budget_us(budget_s: float | None) -> int:
    if budget_s is None:
        return 0
    if not 0 < budget_s <= _MAX_BUDGET_S:
        raise ConfigError(f"budget_s={budget_s} must be above 0 and at most {_MAX_BUDGET_S:g}.")
    return max(1, round(budget_s * 1e6))
