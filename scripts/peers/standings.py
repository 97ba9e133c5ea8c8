"""Who succeeds more often, and who is faster, by the record that collect.py makes.

Ours is compared with a peer on the pairs (training seed, test seed) that both have. Two intervals
answer two questions. Of *these trainings*: a paired bootstrap over all pairs, as if they were
independent; with more test seeds it narrows as far as one likes, though another training may end
elsewhere. Of *trainings to come*: Student's t over the differences of the training seeds, each of
which has the chance of its test seeds in it. What is claimed of a policy, and not of three of its
checkpoints, goes by the second.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from loopdit.eval.statistics.paired import Difference, paired_bootstrap
from loopdit.eval.statistics.t_test import Summary, of_mean

Record = Mapping[str, Any]

TORCH, FUSED = "torch", "fused"  # what chunks are timed by
SAME_LATENCY = 1.05  # a p50 within that is the same
MARGIN = 0.05  # as good: the interval of the difference excludes that many successes fewer


class Key(NamedTuple):
    """A policy as it is measured: an arm at one condition."""

    arm: str
    loops: int
    steps: int


class Success(NamedTuple):
    """Over the training seeds: by (training seed, test seed's place), and of each training seed."""

    outcomes: dict[tuple[int, int], bool]
    by_seed: list[tuple[int, int]]

    @property
    def successes(self) -> int:
        """Of all."""
        return sum(self.outcomes.values())

    @property
    def rate(self) -> float:
        """0 to 1."""
        return self.successes / len(self.outcomes)


class Gap(NamedTuple):
    """Success of ours minus a peer's, from -1 to 1, with the interval of these trainings, and with
    that of trainings to come, which is never the narrower one; None where one training is all."""

    here: Difference
    beyond: Difference | None


class Lead(NamedTuple):
    """What ours comes to against a peer on a task.

    at_equal_latency: the best K of ours that is not slower, and its success minus the peer's.
    at_equal_success: the fastest K of ours that is as good in these trainings, within MARGIN, and
    its latency as a share of the peer's; `surely`: the same of trainings to come. None where there
    is no such K. behind: whether every K of ours is shown to succeed less often in those, which
    takes more than one training.
    """

    at_equal_latency: tuple[int, Gap] | None
    at_equal_success: tuple[int, float] | None
    surely: tuple[int, float] | None
    behind: bool

    @property
    def verdict(self) -> str:
        """Of these trainings, in words."""
        ahead = _ahead(
            self.at_equal_latency and self.at_equal_latency[1].here, self.at_equal_success
        )
        if ahead:
            return ahead
        if self.at_equal_success is None:
            return "as good at no K"
        return "no lead shown" if self.at_equal_success[1] <= SAME_LATENCY else "behind on latency"

    @property
    def verdict_beyond(self) -> str:
        """Of trainings to come, in words: what is not shown there is not said."""
        fast = self.at_equal_latency
        ahead = _ahead(fast[1].beyond if fast else None, self.surely)
        return ahead or ("as good at no K" if self.behind else "not shown")


def keys(record: Record) -> list[Key]:
    """Every arm at each of its conditions, in the record's order."""
    found = {
        Key(run["arm"], row["loops"], row["steps"]): None
        for run in record["runs"]
        for row in run["results"]
    }
    return list(found)


def success(record: Record, key: Key, task: str) -> Success | None:
    """None where it was not evaluated."""
    outcomes: dict[tuple[int, int], bool] = {}
    by_seed: list[tuple[int, int]] = []
    for run in record["runs"]:
        for row in run["results"]:
            if (Key(run["arm"], row["loops"], row["steps"]), run["task"]) == (key, task):
                every = [letter == "S" for letter in row["outcomes"]]
                outcomes |= {(run["seed"], place): done for place, done in enumerate(every)}
                by_seed.append((sum(every), len(every)))
    return Success(outcomes, by_seed) if outcomes else None


def dial(record: Record, alone: Key, task: str) -> Gap | None:
    """The success of our checkpoint of every K at the K of `alone`, minus that of `alone`; None
    where one of the two was not evaluated."""
    one = success(record, alone, task)
    ours = success(record, Key(record["ours"][0], alone.loops, alone.steps), task)
    return None if one is None or ours is None else gap(one, ours)


def lead(record: Record, peer: Key, task: str, backend: str = TORCH, arm: str = "") -> Lead | None:
    """Our `arm`, by default the first of ours, against `peer`, timed by `backend`; None where one
    of the two was not evaluated."""
    arm = arm or record["ours"][0]
    theirs, ms = success(record, peer, task), latency_ms(record, backend)
    ours = {
        key: found
        for key in keys(record)
        if key.arm == arm and (found := success(record, key, task)) is not None
    }
    if theirs is None or not ours or peer not in ms:
        return None
    gaps = {key: gap(theirs, found) for key, found in ours.items()}
    ratios = {key: ms[key] / ms[peer] for key in ours if key in ms}
    fast = [key for key, ratio in ratios.items() if ratio <= SAME_LATENCY]
    best = max(fast, key=lambda key: (gaps[key].here.value, -ratios[key]), default=None)
    beyond = {key: found.beyond for key, found in gaps.items() if found.beyond is not None}
    return Lead(
        None if best is None else (best.loops, gaps[best]),
        _fastest_as_good(ratios, {key: found.here for key, found in gaps.items()}),
        _fastest_as_good(ratios, beyond),
        bool(beyond) and all(found.high < 0 for found in beyond.values()),
    )


def latency_ms(record: Record, backend: str = TORCH) -> dict[Key, float]:
    """The median of each key that was timed by `backend`."""
    rows = (record["latency"] or {"rows": []})["rows"]
    return {
        Key(row["name"], row["loops"], row["steps"]): row["p50_ms"]
        for row in rows
        if row["backend"] == backend
    }


def gap(theirs: Success, ours: Success) -> Gap:
    """Over the pairs that both have, at least one. Raises ValueError."""
    both = sorted(theirs.outcomes.keys() & ours.outcomes.keys())
    here = paired_bootstrap(
        [theirs.outcomes[pair] for pair in both], [ours.outcomes[pair] for pair in both]
    )
    by_training: dict[int, list[int]] = {}
    for pair in both:
        difference = int(ours.outcomes[pair]) - int(theirs.outcomes[pair])
        by_training.setdefault(pair[0], []).append(difference)
    return Gap(here, _beyond([sum(each) / len(each) for each in by_training.values()], here))


def _beyond(by_training: list[float], here: Difference) -> Difference | None:
    """The interval of the mean of these, no narrower than `here`: trainings that came out alike by
    chance, as at 100 %, have no spread of their own."""
    if len(by_training) < 2:
        return None
    found = Summary.of(by_training)
    low, high = of_mean(found).interval() if found.std else (found.mean, found.mean)
    return Difference(here.value, max(-1.0, min(low, here.low)), min(1.0, max(high, here.high)))


def _ahead(difference: Difference | None, as_good: tuple[int, float] | None) -> str:
    if difference is not None and difference.low > 0:
        return "ahead on success"
    if as_good is not None and as_good[1] < 1 / SAME_LATENCY:
        return "ahead on latency"
    return ""


def _fastest_as_good(
    ratios: Mapping[Key, float], differences: Mapping[Key, Difference]
) -> tuple[int, float] | None:
    good = [key for key in ratios if key in differences and differences[key].low >= -MARGIN]
    fastest = min(good, key=lambda key: ratios[key], default=None)
    return None if fastest is None else (fastest.loops, ratios[fastest])
