"""Windows of one of our episode stores as LeRobot gives them to its diffusion policy.

The windows come in the order in which `policy-train` meets them with the same seed, but for those
of an episode's last `drop` steps, which LeRobot's own training leaves out. A window has O
observations up to step t and the H actions from the first of them on: t-O+1..t-O+H. What would lie
outside the episode repeats its border and is marked.

Shapes: B windows, O observed steps, H horizon, A action dim.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from lerobot_model import inputs_of
from torch import Tensor

from loopdit.datasets.mixing import DataPart, order_of
from loopdit.datasets.store import ACTION
from loopdit.datasets.windows import WindowSampler
from loopdit.errors import StoreError

Windows = dict[str, Tensor]


class LeRobotWindows:
    """The windows of some episodes of a store. Usable by several threads."""

    def __init__(self, part: DataPart, observed: int, horizon: int, drop: int, seed: int) -> None:
        episodes = part.in_order()
        lengths = [part.store.episodes[index].length for index in episodes]
        self._spec = part.store.spec
        self._observed = observed
        self._horizon = horizon
        self._drop = drop
        # One window a batch, so that any can be left out.
        self._sampler = WindowSampler([part], 1, 1, seed, observed)
        self._order = order_of([part], [sum(lengths)], seed)
        self._starts = np.cumsum([0, *lengths])
        self._actions = np.concatenate([part.store.arrays(index)[ACTION] for index in episodes])

    @property
    def windows(self) -> int:
        """In an epoch, with those that are left out."""
        return int(self._starts[-1])

    def positions(self, count: int) -> np.ndarray:
        """Where in the stream of all windows the first `count` of those stand that are used."""
        kept: list[np.ndarray] = []
        begin = 0
        while sum(map(len, kept)) < count:
            every = np.arange(begin, begin + self.windows)
            windows, _, end = self._places(every)
            used = every[windows < end - self._drop]
            if not len(used):
                raise StoreError(f"no episode has more than the {self._drop} steps left out.")
            kept.append(used)
            begin += self.windows
        return np.concatenate(kept)[:count]

    def batch(self, positions: np.ndarray) -> Windows:
        """By LeRobot's names: observations, "action" (B, H, A), "action_is_pad" (B, H) bool."""
        windows, first, end = self._places(positions)
        wanted = windows[:, None] + np.arange(
            1 - self._observed, 1 - self._observed + self._horizon
        )
        inside = (wanted >= first[:, None]) & (wanted < end[:, None])
        actions = self._actions[np.clip(wanted, first[:, None], end[:, None] - 1)]
        each = [self._sampler.batch(int(position)).observations for position in positions]
        observations = {name: np.concatenate([seen[name] for seen in each]) for name in each[0]}
        spec = self._spec.with_history(self._observed)
        return {
            **inputs_of(spec, observations),
            "action": torch.from_numpy(actions),
            "action_is_pad": torch.from_numpy(~inside),
        }

    def ahead(self, positions: np.ndarray) -> Iterator[Windows]:
        """The batches at positions (steps, B), each read while the one before it is used."""
        with ThreadPoolExecutor(1, "batches") as pool:
            waiting: Future[Windows] | None = None
            for at in positions:
                coming = pool.submit(self.batch, at)
                if waiting is not None:
                    yield waiting.result()
                waiting = coming
            if waiting is not None:
                yield waiting.result()

    def _places(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The windows at these positions, and where their episodes begin and end, (B,) each."""
        windows = self._order.at(positions)
        episodes = np.searchsorted(self._starts, windows, side="right") - 1
        return windows, self._starts[episodes], self._starts[episodes + 1]
