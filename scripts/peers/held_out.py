"""How far the actions that would be executed are from the demonstrations', on held-out windows.

    python scripts/peers/held_out.py POLICY STORE OUT.json [--condition 1:0 4:0] [--seed 0]

POLICY is a checkpoint's folder or a server's address, so that every policy is measured alike: whole
chunks are sampled, at each K:STEPS, and the error is the mean squared one over the first 8 actions
(those inside the episode), in units of each action's standard deviation in the training data (at
least 2 % of its range, as our normaliser has it). "constant" is that of commanding the mean action.
The episodes are those that a training with `--seed` holds out.

Shapes: H actions of a chunk, A action dim.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from opened import Opened, opened

from loopdit.datasets.episode_filter import hold_out
from loopdit.datasets.mixing import DataPart
from loopdit.datasets.statistics import compute_statistics
from loopdit.datasets.store import ACTION, EpisodeStore
from loopdit.datasets.windows import Batch, WindowSampler
from loopdit.errors import LoopditError
from loopdit.whole_file import whole_file

EXECUTED = 8
_LEAST_SHARE = 0.02


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("policy")
    parser.add_argument("store")
    parser.add_argument("out", type=Path)
    parser.add_argument("--condition", nargs="+", default=["1:0"], help="K:STEPS")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--validation", type=float, default=0.05)
    parser.add_argument("--windows", type=int, default=256)
    chosen = parser.parse_args()
    try:
        with opened(chosen.policy) as policy:
            found = measure(policy, chosen)
    except LoopditError as error:
        sys.exit(f"held_out: {error}")
    with whole_file(chosen.out) as aside:
        aside.write_text(json.dumps(found, indent=1) + "\n")
    for row in found["errors"]:
        sys.stdout.write(f"K = {row['loops']}, {row['steps']} steps: {row['error']:.4f}\n")
    sys.stdout.write(f"constant: {found['constant']:.4f}\n")


def measure(policy: Opened, chosen: argparse.Namespace) -> dict[str, Any]:
    """{"windows", "executed", "constant", "errors": [{"loops", "steps", "error"}]}."""
    store = EpisodeStore.open(chosen.store)
    trained, held = hold_out(store, chosen.validation, chosen.seed)
    mean, spread = _units(store, trained)
    sampler = WindowSampler([DataPart(store, held)], EXECUTED, 1, 0, policy.spec.history)
    batches = [sampler.batch(i) for i in range(min(chosen.windows, sampler.windows))]

    def error(chunk: Callable[[Batch, int], np.ndarray]) -> float:
        squares = [
            (((chunk(batch, i)[:EXECUTED] - batch.actions[0]) / spread) ** 2)[batch.valid[0]]
            for i, batch in enumerate(batches)
        ]
        return float(np.concatenate(squares).mean())

    errors: list[dict[str, Any]] = []
    for loops, steps in (map(int, text.split(":")) for text in chosen.condition):

        def made(batch: Batch, seed: int, loops: int = loops, steps: int = steps) -> np.ndarray:
            seen = {name: values[0] for name, values in batch.observations.items()}
            return policy.make(seen, seed, loops, steps).actions

        errors.append({"loops": loops, "steps": steps, "error": error(made)})
    constant = error(lambda batch, _: np.broadcast_to(mean, batch.actions[0].shape))
    return {
        "windows": len(batches),
        "executed": EXECUTED,
        "constant": constant,
        "errors": errors,
    }


def _units(store: EpisodeStore, trained: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The mean action (A,) and what counts as 1 of each (A,)."""
    found = compute_statistics([DataPart(store, trained)])[ACTION]
    reach = np.subtract(store.spec.action.high, store.spec.action.low)
    return np.array(found.mean), np.maximum(found.std, _LEAST_SHARE * reach)


if __name__ == "__main__":
    main()
