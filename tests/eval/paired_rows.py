"""Rows as eval.json has them, as short as a comparison needs, and the file itself."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]
FIRST_SEED = 900_000
OUTCOMES = {"s": "success", "f": "failure", "u": "unstable", "e": "error"}


def paired_row(outcomes: str, first_seed: int = FIRST_SEED, **changed: Any) -> Row:
    """One rollout for each letter: s success, f failure, u unstable, e error."""
    rollouts = [
        {
            "seed": first_seed + index,
            "success": letter == "s",
            "outcome": OUTCOMES[letter],
            "steps": 40,
            "state_sha256": f"{letter}{index}",
        }
        for index, letter in enumerate(outcomes)
    ]
    return {
        "env": "lift",
        "policy": "p",
        "label": "",
        "kind": "served",
        "model_id": "abc",
        "loops": 1,
        "steps": 10,
        "delay": "0",
        "execute_horizon": 8,
        "control": {"period_s": 0.1},
        "rollouts": rollouts,
        **changed,
    }


def drawn(rate: float, count: int, stream: int) -> str:
    """`count` outcomes, each a success with chance `rate`."""
    found = np.random.default_rng([5, stream]).random(count) < rate
    return "".join("s" if success else "f" for success in found)


def older(row: Row) -> Row:
    """The same row as version 0.1 wrote it: no outcome, no hash, no delay."""
    rollouts = [
        {
            "seed": rollout["seed"],
            "success": rollout["success"],
            "steps": rollout["steps"],
            "unstable": rollout["outcome"] == "unstable",
        }
        for rollout in row["rollouts"]
    ]
    return {name: value for name, value in row.items() if name != "delay"} | {"rollouts": rollouts}


def evaluation(
    folder: Path,
    *rows: Row,
    controls: Sequence[Row] = (),
    cpu: str = "a cpu",
    mujoco: str = "3.17.0",
) -> str:
    """Write `folder`/eval.json and return the folder's name."""
    folder.mkdir(parents=True)
    content = {
        "format": "loopdit-eval",
        "format_version": 1,
        "machine": {"cpu": cpu},
        "versions": {"mujoco": mujoco},
        "results": list(rows),
        "controls": list(controls),
    }
    (folder / "eval.json").write_text(json.dumps(content))
    return str(folder)
