"""How long the runs that are left take, by those that are done.

A run is taken to last as long as the same cell did with other seeds, else as its experiment's runs
did, else as all did: cells of one experiment may differ tenfold, its seeds hardly do.
"""

from collections.abc import Iterable
from statistics import fmean

from loopdit.eval.experiments.plan import Run


class Durations:
    """Seconds of runs that are done."""

    def __init__(self) -> None:
        self._of_cell: dict[tuple[str, str], list[float]] = {}
        self._of_experiment: dict[str, list[float]] = {}
        self._all: list[float] = []

    def note(self, run: Run, seconds: float) -> None:
        """One more that is done."""
        self._of_cell.setdefault((run.experiment, run.cell), []).append(seconds)
        self._of_experiment.setdefault(run.experiment, []).append(seconds)
        self._all.append(seconds)

    def expected(self, run: Run) -> float | None:
        """Seconds; None where nothing is done yet."""
        found = (
            self._of_cell.get((run.experiment, run.cell))
            or self._of_experiment.get(run.experiment)
            or self._all
        )
        return fmean(found) if found else None

    def left(self, runs: Iterable[Run]) -> float | None:
        """Seconds of one worker for `runs`; those that have a hash in common are run once."""
        distinct = {run.config_hash: run for run in runs}
        each = [self.expected(run) for run in distinct.values()]
        known = [seconds for seconds in each if seconds is not None]
        return sum(known) if len(known) == len(each) else None


def about(seconds: float) -> str:
    """ "3.4 hours", "12 minutes", "40 seconds"."""
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.0f} seconds"
