"""Whether a benchmark differs from an older one by more than noise.

Two runs of one program differ by more than their rounds do: a machine has spells of a minute and
more in which everything is slower, some things more than others (docs/bench.md has numbers). So
what is asked of an arm is whether it changed against everything else that was timed: its time in a
round is divided by that of the other back ends and of the matrix products alone in the same round.
A change is shown when both the time as it is and the time against the others

- differ between the medians of the runs, in the same direction, by more than `margin`: MARGIN, or
  three times the spread of changes within a back end where that is more, because what changes a
  back end changes it at every K, and what scatters its K is the machine; and
- have p < LEVEL by a permutation test (rounds exchanged between the runs, statistic the difference
  of the medians of logarithms), after Holm's correction over all arms.

A change that all share cannot be told from the machine's, and is said as `together`. Everything
else is "no change shown", which does not say that there is none. Pure but for reading a file.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loopdit.deploy.bench.statistics import milliseconds
from loopdit.errors import ConfigError

MARGIN = 0.1
_MARGIN_ALONE = 0.25  # where no back end has two arms, whose scatter would show the machine's
_SPREADS = 3.0
LEVEL = 0.05
LEAST_ROUNDS = 8  # fewer in each run can hardly show anything after the correction
_PERMUTATIONS = 3999
_DRAWS = 1000
_ARM = ("backend", "precision", "threads", "loops", "steps", "batch")
_MACHINE = ("cpu", "architecture", "cores")
FASTER, SLOWER, NOT_SHOWN = "faster", "slower", "no change shown"


@dataclass(frozen=True)
class Change:
    """One arm in both runs. ratio: new / old; against: the same, with each divided by the others,
    and its 95 % interval `low` to `high`, by bootstrap of rounds; p: the larger of both, corrected.
    """

    backend: str
    precision: str
    threads: int
    loops: int
    steps: int
    batch: int
    old_p50_ms: float
    new_p50_ms: float
    ratio: float
    against: float
    low: float
    high: float
    p: float
    verdict: str


def read_older(
    path: str, machine: Mapping[str, Any], clock: str, other_machine: bool
) -> dict[str, Any]:
    """The older bench.json. Raises ConfigError when it cannot be read, has too few rounds, went by
    another clock, or is of another machine and `other_machine` is not said."""
    try:
        older = json.loads(Path(path).read_text())
        rows = [row for row in older["rows"] if "reason" not in row]
        found = older["machine"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"compare={path}: it cannot be read as a bench.json ({error}). Name a file that "
            f"policy-bench wrote."
        ) from error
    fewest = min((len(row.get("round_ms", ())) for row in rows), default=0)
    if fewest < LEAST_ROUNDS:
        raise ConfigError(
            f"compare={path}: it has {fewest} rounds of an arm, and {LEAST_ROUNDS} are the fewest "
            f"that can show a change. Measure it again with repetitions=100."
        )
    if older.get("clock") != clock:
        raise ConfigError(
            f"compare={path}: it went by clock={older.get('clock')}, and this is clock={clock}. "
            f"Use the same."
        )
    differing = [name for name in _MACHINE if found.get(name) != machine.get(name)]
    if differing and not other_machine:
        said = ", ".join(f"{n} {found.get(n)} there, {machine.get(n)} here" for n in differing)
        raise ConfigError(
            f"compare={path}: it is of another machine ({said}). A difference would be the "
            f"machine's. Measure both here, or say other_machine=true."
        )
    return older


def compare(
    older: Mapping[str, Any], newer: Mapping[str, Any], source: str, seed: int
) -> dict[str, Any]:
    """What is different in `newer`, plain JSON types: `changes`, what all share (`together`, new /
    old), and what is in one run alone."""
    old, new = _by_arm(older["rows"]), _by_arm(newer["rows"])
    shared = [arm for arm in new if arm in old]
    series = _series([(old[arm], new[arm]) for arm in shared])
    spells = {process: _spell(arms) for process, arms in series.items()}
    margin = _margin(series)
    generator = np.random.default_rng(seed)
    found = [_tested(old[arm], new[arm], spells, generator) for arm in shared]
    changes: list[Change] = []
    for arm, tested, p in zip(shared, found, corrected_by_holm([t.p for t in found]), strict=True):
        changes.append(
            Change(
                **dict(zip(_ARM, arm, strict=True)),
                old_p50_ms=old[arm]["p50_ms"],
                new_p50_ms=new[arm]["p50_ms"],
                ratio=round(tested.ratio, 4),
                against=round(tested.against, 4),
                low=round(tested.low, 4),
                high=round(tested.high, 4),
                p=round(p, 5),
                verdict=_verdict(tested, p, margin),
            )
        )
    together = np.median([one.ratio for one in changes]) if changes else np.nan
    return {
        "with": source,
        "margin": round(margin, 4),
        "level": LEVEL,
        "together": milliseconds(together),
        "changes": [asdict(change) for change in changes],
        "only_there": [_named(arm) for arm in old if arm not in new],
        "only_here": [_named(arm) for arm in new if arm not in old],
        "differs": _differences(older, newer),
    }


@dataclass(frozen=True)
class _Tested:
    ratio: float
    against: float
    low: float
    high: float
    p: float


_Pair = tuple[np.ndarray, np.ndarray]  # of the older run and of the newer, (rounds,) each


def _verdict(tested: _Tested, p: float, margin: float) -> str:
    least = 1 + margin
    if p >= LEVEL:
        return NOT_SHOWN
    if min(tested.ratio, tested.against) >= least:
        return SLOWER
    return FASTER if max(tested.ratio, tested.against) <= 1 / least else NOT_SHOWN


def _series(
    rows: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
) -> dict[str, dict[Any, _Pair]]:
    """The rounds of each arm as logarithms, by process; the products alone are one, too."""
    found: dict[str, dict[Any, _Pair]] = {}
    for old, new in rows:
        key = tuple(new[name] for name in _ARM)
        found.setdefault(_process(new), {})[key] = _logarithms(old, new, "round_ms")
        if "round_products_ms" in old and "round_products_ms" in new:
            products = f"products {new['precision']}"
            work = key[2:]
            found.setdefault(products, {})[work] = _logarithms(old, new, "round_products_ms")
    return found


def _spell(arms: Mapping[Any, _Pair]) -> _Pair:
    """How slow each round was for a process, about 0: the mean of its arms."""
    old, new = (np.mean([pair[run] for pair in arms.values()], axis=0) for run in (0, 1))
    level = (old.mean() + new.mean()) / 2
    return old - level, new - level


def _margin(series: Mapping[str, Mapping[Any, _Pair]]) -> float:
    """See the module: from the pooled standard deviation of changes within a process."""
    squares, freedom = 0.0, 0
    for arms in series.values():
        changes = np.log([_ratio(pair) for pair in arms.values()])
        squares += float(((changes - changes.mean()) ** 2).sum())
        freedom += len(changes) - 1
    if freedom == 0:
        return _MARGIN_ALONE
    return max(MARGIN, float(np.expm1(_SPREADS * (squares / freedom) ** 0.5)))


def _process(row: Mapping[str, Any]) -> str:
    return f"{row['backend']} {row['precision']}"


def _logarithms(old: Mapping[str, Any], new: Mapping[str, Any], field: str) -> _Pair:
    return np.log(old[field]), np.log(new[field])


def _tested(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    spells: Mapping[str, _Pair],
    generator: np.random.Generator,
) -> _Tested:
    own = _logarithms(old, new, "round_ms")
    others = [pair for process, pair in spells.items() if process != _process(new)]
    if others:  # the median, so that one other that changed does not count as a change of this
        spell = tuple(np.median([pair[run] for pair in others], axis=0) for run in (0, 1))
        against = own[0] - spell[0], own[1] - spell[1]
    else:
        against = own
    drawn = [
        np.median(generator.choice(values, (_DRAWS, len(values))), axis=1) for values in against
    ]
    low, high = np.exp(np.percentile(drawn[1] - drawn[0], (2.5, 97.5)))
    p = max(_permuted(own, generator), _permuted(against, generator))
    return _Tested(_ratio(own), _ratio(against), float(low), float(high), p)


def _ratio(pair: _Pair) -> float:
    return float(np.exp(np.median(pair[1]) - np.median(pair[0])))


def _permuted(pair: _Pair, generator: np.random.Generator) -> float:
    """p of there being no difference between the medians."""
    count = len(pair[0])
    order = generator.permuted(np.tile(np.concatenate(pair), (_PERMUTATIONS, 1)), axis=1)
    apart = np.abs(np.median(order[:, count:], axis=1) - np.median(order[:, :count], axis=1))
    # 1e-12: the same numbers in another order must count as equal.
    as_far = int((apart >= abs(np.median(pair[1]) - np.median(pair[0])) - 1e-12).sum())
    return (1 + as_far) / (1 + _PERMUTATIONS)


def _by_arm(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[Any, ...], Mapping[str, Any]]:
    return {tuple(row[n] for n in _ARM): row for row in rows if "reason" not in row}


def _named(arm: tuple[Any, ...]) -> str:
    return " ".join(f"{name}={value}" for name, value in zip(_ARM, arm, strict=True))


def corrected_by_holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down correction: each p times how many are not smaller, never below a smaller
    one's."""
    corrected, highest = list(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        highest = max(highest, min(1.0, ps[index] * (len(ps) - rank)))
        corrected[index] = highest
    return corrected


def _differences(older: Mapping[str, Any], newer: Mapping[str, Any]) -> list[str]:
    """In words, what else is not the same in both runs."""
    found: list[str] = []
    for group in ("machine", "versions"):
        before, after = older.get(group, {}), newer.get(group, {})
        for name in sorted({*before, *after} - {"load_average"}):
            if before.get(name) != after.get(name):
                found.append(f"{name}: {before.get(name)} there, {after.get(name)} here")
    there, here = older.get("bundle", {}), newer.get("bundle", {})
    if there.get("model_id") != here.get("model_id"):
        found.append(f"policy: {there.get('model_id')} there, {here.get('model_id')} here")
    if older.get("commit") != newer.get("commit"):
        found.append(f"commit: {older.get('commit')} there, {newer.get('commit')} here")
    return found
