"""How well proprioception is rolled forward by the actions in flight, on recorded episodes.

    python scripts/rolled_proprio.py outputs/demos/stack.zarr [EPISODES]

For 1 to 5 actions: the mean error (99th percentile) of `policy/rolled_proprio.py` against what was
really felt when they had been executed, beside what would be known without rolling and, for the
position, with the shifts added up alone; then the share of the last shift by which the arm is
behind its command. The store needs the extra `executed_action`, as `policy-collect` records it.
"""

import sys

import numpy as np
import torch

from loopdit.datasets.episode import EXECUTED_ACTION
from loopdit.datasets.store import EpisodeStore
from loopdit.policy.rolled_proprio import ProprioRoller

POSITION, COLUMNS, OPENING, AHEAD = slice(0, 3), slice(3, 9), 9, slice(10, 13)


def windows(store: EpisodeStore, episodes: int, count: int) -> tuple[np.ndarray, ...]:
    """Proprio now (N, P), the actions executed next (N, count, A), proprio after them (N, P)."""
    now: list[np.ndarray] = []
    executed: list[np.ndarray] = []
    after: list[np.ndarray] = []
    for index in range(min(episodes, len(store.episodes))):
        proprio = store.arrays(index)["proprio"]
        actions = store.extras(index, EXECUTED_ACTION)[EXECUTED_ACTION]
        for step in range(len(proprio) - count):
            now.append(proprio[step])
            executed.append(actions[step : step + count])
            after.append(proprio[step + count])
    return np.stack(now), np.stack(executed), np.stack(after)


def angle(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Radians (N,) between rotations, each the first two columns of its matrix (N, 6)."""

    def matrix(columns: np.ndarray) -> np.ndarray:
        first, second = columns[:, :3], columns[:, 3:]
        return np.stack([first, second, np.cross(first, second)], axis=-1)

    trace = np.einsum("nij,nij->n", matrix(one), matrix(other))
    return np.arccos(np.clip((trace - 1) / 2, -1, 1))


def shown(errors: np.ndarray, scale: float) -> str:
    """Mean (99th percentile)."""
    return f"{scale * errors.mean():6.2f} ({scale * np.percentile(errors, 99):6.2f})"


def say(line: str) -> None:
    """On its own line."""
    sys.stdout.write(f"{line}\n")


def main() -> None:
    """Print the table."""
    store = EpisodeStore.open(sys.argv[1])
    episodes = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    roller = ProprioRoller(store.spec)
    say(f"{store.path}: {episodes} episodes")
    for count in range(1, 6):
        now, executed, after = windows(store, episodes, count)
        flags = np.ones((*executed.shape[:2], 1), np.float32)
        told = np.concatenate([executed, flags], axis=-1)
        rolled = roller(torch.from_numpy(now), torch.from_numpy(told)).numpy()
        added = now[:, POSITION] + executed[:, :, :3].sum(1)
        arms = {"rolled": rolled, "not rolled": now}
        for name, found in arms.items():
            position = np.linalg.norm(found[:, POSITION] - after[:, POSITION], axis=1)
            turn = angle(found[:, COLUMNS], after[:, COLUMNS])
            opening = np.abs(found[:, OPENING] - after[:, OPENING])
            ahead = np.linalg.norm(found[:, AHEAD] - after[:, AHEAD], axis=1)
            say(
                f"{count} actions, {name:10}: position {shown(position, 1e3)} mm, rotation "
                f"{shown(turn, 1e3)} mrad, opening {shown(opening, 1)}, command ahead "
                f"{shown(ahead, 1e3)} mm, n={len(now)}"
            )
        plain = np.linalg.norm(added - after[:, POSITION], axis=1)
        say(f"{count} actions, added up  : position {shown(plain, 1e3)} mm")
    _, executed, after = windows(store, episodes, 1)
    last = executed[:, 0, :3]
    share = (after[:, AHEAD] * last).sum(0) / np.square(last).sum(0)
    say(f"share of the last shift still to go, x y z: {np.round(share, 3).tolist()}")


if __name__ == "__main__":
    main()
