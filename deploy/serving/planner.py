"""How deep to compute for each request, so that its chunk is there when it is wanted.

A rung is a number of loops and of denoising steps. The server's rungs form a ladder: from its
default down through smaller K, then at the smallest K through half the steps, a quarter, and so on
to one. Loops go first, because a chunk of 10 steps at K = 1 takes as long as one of 1 step at K = 4
and does better (docs/results.md, working points of `lift`: 50 against 49 of 50, and 42 with both).

How long an undisturbed chunk takes, x, is known from before (`Latency`: the bundle's table, or the
warm-up). What is measured while serving, y, is kept for the last WINDOW chunks of all rungs
together, since what disturbs a machine disturbs every rung, in two ways. It slows compute (heat, a
core that is shared evenly): the median of y / x is the factor m by which it is slow now. And it
interrupts it (other programs' time slices), for seconds that do not grow with x, and as often as x
is long, so that what they add spreads as the square root of x: the second largest of
(y - m x) / sqrt(x), times sqrt(x), is added to m x for what to rely on. Were the interruptions of a
short chunk taken for slowness, a long one would never be tried on a busy machine, and nothing would
show that it could be; one that is tried too early shows at once.

What passes around compute is kept apart, in seconds: its median, its second largest. Of n
exchangeable values the next one is at most the k-th smallest with probability k / (n + 1) (the
coverage of an order statistic, on which split conformal prediction rests), here 198 / 200 = 0.99.
So a single cold call changes nothing, whatever it took.

A request gets the deepest rung that can be relied on to end in time. Where none can, it gets the
shallowest while that is more likely in time than not; after that it is late. Who is refused is not
measured, so of those in a row one in PROBE is tried all the same, and counts for all of them: a
machine that was slow once is not thought so for ever.

Pure: time and measurements are arguments.
"""

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

WINDOW = 199
PROBE = 20
# From the end of compute until a client on this machine has the chunk.
MARGIN_S = 0.001
# A batch pays where a chunk of it takes at most this share of one alone. A core's time in a batch
# of 2, 4, 8 (the shipped policy, 10 steps, K = 1): torch 0.60, 0.37, 0.26; openvino 0.76, 0.56,
# 0.49; onnxruntime 0.72, 0.58, 0.49; fused 1.01, 0.93, 0.90.
PAYS = 0.8


@dataclass(frozen=True)
class Rung:
    """How deep to compute."""

    loops: int
    steps: int


@dataclass(frozen=True)
class ChunkTime:
    """Seconds of an undisturbed chunk, or batch of them, at one K: once, and for each step."""

    fixed_s: float
    step_s: float

    def seconds(self, steps: int) -> float:
        """With so many denoising steps."""
        return self.fixed_s + steps * self.step_s


@dataclass(frozen=True)
class Latency:
    """What is known before serving. undisturbed: by (loops, batch). multiples: how many times as
    long single measurements took, in their order; empty where nothing was measured."""

    undisturbed: Mapping[tuple[int, int], ChunkTime] = field(
        default_factory=dict[tuple[int, int], ChunkTime]
    )
    multiples: tuple[float, ...] = ()


UNMEASURED = Latency()


def ladder(loops: Iterable[int], steps: int, halve_steps: bool = True) -> tuple[Rung, ...]:
    """From the deepest down, over the K that may be chosen: see the module."""
    depths = sorted(loops, reverse=True)
    rungs = [Rung(k, steps) for k in depths]
    while halve_steps and steps > 1:
        steps //= 2
        rungs.append(Rung(depths[-1], steps))
    return tuple(rungs)


