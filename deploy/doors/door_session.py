"""What a client of another stack sends, as an observation of ours: one session behind a door.

Its names are mapped, floats of another width are taken as the spec's, a history is kept for it, and
what only our own clients can say (the actions in flight) is left unsaid. Everything else has to be
as the spec wants it, and is refused by the name that the client knows.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.tensor_spec import TensorSpec
from loopdit.deploy.client import ChunkReply, PolicyClient
from loopdit.deploy.doors.key_names import INSTRUCTION
from loopdit.deploy.robot.committed import with_committed
from loopdit.deploy.robot.observation_history import ObservationHistory
from loopdit.errors import ObservationError

_OVERHEAD_BYTES = 64 * 1024  # of keys and the like


class DoorSession:
    """`keys` as from `key_names.keys_for(client.spec.recorded, ...)`: ours to theirs."""

    def __init__(self, client: PolicyClient, keys: Mapping[str, str]) -> None:
        self.spec = client.spec
        self._client = client
        self._keys = keys
        self._history = ObservationHistory(client.spec.history)

    @property
    def model_id(self) -> str:
        """Of the policy that was served when it began."""
        return self._client.model_id

    def chunk(self, given: Mapping[str, Any]) -> ChunkReply:
        """The chunk for `given`, by their keys; what is there besides is ignored.

        Raises ObservationError, WireError.
        """
        told = given.get(self._keys[INSTRUCTION], "")
        instruction = told if isinstance(told, str) else str(np.asarray(told).item())
        observation: dict[str, np.ndarray] = {}
        for tensor in self.spec.recorded.observations:
            key = self._keys[tensor.name]
            if key in given:
                observation[tensor.name] = _as(tensor, key, given[key])
            elif tensor.name not in self.spec.optional:
                raise ObservationError(
                    f"the observation lacks {key!r}. Send: {', '.join(self.wanted())}."
                )
        self._history.add(observation)
        nothing = np.empty((0, self.spec.action.shape[0]), np.float32)
        whole = with_committed(self._history.stacked(), nothing, self.spec)
        return self._client.infer(whole, instruction=instruction)

    def reset(self, seed: int = 0) -> None:
        """A new episode. Raises WireError."""
        self._history.reset()
        self._client.reset(seed)

    def wanted(self) -> dict[str, dict[str, Any]]:
        """What to send: their keys, each with its shape and dtype."""
        return observation_spec(self.spec, self._keys)

    def close(self) -> None:
        """End the session."""
        self._client.close()


def observation_spec(spec: PolicySpec, keys: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The shape and dtype of a single observation's tensors, by their keys."""
    return {
        keys[tensor.name]: {"shape": list(tensor.shape), "dtype": tensor.dtype}
        for tensor in spec.recorded.observations
    }


def most_bytes(spec: PolicySpec) -> int:
    """As `Dispatcher.max_bytes`: room for an honest mistake, which gets a clear answer."""
    sizes = (
        math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize
        for tensor in spec.recorded.observations
    )
    return 8 * sum(sizes) + _OVERHEAD_BYTES


def _as(tensor: TensorSpec, key: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    wanted = np.dtype(tensor.dtype)
    if wanted.kind == "f" and array.dtype.kind in "fiu":
        array = array.astype(wanted, copy=False)
    if array.shape != tensor.shape or array.dtype != wanted:
        raise ObservationError(
            f"{key} is {array.dtype} {array.shape}; the policy takes {tensor.dtype} {tensor.shape}."
        )
    return array
