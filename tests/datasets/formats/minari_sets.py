"""Data sets made by the package minari, and what it finds in two of them compared."""

import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium
import minari
import numpy as np
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer

# The package brings no types.
minari_package: Any = minari
Buffer: Any = EpisodeBuffer
Space = gymnasium.Space[Any]
DICT = spaces.Dict(
    {
        "pixels": spaces.Box(0, 255, (32, 40, 3), np.uint8),
        "pose": spaces.Box(-2, 2, (3,), np.float64),
        "mission": spaces.Text(40, charset="abcdefghijklmnopqrstuvwxyz "),
        "pair": spaces.Tuple((spaces.Discrete(4), spaces.Box(-np.inf, np.inf, (2, 2), np.float32))),
    }
)
ACTION = spaces.Box(-1, 1, (2,), np.float32)
LENGTHS = (3, 1, 11)


def buffers(space: Space, nested: bool = True) -> Iterator[Any]:
    """Episodes of random observations, with the last one, infos, a seed and options."""
    space.seed(0)
    for number, length in enumerate(LENGTHS):
        samples = [space.sample() for _ in range(length + 1)]
        yield Buffer(
            seed=number + 5,
            options={"level": number, "deep": {"wind": 0.5}},
            observations=stacked(samples),
            actions=np.random.default_rng(number).uniform(-1, 1, (length, 2)).astype(np.float32),
            rewards=[0.5 * i for i in range(length)],
            terminations=[i == length - 1 for i in range(length)],
            truncations=[False] * length,
            # Minari's Arrow reader fails on infos of one number as an array, and on nested ones.
            infos={"success": (np.arange(length + 1) > 1).tolist(), "force": np.eye(length + 1, 4)}
            | ({"deep": {"x": np.arange(length + 1)}} if nested else {}),
        )


def stacked(samples: list[Any]) -> Any:
    if isinstance(samples[0], dict):
        return {key: stacked([s[key] for s in samples]) for key in samples[0]}
    if isinstance(samples[0], tuple):
        return tuple(stacked([s[i] for s in samples]) for i in range(len(samples[0])))
    return samples if isinstance(samples[0], str) else np.stack(samples)


def make(space: Space, kind: str = "hdf5", **options: Any) -> None:
    """The data set test/lift-v2, by minari."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that nobody is named as its author
        minari_package.create_dataset_from_buffers(
            "test/lift-v2", list(buffers(space, kind == "hdf5")), observation_space=space,
            action_space=ACTION, data_format=kind, algorithm_name="by hand", **options,
        )  # fmt: skip


def assert_same(one: Any, other: Any) -> None:
    """As minari gives them: nested dictionaries, tuples, lists of texts, arrays."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, tuple | list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        np.testing.assert_array_equal(one, other, strict=isinstance(one, np.ndarray))
