"""Two rows of results brought together seed by seed: what of them can be compared.

Rows are entries of `results` in eval.json (`eval/runs/results.py`). A pair is a seed on which both
have a verdict, success or failure. Seeds of one row alone, and rollouts that ended in broken
physics or an exception, are no failures: they are left out and counted.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loopdit.errors import ConfigError

Row = Mapping[str, Any]

_VERDICTS = ("success", "failure")


@dataclass(frozen=True)
class LeftOut:
    """What of one row is in no pair: seeds that the other row lacks, and on seeds that both have
    its rollouts without a verdict."""

    seeds: int = 0
    unstable: int = 0
    errors: int = 0


@dataclass(frozen=True)
class SeedPairs:
    """The n pairs in the order of their seeds: success (n,) bool, and how long the world ran in
    seconds (n,), NaN for a row that does not tell its control period."""

    seeds: list[int]
    success_a: np.ndarray
    success_b: np.ndarray
    seconds_a: np.ndarray
    seconds_b: np.ndarray
    left_out_a: LeftOut
    left_out_b: LeftOut


def pair_by_seed(a: Row, b: Row, names: tuple[str, str]) -> SeedPairs:
    """The pairs, at least one. Raises ConfigError, which calls the rows by `names`, where there is
    none."""
    rollouts_a, rollouts_b = rollouts_by_seed(a), rollouts_by_seed(b)
    common = sorted(rollouts_a.keys() & rollouts_b.keys())
    if not common:
        raise ConfigError(
            f"{names[0]} has seeds {_range(rollouts_a)} and {names[1]} {_range(rollouts_b)}: none "
            f"in common, and only the same starts can be compared. Evaluate both with one seed=."
        )
    paired = [
        seed
        for seed in common
        if outcome(rollouts_a[seed]) in _VERDICTS and outcome(rollouts_b[seed]) in _VERDICTS
    ]
    if not paired:
        raise ConfigError(
            f"{names[0]} and {names[1]} have {len(common)} seeds in common, and on each of them "
            f"one ended in broken physics or an error: there is nothing to compare."
        )

    def success(rollouts: Mapping[int, Row]) -> np.ndarray:
        return np.array([outcome(rollouts[seed]) == "success" for seed in paired])

    def seconds(row: Row, rollouts: Mapping[int, Row]) -> np.ndarray:
        # Steps alone would compare nothing between two control rates.
        period_s = row.get("control", {}).get("period_s", np.nan)
        return period_s * np.array([rollouts[seed]["steps"] for seed in paired])

    return SeedPairs(
        seeds=paired,
        success_a=success(rollouts_a),
        success_b=success(rollouts_b),
        seconds_a=seconds(a, rollouts_a),
        seconds_b=seconds(b, rollouts_b),
        left_out_a=_left_out(rollouts_a, common),
        left_out_b=_left_out(rollouts_b, common),
    )


def outcome(rollout: Row) -> str:
    """ "success", "failure", "unstable" or "error"; older files have no "outcome" to say it."""
    if rollout.get("outcome"):
        return str(rollout["outcome"])
    if rollout.get("unstable"):
        return "unstable"
    return "success" if rollout["success"] else "failure"


def rollouts_by_seed(row: Row) -> dict[int, Row]:
    """Every rollout of a row. Raises ConfigError for a row that does not list them."""
    rollouts = row.get("rollouts")
    if not rollouts:
        raise ConfigError(
            f"the row of {row_name(row)} lists no rollouts, so nothing can be paired. "
            f"Evaluate it again."
        )
    return {int(rollout["seed"]): rollout for rollout in rollouts}


def row_name(row: Row) -> str:
    """ "untrained K=2": what people call the policy, and its depth if it has a dial."""
    name = policy_name(row)
    return name if row.get("loops") is None else f"{name} K={row['loops']}"


def policy_name(row: Row) -> str:
    """The label, or the kind of policy where none was given."""
    return str(row.get("label") or row.get("kind") or row.get("policy") or "policy")


def _left_out(rollouts: Mapping[int, Row], common: Sequence[int]) -> LeftOut:
    outcomes = Counter(outcome(rollouts[seed]) for seed in common)
    return LeftOut(
        seeds=len(rollouts) - len(common), unstable=outcomes["unstable"], errors=outcomes["error"]
    )


def _range(seeds: Mapping[int, Row]) -> str:
    return f"{min(seeds)} to {max(seeds)}"
