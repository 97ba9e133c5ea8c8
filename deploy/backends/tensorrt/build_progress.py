"""How far a build is, from the nested phases that TensorRT reports: pure arithmetic.

A phase has a number of steps, of which a child phase may be one. Phases come and go, so their
shares are estimates; the result never falls.
"""

from dataclasses import dataclass
from threading import Lock


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class BuildProgress:
    """Usable by several threads, because builders report from several. `share` is from 0 to 1."""

    def __init__(self) -> None:
        self._phases: dict[str, _Phase] = {}
        self._lock = Lock()
        self._share = 0.0

    @property
    def share(self) -> float:
        """The largest estimate so far."""
        return self._share

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins, within a step of its parent."""
        with self._lock:
            self._phases[name] = _Phase(parent, max(steps, 1))

    def step(self, name: str, index: int) -> float:
        """Step `index`, from 0, of a phase is done. Returns the share."""
        with self._lock:
            if name in self._phases:
                self._phases[name].done = index + 1
            return self._estimate()

    def finish(self, name: str) -> float:
        """A phase is over; at the root, all is. Returns the share."""
        with self._lock:
            phase = self._phases.pop(name, None)
            if phase is not None and phase.parent is None:
                self._share = 1.0
            return self._estimate()

    def _estimate(self) -> float:
        roots = [self._part(name) for name, phase in self._phases.items() if phase.parent is None]
        self._share = max([self._share, *roots])
        return self._share

    def _part(self, name: str) -> float:
        phase = self._phases[name]
        children = [self._part(child) for child, p in self._phases.items() if p.parent == name]
        return min(1.0, (phase.done + max([0.0, *children])) / phase.steps)
