"""What an evaluation will run, known before its first rollout: conditions, controls, seeds.

For each seed all conditions take turns, then the controls: a change in the machine's load falls on
all of them alike, and a run that is stopped has compared the same seeds. The plan's digest names
the run, so that a journal can tell whether a command goes on with what it holds.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from loopdit.eval.rollouts.condition import Condition

CONTROLS = ("zeros", "random", "expert")


@dataclass(frozen=True)
class Job:
    """One rollout. `subject` is the control that drives it, "" the policy that is evaluated."""

    subject: str
    condition: Condition
    seed: int


@dataclass(frozen=True)
class Plan:
    """`episodes` seeds from `first_seed` on; where `sequential`, at most so many.

    policy: what names it, its model or where that has no name the words of the user.
    environment: what decides the physics: name, simulator, digest of the model, image size.
    """

    policy: Mapping[str, Any]
    environment: Mapping[str, Any]
    versions: Mapping[str, str]
    conditions: tuple[Condition, ...]
    controls: tuple[tuple[str, Condition], ...]
    first_seed: int
    episodes: int
    sequential: bool = False

    @property
    def total(self) -> int:
        """Rollouts, at most."""
        return self.episodes * (len(self.conditions) + len(self.controls))

    def jobs(self) -> Iterator[Job]:
        """Every rollout, in the order in which they are begun."""
        for seed in range(self.first_seed, self.first_seed + self.episodes):
            yield from (Job("", condition, seed) for condition in self.conditions)
            yield from (Job(name, condition, seed) for name, condition in self.controls)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    @property
    def digest(self) -> str:
        """Equal for equal plans alone."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def combinations(axes: Mapping[str, Sequence[Any]]) -> tuple[Condition, ...]:
    """Every combination of what each field of a Condition shall be. The last axis varies fastest;
    the first combination is what the others are compared with."""
    return tuple(
        Condition(**dict(zip(axes, values, strict=True))) for values in product(*axes.values())
    )


def controls_of(
    conditions: Sequence[Condition], names: Sequence[str]
) -> tuple[tuple[str, Condition], ...]:
    """The controls that belong beside `conditions`, each once.

    A control has no dial and sees no camera, so depth, steps and fault do not concern it. Zeros and
    random run once for each (rate, variation), without delay. The expert runs for each delay too:
    what it loses there is lost by latency alone. It plans one action at a time, and played
    "aligned" an action that comes late is never played at all; so a delayed expert is played
    "naive". On the wall clock the delay would be the expert's own, which says nothing.
    """
    found: dict[tuple[str, Condition], None] = {}
    for name, condition in product(names, conditions):
        plain = Condition(
            loops=0,
            steps=0,
            execute_horizon=conditions[0].execute_horizon,
            rate_hz=condition.rate_hz,
            variation=condition.variation,
        )
        found[name, plain] = None
        if name == "expert" and condition.delay not in ("0", "wall"):
            found[name, replace(plain, delay=condition.delay, execution="naive")] = None
    return tuple(found)
