"""What a replica's own process does: make the policy, warm it up, compute what it is asked.

It answers by return values, errors among them, whatever carries them to the server: a pipe
(`replica_process.py`) or Ray (`replica_ray.py`). Both ends are this program, so Python objects are
pickled; nothing from the network is unpickled.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial

from loopdit.datasets.spec import PolicySpec
from loopdit.deploy.serving.planner import Latency
from loopdit.deploy.serving.served_policy import Asked, Outcome, PlannedPolicy
from loopdit.deploy.serving.worker import failure
from loopdit.errors import LoopditError

_LOOK_S = 0.25


@dataclass(frozen=True)
class Facts:
    """What a `PlannedPolicy` says of itself; its latency is known once it is warm."""

    spec: PolicySpec
    model_id: str
    horizon: int
    loops: tuple[int, ...]
    default_loops: int
    steps: int
    max_steps: int | None
    latency: Latency
    stops_early: bool
    runs_on: str  # what computes it, for people


@dataclass(frozen=True)
class Recipe:
    """How to make a policy, in two parts: `make` loads it, which tells what it is and what is
    wrong with it; `warm` takes longer. Both are of a module's top level."""

    make: Callable[[], PlannedPolicy]
    warm: Callable[[PlannedPolicy], object] | None = None

    @classmethod
    def of(cls, make: Callable[..., PlannedPolicy], *arguments: object) -> "Recipe":
        """By `make(*arguments)`, warm as it is."""
        return cls(partial(make, *arguments))


class ReplicaSide:
    """The policy of a recipe."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._policy: PlannedPolicy | None = None

    def load(self) -> Facts | LoopditError:
        """Make it, cold."""
        try:
            self._policy = self._recipe.make()
        except LoopditError as error:
            return error
        return _facts(self._policy)

    def warm(self) -> Facts | LoopditError:
        """Warm it up, once it was loaded."""
        policy = self._loaded
        if self._recipe.warm is not None:
            try:
                self._recipe.warm(policy)
            except LoopditError as error:
                return error
        return _facts(policy)

    def infer_batch(
        self, asked: Sequence[Asked], loops: int, steps: int, may_stop: bool
    ) -> list[Outcome]:
        """See `PlannedPolicy.infer_batch`; what goes wrong is an outcome, as a plain error, which
        can be pickled."""
        try:
            made = self._loaded.infer_batch(asked, loops=loops, steps=steps, may_stop=may_stop)
        except Exception as error:  # any: the process goes on
            made = [error] * len(asked)
        return [failure(one) if isinstance(one, Exception) else one for one in made]

    @property
    def _loaded(self) -> PlannedPolicy:
        assert self._policy is not None
        return self._policy


def looks(within_s: float) -> Iterator[float]:
    """Seconds of one look after the other for an answer, together `within_s`. In short looks and
    not by the clock: what passes while this process is stopped is no silence of a replica's."""
    while within_s > 0:
        yield min(within_s, _LOOK_S)
        within_s -= _LOOK_S


def _facts(policy: PlannedPolicy) -> Facts:
    return Facts(**{field.name: getattr(policy, field.name) for field in fields(Facts)})
