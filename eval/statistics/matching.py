"""Which rows of two evaluations belong together, whether they are the same run twice, and what
about their circumstances differs.

Rows belong together when they agree on every key of `CONDITION` that all rows of both have, and
are about the same policy as far as its label or kind tells; a policy without a namesake is matched
with whatever is left under that condition, so that two differently called policies can be compared.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from loopdit.eval.rollouts.condition import Condition
from loopdit.eval.statistics.seed_pairs import Row, outcome, policy_name, rollouts_by_seed, row_name

# What a row says about how it was measured: not about which policy, nor what came out.
CONDITION = ("env", *(field.name for field in fields(Condition)))
_HASH = "state_sha256"


@dataclass(frozen=True)
class Matches:
    """Pairs of rows (reference, other), the rows that are in none, and the keys they agree on."""

    pairs: list[tuple[Row, Row]]
    unmatched_a: list[Row]
    unmatched_b: list[Row]
    by: tuple[str, ...]


@dataclass(frozen=True)
class Repeated:
    """Rollouts of one policy with the same seed and condition in both runs, and how many differ:
    in the hash of their states, or in steps and outcome where a file has none."""

    rollouts: int
    differ: int
    hashed: bool


def match_rows(a: Sequence[Row], b: Sequence[Row], by: Sequence[str] = ()) -> Matches:
    """Rows of two evaluations. `by` replaces the keys on which they have to agree, but for the
    environment: seeds of two environments are not the same starts."""
    keys = (
        tuple(dict.fromkeys(("env", *by)))
        if by
        else tuple(name for name in CONDITION if all(name in row for row in (*a, *b)))
    )
    pairs: list[tuple[Row, Row]] = []
    for condition in dict.fromkeys(_key(row, keys) for row in a):
        under_a, under_b = (
            [row for row in rows if _key(row, keys) == condition] for rows in (a, b)
        )
        pairs += _namesakes(under_a, under_b)
    return Matches(
        pairs,
        [row for row in a if not any(row is first for first, _ in pairs)],
        [row for row in b if not any(row is second for _, second in pairs)],
        keys,
    )


def match_within(rows: Sequence[Row]) -> Matches:
    """Rows of one evaluation: each against the first of its environment."""
    first: dict[Any, Row] = {}
    pairs = [
        (reference, row)
        for row in rows
        if (reference := first.setdefault(row.get("env"), row)) is not row
    ]
    alone = [row for row in rows if not any(row is one for pair in pairs for one in pair)]
    return Matches(pairs, alone, [], ("env",))


def varying(rows: Sequence[Row]) -> tuple[str, ...]:
    """Keys of the condition of which `rows` have several values, but for those that are told
    anyway. A control has no denoising steps: that is not another condition."""
    return tuple(
        name
        for name in CONDITION
        if name not in ("env", "loops")
        and len({str(row[name]) for row in rows if row.get(name) is not None}) > 1
    )


def row_text(row: Row, keys: Sequence[str]) -> str:
    """ "served K=2, delay_steps=3": a row's name with what it has of `keys`."""
    told = (f"{key}={_plain(row[key])}" for key in keys if row.get(key) is not None)
    return ", ".join([row_name(row), *told])


def _plain(value: Any) -> str:
    """As a user types it: 0 rather than 0.0."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def repeated(pairs: Sequence[tuple[Row, Row]]) -> Repeated | None:
    """How much of one run came out differently in the other; None where nothing was run twice.

    Delays of the wall clock are left out: they do not come twice.
    """
    rollouts = differ = 0
    hashed = True
    for a, b in pairs:
        shared = [name for name in CONDITION if name in a and name in b]
        identity = (*shared, "kind", "model_id")
        if _key(a, identity) != _key(b, identity) or a.get("delay") == "wall":
            continue
        first, second = rollouts_by_seed(a), rollouts_by_seed(b)
        for seed in first.keys() & second.keys():
            one, other = first[seed], second[seed]
            rollouts += 1
            if _HASH in one and _HASH in other:
                differ += (one[_HASH], outcome(one)) != (other[_HASH], outcome(other))
            else:
                hashed = False
                differ += (one["steps"], outcome(one)) != (other["steps"], outcome(other))
    return Repeated(rollouts, differ, hashed) if rollouts else None


def circumstances(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Sentences about what two eval.json were not both made with: machine, MuJoCo, its models."""
    found: list[str] = []
    cpus = [content.get("machine", {}).get("cpu") for content in (a, b)]
    if cpus[0] != cpus[1]:
        found.append(
            f"A ran on {cpus[0]}, B on {cpus[1]}: their latencies are not comparable, and the last "
            f"bits of a rollout may differ."
        )
    simulators = [_told(content, "simulator") for content in (a, b)]
    if not all(simulators):  # older files name it among the versions alone
        names = [content.get("versions", {}).get("mujoco") for content in (a, b)]
        simulators = [{"": {f"MuJoCo {name}"}} for name in names]
    for env in _changed(*simulators):
        before, after = (", ".join(sorted(simulator[env])) for simulator in simulators)
        where = f"{env}: " if env else ""
        found.append(
            f"{where}A ran in {before}, B in {after}: the same seed may be another episode."
        )
    models = _changed(*(_told(content, "model_digest") for content in (a, b)))
    if models:
        found.append(
            f"the simulated model of {', '.join(models)} is not the same in A and B: a difference "
            f"may be the task's and not the policy's."
        )
    return found


def _namesakes(a: Sequence[Row], b: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Rows of one condition: policies of the same name, then one that is left with all left."""
    left = list(b)
    pairs: list[tuple[Row, Row]] = []
    lone: list[Row] = []
    for row in a:
        same = [other for other in left if policy_name(other) == policy_name(row)]
        # Of several models of one name rather the very same.
        same.sort(key=lambda other: other.get("model_id") != row.get("model_id"))
        if same:
            pairs.append((row, same[0]))
            left = [other for other in left if other is not same[0]]
        else:
            lone.append(row)
    if len(lone) == 1:
        pairs += [(lone[0], other) for other in left]
    return pairs


def _told(content: Mapping[str, Any], name: str) -> dict[str, set[str]]:
    """What the rows of each environment say about `name`."""
    found: dict[str, set[str]] = {}
    for row in content.get("results", []):
        if row.get(name):
            found.setdefault(str(row.get("env")), set()).add(str(row[name]))
    return found


def _changed(a: Mapping[str, set[str]], b: Mapping[str, set[str]]) -> list[str]:
    """Environments of which both tell something, and not the same."""
    return [env for env in a if env in b and a[env] != b[env]]


def _key(row: Row, names: Sequence[str]) -> str:
    """Values of any JSON type as something to compare and to look up."""
    return json.dumps([row.get(name) for name in names], sort_keys=True)