class _Window:
    """The last WINDOW values, whose order statistics are always known: sorting them anew for each
    chunk would delay it by 40 us."""

    def __init__(self, values: Iterable[float]) -> None:
        self._values = deque(values)
        self._sorted = sorted(self._values)

    @property
    def median(self) -> float:
        return self._sorted[WINDOW // 2]

    @property
    def relied_on(self) -> float:
        return self._sorted[-2]

    def add(self, value: float) -> None:
        del self._sorted[bisect_left(self._sorted, self._values.popleft())]
        self._values.append(value)
        insort(self._sorted, value)


class _Measured:
    """The last WINDOW chunks: seconds that each takes undisturbed, and that it took. At first those
    of `multiples`, of chunks of `length_s`."""

    def __init__(self, length_s: float, multiples: Sequence[float]) -> None:
        self._undisturbed = np.full(WINDOW, length_s)
        self._took = length_s * np.resize(multiples, WINDOW)
        self._next = 0
        self._fitted: tuple[float, float] | None = None

    def add(self, undisturbed_s: float, took_s: float) -> None:
        self._undisturbed[self._next], self._took[self._next] = undisturbed_s, took_s
        self._next = (self._next + 1) % WINDOW
        self._fitted = None

    def typical_s(self, undisturbed_s: float) -> float:
        """What half of the chunks of this length take at most."""
        return self._fit()[0] * undisturbed_s

    def relied_s(self, undisturbed_s: float) -> float:
        """What 99 of 100 take at most."""
        slow, interrupted = self._fit()
        return slow * undisturbed_s + interrupted * math.sqrt(undisturbed_s)

    def _fit(self) -> tuple[float, float]:
        """When it is asked for: it takes some 20 us, and many a request has all the time."""
        if self._fitted is None:
            x, y = self._undisturbed, self._took
            slow = float(np.partition(y / x, WINDOW // 2)[WINDOW // 2])
            interrupted = float(np.partition((y - slow * x) / np.sqrt(x), -2)[-2])
            self._fitted = slow, interrupted
        return self._fitted


class Planner:
    """See the module. `rungs` is a ladder; what was not measured is taken to need no time."""

    def __init__(
        self, rungs: Sequence[Rung], latency: Latency = UNMEASURED, margin_s: float = MARGIN_S
    ) -> None:
        self.rungs = tuple(rungs)
        self._undisturbed = dict(latency.undisturbed)
        self._margin_s = margin_s
        self._refused = 0  # in a row
        self._allowed: dict[tuple[int, int], tuple[Rung, ...]] = {}  # by what a request says
        # Which rungs the multiples are of is not known: taken for the longest, which is careful.
        longest_s = max(self._before(rung, 1) for rung in self.rungs) or 1.0
        self._measured = _Measured(longest_s, latency.multiples or (1.0,))
        self._around = _Window((0.0,) * WINDOW)
        self.batches = self._paying_batches()

    def allowed(self, loops: int, steps: int) -> tuple[Rung, ...]:
        """The rungs that agree with what a request says (0: nothing), the deepest first.

        What it says is run as it is where the ladder has none that agrees.
        """
        if (loops, steps) not in self._allowed:
            self._allowed[loops, steps] = self._agreeing(loops, steps)
        return self._allowed[loops, steps]

    def typical_s(self, rung: Rung, batch: int = 1) -> float:
        """What half of the chunks, or batches, take at most."""
        before_s = self._before(rung, batch)
        return before_s and self._around.median + self._measured.typical_s(before_s)

    def relied_s(self, rung: Rung, batch: int = 1) -> float:
        """What 99 of 100 take at most."""
        before_s = self._before(rung, batch)
        return before_s and self._around.relied_on + self._measured.relied_s(before_s)

    def choose(self, rungs: Sequence[Rung], left_s: float) -> Rung | None:
        """The one to run of `rungs`, the deepest first, when its chunk is wanted in `left_s`; None
        when that is too late."""
        for rung in rungs:
            if self.in_time(rung, 1, left_s):
                return rung
        return rungs[-1] if self.least_s(rungs) <= left_s else None

    def least_s(self, rungs: Sequence[Rung]) -> float:
        """How long before its deadline a request must begin at the latest. Nothing where the
        shallowest was never measured: it may begin until then."""
        return self._delivered(self.typical_s(rungs[-1])) if self._refused < PROBE else 0.0

    def in_time(self, rung: Rung, batch: int, left_s: float) -> bool:
        """Whether a batch can be relied on to end in `left_s`."""
        return self._delivered(self.relied_s(rung, batch)) <= left_s

    def observe(self, rung: Rung, batch: int, compute_s: float, around_s: float = 0.0) -> None:
        """Take notice of what it took to compute a chunk or batch, and what passed besides from the
        decision until it was there.

        Only of rungs of the ladder: the first call of another may compile something.
        """
        before_s = self._before(rung, batch)
        if before_s > 0 and rung in self.rungs:
            counts = PROBE if self._refused == PROBE else 1
            for _ in range(counts):
                self._measured.add(before_s, compute_s)
                self._around.add(around_s)
            self._refused = 0

    def refused(self, count: int) -> None:
        """Take notice that so many more were too late, though nothing else was computed."""
        self._refused = min(self._refused + count, PROBE)

    def _agreeing(self, loops: int, steps: int) -> tuple[Rung, ...]:
        if not loops and not steps:
            return self.rungs
        if not loops:
            depths = dict.fromkeys(rung.loops for rung in self.rungs)
            return tuple(Rung(k, steps) for k in depths)
        found = tuple(r for r in self.rungs if r.loops == loops and steps in (0, r.steps))
        return found or (Rung(loops, steps or self.rungs[0].steps),)

    def _delivered(self, seconds: float) -> float:
        return seconds + self._margin_s if seconds else 0.0

    def _before(self, rung: Rung, batch: int) -> float:
        time = self._undisturbed.get((rung.loops, batch))
        return 0.0 if time is None else time.seconds(rung.steps)

    def _paying_batches(self) -> tuple[int, ...]:
        """Sizes above 1, ascending, at which every rung's batch pays."""
        sizes = sorted({batch for _, batch in self._undisturbed if batch > 1})
        return tuple(
            n
            for n in sizes
            if all(0 < self._before(r, n) <= PAYS * n * self._before(r, 1) for r in self.rungs)
        )
