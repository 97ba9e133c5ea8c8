"""The actions in flight as one more observation, for a policy that is told of them.

While a policy computes, the robot goes on executing the chunk before. A policy that is told which
actions those are plans from where they will have brought it (arXiv 2506.07339 and 2512.01031):

    told = player.committed(expected_delay_s, policy.spec.max_committed)
    reply = policy.infer(with_committed(observation, told, policy.spec))
    player.load(from_observation(reply.actions, told, policy.spec.chunk_from), observed_at)

Both do nothing for a policy that is told of none. The tensor `committed` (D, A + 1) float32 has the
actions in raw units, the next one first; its last column is 1 where there is one and 0 behind them,
where all is 0. Numpy only.

Shapes: n actions in flight, D how many a policy can be told of, H action horizon, A action dim.
"""

import numpy as np

from loopdit.datasets.spec import COMMITTED, FROM_COMMITTED, Observation, PolicySpec


def packed(actions: np.ndarray, most: int, action_dim: int) -> np.ndarray:
    """The actions in flight (n, A), n <= `most`, as a tensor (most, A + 1) float32."""
    if len(actions) > most:
        raise ValueError(f"{len(actions)} actions are in flight, and at most {most} can be told.")
    tensor = np.zeros((most, action_dim + 1), np.float32)
    if len(actions):
        tensor[: len(actions), :-1] = actions
        tensor[: len(actions), -1] = 1
    return tensor


def unpacked(tensor: np.ndarray) -> np.ndarray:
    """The actions (n, A) that a tensor (D, A + 1) tells of."""
    return tensor[tensor[:, -1] > 0, :-1]


def with_committed(observation: Observation, actions: np.ndarray, spec: PolicySpec) -> Observation:
    """What a policy of this spec is given: the observation and, where it is told, the actions in
    flight (n, A)."""
    if spec.committed is None:
        return observation
    tensor = packed(actions, spec.max_committed, spec.action.shape[0])
    return {**observation, COMMITTED: tensor}


def from_observation(chunk: np.ndarray, actions: np.ndarray, chunk_from: str) -> np.ndarray:
    """A chunk (H, A) that `chunk_from` describes, given to one who was told of `actions` (n, A), as
    one whose first action is for the step of the observation: (H, A) or (n + H, A)."""
    if chunk_from != FROM_COMMITTED or len(actions) == 0:
        return chunk
    return np.concatenate([actions.astype(chunk.dtype), chunk])
